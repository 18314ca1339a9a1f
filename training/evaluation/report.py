"""The generated part of the results page, and its place between what is written by hand."""

from collections.abc import Sequence

from sdcom.errors import SdcomError
from training.evaluation.record import Record
from training.evaluation.summary import grouped
from training.evaluation.tables import (
    Score,
    accuracy_table,
    anytime_table,
    equal_flops_table,
    kinds_table,
    lead_table,
    parts_table,
    runs_table,
    whole_time_table,
)

BEGIN = "<!-- made by sdcom results: what stands between this line and its end is replaced -->"
END = "<!-- end of what sdcom results made -->"


class PageError(SdcomError):
    """The page has no clear place for what is generated."""


def report(records: Sequence[Record], score: Score, command: str) -> str:
    """Return the text on these records: a chapter for each kind of runs on each dataset.

    Args:
        records: in the order of `read_records`.
        score: that comparisons are about.
        command: that makes the page.
    """
    chapters = [_chapter(runs, score) for runs in grouped(records).values()]
    made = f"Made by\n\n    {command}\n\nfrom the records of these runs:\n\n{runs_table(records)}"
    return "\n\n".join([*chapters, *_kinds_compared(records, score), f"### Runs\n\n{made}"])


def placed(page: str, generated: str) -> str:
    """Return a page with its generated part replaced, or added at its end where it has none yet.

    Raises:
        PageError: only one of the two marking lines is there, or one is there twice.
    """
    part = f"{BEGIN}\n\n{generated}\n\n{END}"
    counts = (page.count(BEGIN), page.count(END))
    if counts == (0, 0):
        return f"{page.rstrip()}\n\n{part}\n".lstrip()
    if counts != (1, 1) or page.index(END) < page.index(BEGIN):
        raise PageError(
            f"the page needs the line {BEGIN!r} once and, after it, {END!r} once; it has them {counts} times"
        )
    before, _, rest = page.partition(BEGIN)
    return f"{before}{part}{rest.partition(END)[2]}"


def plot_name(record: Record, against: str) -> str:
    """Return the file name of the plot of a kind of runs against "gflops" or "ms"."""
    words = "".join(sign if sign.isalnum() else " " for sign in f"{record.name} {record.data}".lower())
    return f"{'-'.join(words.split())}-{against}.svg"


def _chapter(runs: Sequence[Record], score: Score) -> str:
    first, heading = runs[0], score.heading
    sections = [
        f"### {first.name} on {first.data}",
        _introduction(runs),
        accuracy_table(runs),
        f"![{heading} against GFLOPs](plots/{plot_name(first, 'gflops')})",
        f"![{heading} against milliseconds](plots/{plot_name(first, 'ms')})",
        f"At equal FLOPs, {heading}; between two sizes of a control, that of using the one for some videos "
        "and the other for the rest:",
        equal_flops_table(runs, score),
        f"Points of {heading} by which one price for all videos leads, run by run:",
        lead_table(runs, score),
        "Where the GFLOPs of a video go, and the share of its frames that each width got:",
        parts_table(runs),
        f"After the first frames, coarse to fine, {heading}:",
        anytime_table(runs, score),
        *_whole_times(runs),
    ]
    return "\n\n".join(sections)


def _introduction(runs: Sequence[Record]) -> str:
    named = ", ".join(r.split if r.seed is None else f"{r.split} seed {r.seed}" for r in runs)
    counts = "/".join(str(count) for count in sorted({record.num_clips for record in runs}))
    several = f"Means ± standard deviations over {len(runs)} runs" if len(runs) > 1 else "One run"
    return (
        f"{several} ({named}); {counts} test clips, {runs[0].num_frames} frames a video. FLOPs are "
        "multiply-accumulates. Milliseconds are those of the parts, measured one by one, times the frames "
        "that each part saw. The controls are not charged for a gate."
    )


def _whole_times(runs: Sequence[Record]) -> list[str]:
    timed = [record for record in runs if record.timing.whole]
    if not timed:
        return []
    timing = timed[0].timing
    where = f"{timing.device}, threads of a network call: {timing.num_threads}"
    heading = f"From the file to the answer, ms, medians of {timing.num_videos} videos ({where}):"
    return [heading, whole_time_table(timed)]


def _kinds_compared(records: Sequence[Record], score: Score) -> list[str]:
    """Return a chapter for each dataset that runs of several kinds were made on."""
    chapters = []
    for data in dict.fromkeys(record.data for record in records):
        kinds = {name: runs for (name, on), runs in grouped(records).items() if on == data}
        if len(kinds) > 1:
            heading = f"### Kinds compared on {data}"
            caption = f"One price for all videos, {score.heading} at shares of the baseline's FLOPs:"
            chapters.append(f"{heading}\n\n{caption}\n\n{kinds_table(kinds, score)}")
    return chapters
