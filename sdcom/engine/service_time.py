"""How long a video takes once begun, as seen lately."""

from dataclasses import dataclass

_MEAN_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4
_DEVIATIONS = 2


@dataclass(slots=True)
class ServiceTime:
    """Running mean and mean deviation, as TCP keeps them of its round trips (RFC 6298, section 2).

    Both are 0 before the first.
    """

    mean_s: float = 0.0
    deviation_s: float = 0.0

    @property
    def most_s(self) -> float:
        """What hardly any video takes longer than; 0 before the first."""
        return self.mean_s + _DEVIATIONS * self.deviation_s

    def add(self, seconds: float) -> None:
        """Take one more video into account, that was gone through to its end."""
        if self.mean_s == 0:
            self.mean_s, self.deviation_s = seconds, seconds / 2
            return
        error_s = seconds - self.mean_s
        self.mean_s += _MEAN_GAIN * error_s
        self.deviation_s += _DEVIATION_GAIN * (abs(error_s) - self.deviation_s)
