"""What the commands that run a finished model share: opening it, and asking it about clips."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer

from sdcom.errors import InvalidParameterError
from sdcom.model import Model, load_model
from sdcom.processors import num_processors
from sdcom.sampling import Sampling
from sdcom.video import DecoderPool
from training.cli.console import tracked
from training.data import Clip
from training.data.shards import SHARD_SUFFIX
from training.data.sources import ClipSource, StreamedClips
from training.evaluation.served import ServedClips
from training.evidence import Evidence, gather_evidence

DeviceOption = Annotated[
    str | None, typer.Option(help="cpu or cuda; the best there is if not given.", show_default=False)
]


def chosen_device(named: str | None) -> torch.device:
    """Return the device by that name, or the best there is.

    Raises:
        InvalidParameterError: there is none by that name.
    """
    try:
        device = torch.device(named or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as exc:
        raise InvalidParameterError(f"there is no device {named!r}; cpu and cuda are known") from exc
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidParameterError("cuda was asked for, and there is no GPU that torch can use")
    return device


class Opened(NamedTuple):
    """A model as torch networks, and decoders for its clips."""

    model: Model
    decoders: DecoderPool


@contextmanager
def opened(directory: Path, device: str | None, sampling: Sampling = "centers") -> Iterator[Opened]:
    """Load a model onto a device, with decoders for its clips.

    Raises:
        ModelDirectoryError: the directory is not a whole, readable model.
        InvalidParameterError: there is no such device.
    """
    model = load_model(directory, chosen_device(device))
    with DecoderPool(model.info.config.clip, num_workers=num_processors(), sampling=sampling) as decoders:
        yield Opened(model, decoders)


def stored_as_frames(clip: Clip) -> bool:
    """Tell whether a clip is a folder of frames or stands in a shard, instead of being a video file."""
    return clip.path.is_dir() or clip.path.parent.suffix == SHARD_SUFFIX


def examined_evidence(opened: Opened, clips: Sequence[Clip]) -> Evidence:
    """Run a model at every width on clips, as serving sees them, with a progress bar.

    Raises:
        DataError: a clip cannot be read.
    """
    return gather_evidence(opened.model.networks, _source(opened, clips), tracked("every width"))


def _source(opened: Opened, clips: Sequence[Clip]) -> ClipSource:
    """Read video files by the serving decoders, and frames that are stored one by one as training does."""
    networks, num_readers = opened.model.networks, num_processors()
    clip, device = networks.config.clip, next(networks.parameters()).device
    if any(stored_as_frames(each) for each in clips):
        return StreamedClips(clips, clip.short_side, num_readers=num_readers, device=device)
    return ServedClips(
        clips, opened.decoders, num_frames=clip.num_frames, num_readers=num_readers, device=device
    )
