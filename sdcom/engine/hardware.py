"""What each part takes on a machine: measured once, kept beside the weights in `hardware.json`.

It is no part of what a model is: no checksum covers it, and it may be deleted. One record for each machine,
provider and number of threads; those of others are kept and do not apply.
"""

from collections.abc import Sequence
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sdcom.checkpoint import ModelInfo
from sdcom.cost import ModelMacs
from sdcom.engine.backend import Backend
from sdcom.engine.bench import PartTiming, time_parts
from sdcom.errors import ModelDirectoryError
from sdcom.processors import processor_name
from sdcom.recognition import Provider

HARDWARE_FILE: Final = "hardware.json"

Microseconds = Annotated[int, Field(ge=1, le=10**12)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HardwareCosts(_Record):
    """What each part of one model takes on one machine, in whole microseconds a frame, rounded up.

    Attributes:
        provider: what computed it (`sdcom.recognition.Provider`); of clips one by one nothing is compiled.
        provider_version: of that.
        num_threads: of one network call.
        machine: the GPU's model, or the processor's.
        macs: of the parts that were measured: another model's times do not apply.
        static_us: the static network and the gate's embedding.
        gate_us: the gate's decision.
        fusion_us: projection and classifier.
        dynamic_us: the dynamic network at each width above 0.
    """

    provider: str
    provider_version: str
    num_threads: int
    machine: str
    macs: ModelMacs
    static_us: Microseconds
    gate_us: Microseconds
    fusion_us: Microseconds
    dynamic_us: dict[float, Microseconds] = Field(min_length=1)

    @model_validator(mode="after")
    def _same_widths(self) -> Self:
        if {width for width, count in self.macs.dynamic.items() if count > 0} != set(self.dynamic_us):
            raise ValueError("the widths measured are not those of the MACs")
        return self

    @property
    def place(self) -> tuple[str, str, int]:
        """Of which the file holds one record: machine, provider, threads."""
        return self.machine, self.provider, self.num_threads

    @property
    def dynamic_by_choice(self) -> tuple[int, ...]:
        """Microseconds at each of the K widths: 0 at width 0, and no wider one below a narrower.

        Where the measured times say otherwise, by noise, a width takes what the narrower one takes.
        """
        return (0, *accumulate((us for _, us in sorted(self.dynamic_us.items())), max))

    def floor_us(self, num_frames: int) -> int:
        """Return the least that this many frames can take: static network, gate and fusion on each."""
        return num_frames * (self.static_us + self.gate_us + self.fusion_us)

    def applies(self, info: ModelInfo, provider: Provider, num_threads: int) -> bool:
        """Return whether these are a model's times on this machine, so computed."""
        return (
            self.place == (_machine(provider), _name_alone(provider), num_threads)
            and self.provider_version == provider.version
            and self.macs == info.macs
        )


class _Document(_Record):
    schema_version: Literal[1] = 1
    records: tuple[HardwareCosts, ...] = ()


def measure_hardware(backend: Backend, *, num_threads: int, num_repeats: int) -> HardwareCosts:
    """Time every part and width of a model here (`sdcom.engine.bench.time_parts`).

    Args:
        backend: of the model; called from this thread.
        num_threads: that it was loaded with.
        num_repeats: runs of each part; the median counts.
    """
    static, gate, fusion, *dynamic = time_parts(backend, num_repeats=num_repeats)
    return HardwareCosts(
        provider=_name_alone(backend.provider),
        provider_version=backend.provider.version,
        num_threads=num_threads,
        machine=_machine(backend.provider),
        macs=backend.info.macs,
        static_us=_microseconds(static),
        gate_us=_microseconds(gate),
        fusion_us=_microseconds(fusion),
        dynamic_us=dict(zip(backend.info.config.widths[1:], map(_microseconds, dynamic), strict=True)),
    )


def _name_alone(provider: Provider) -> str:
    """Return what computes one clip: where kernels are compiled, they are for larger batches."""
    return provider.name.removesuffix("-compiled")


def _machine(provider: Provider) -> str:
    return provider.device or processor_name()


def _microseconds(timing: PartTiming) -> int:
    return max(1, ceil(timing.ms * 1e3))


def load_hardware(directory: Path) -> tuple[HardwareCosts, ...]:
    """Read a model directory's records, of whatever machines; none where nothing was measured.

    Raises:
        ModelDirectoryError: the file is there and cannot be used.
    """
    path = directory / HARDWARE_FILE
    try:
        return _Document.model_validate_json(path.read_bytes()).records
    except FileNotFoundError:
        return ()
    except OSError as exc:
        raise ModelDirectoryError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelDirectoryError(
            f"{path} is damaged ({where + ': ' if where else ''}{first['msg']}): "
            "delete it, and run `sdcom calibrate --hardware` again"
        ) from exc


def save_hardware(directory: Path, measured: HardwareCosts) -> None:
    """Put a record into a model directory's file at once, in place of the last one of its place.

    Raises:
        ModelDirectoryError: the file that is there cannot be used, or none can be written.
    """
    others = (each for each in load_hardware(directory) if each.place != measured.place)
    document = _Document(records=(*others, measured))
    partial = directory / f".{HARDWARE_FILE}.partial"
    try:
        partial.write_text(document.model_dump_json(indent=1) + "\n", encoding="utf-8")
        partial.replace(directory / HARDWARE_FILE)
    except OSError as exc:
        raise ModelDirectoryError(
            f"{HARDWARE_FILE} cannot be written into {directory} ({exc.strerror}): copy the model directory "
            "to where you may write, measure the copy, and load that"
        ) from exc


def applying(
    records: Sequence[HardwareCosts], info: ModelInfo, provider: Provider, num_threads: int
) -> HardwareCosts | None:
    """Return the record of a model's times on this machine, so computed, or None."""
    return next((each for each in records if each.applies(info, provider, num_threads)), None)
