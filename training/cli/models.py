"""What the commands that run a finished model share: opening it, and asking it about clips."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import track

from sdcom.checkpoint import load_model
from sdcom.errors import InvalidParameterError
from sdcom.processors import num_processors
from sdcom.recognizer import Recognizer
from sdcom.sampling import Sampling
from sdcom.video import DecodeLimits, DecoderPool
from training.cli.console import progress
from training.data import Clip
from training.data.shards import SHARD_SUFFIX
from training.data.sources import ClipSource, StreamedClips
from training.evaluation.served import ServedClips
from training.evidence import Evidence, clips_at_once, gathered_evidence, joined

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


def open_recognizer(directory: Path, device: str | None, sampling: Sampling = "centers") -> Recognizer:
    """Load a model onto a device, with decoders for its clips; to be closed by the caller.

    Raises:
        ModelDirectoryError: the directory is not a whole, readable model.
        InvalidParameterError: there is no such device.
    """
    model = load_model(directory, chosen_device(device))
    decoders = DecoderPool(
        model.info.config.clip, DecodeLimits(), num_workers=num_processors(), sampling=sampling
    )
    return Recognizer(model, decoders, num_threads=num_processors())


def stored_as_frames(clip: Clip) -> bool:
    """Tell whether a clip is a folder of frames or stands in a shard, instead of being a video file."""
    return clip.path.is_dir() or clip.path.parent.suffix == SHARD_SUFFIX


def examined_evidence(recognizer: Recognizer, clips: Sequence[Clip]) -> Evidence:
    """Run a model at every width on clips, as serving sees them, with a progress bar.

    Raises:
        DataError: a clip cannot be read.
    """
    networks = recognizer.model.networks
    num_parts = math.ceil(len(clips) / clips_at_once(networks))
    parts = gathered_evidence(networks, _source(recognizer, clips))
    return joined(track(parts, "every width", total=num_parts, console=progress, transient=True))


def _source(recognizer: Recognizer, clips: Sequence[Clip]) -> ClipSource:
    """Read video files by the serving decoders, and frames that are stored one by one as training does."""
    networks, num_readers = recognizer.model.networks, num_processors()
    clip, device = networks.config.clip, next(networks.parameters()).device
    if any(stored_as_frames(each) for each in clips):
        return StreamedClips(clips, clip.short_side, num_readers=num_readers, device=device)
    return ServedClips(
        clips, recognizer.decoders, num_frames=clip.num_frames, num_readers=num_readers, device=device
    )
