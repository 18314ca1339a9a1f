"""The model directory: `model.json` says what the model is, `model.safetensors` holds its weights.

Nothing in it can run code. Every file's size and SHA-256 stand in `model.json`, so a truncated download or
a foreign file is told apart from a model before any of it is used.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sdcom.config import ModelConfig
from sdcom.cost import ModelMacs, model_macs
from sdcom.errors import ModelDirectoryError

SCHEMA_VERSION: Final = 1
INFO_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"

Weights = Mapping[str, npt.NDArray[np.generic]]
"""Arrays by the names that the torch networks give them: `static.features.0.0.weight` and so on."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CalibrationPoint(_Record):
    """What the policy does at one price, over the calibration videos.

    Attributes:
        lam: the price.
        gmacs: mean GMACs of a video, all parts.
        share: those over the full-width baseline's.
        top1: share of the videos recognised.
        width_shares: share of the frames that took each width, in the order of the model's widths.
    """

    lam: float
    gmacs: float
    share: float
    top1: float
    width_shares: tuple[float, ...]


class ExitPoint(_Record):
    """What stopping early does at one price and one confidence, over the calibration videos.

    Attributes:
        lam: the price at which widths are chosen.
        confidence: probability of the best class at which a video is fed no more frames.
        num_frames: mean frames fed.
        gmacs: mean GMACs of a video, all parts, of the frames fed.
        share: those over the full-width baseline's on all T frames.
        top1: share of the videos recognised.
    """

    lam: float
    confidence: float
    num_frames: float
    gmacs: float
    share: float
    top1: float


def best_exits(points: Sequence[ExitPoint]) -> list[ExitPoint]:
    """Return the calibrated points that nothing cheaper matches, cheapest first."""
    best: list[ExitPoint] = []
    for point in sorted(points, key=lambda point: (point.gmacs, -point.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return best


class FileRecord(_Record):
    """Size and checksum of one file of the directory."""

    size_bytes: int
    sha256: str


class ModelInfo(_Record):
    """Everything about a model but its weights.

    Attributes:
        schema_version: of this record's form; a larger one than ours cannot be read.
        name: what requests and logs call the model.
        version: of this model under that name.
        config: its networks, clip and labels.
        default_budget: share of the baseline's FLOPs that a request gets if it names none; None is the
            trained policy.
        calibration: by rising lam.
        exits: by rising lam, then confidence; empty where it was never calibrated.
        evaluation: figures and the command that made them.
        provenance: data, recipe, licences.
        files: the directory's other files.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    version: str
    config: ModelConfig
    default_budget: float | None = None
    calibration: tuple[CalibrationPoint, ...] = ()
    exits: tuple[ExitPoint, ...] = ()
    evaluation: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
    files: dict[str, FileRecord] = {}

    @property
    def full_name(self) -> str:
        """Name and version, as answers and logs give it."""
        return f"{self.name}@{self.version}"

    @property
    def macs(self) -> ModelMacs:
        """MACs of every part at every width."""
        return model_macs(self.config)


def write_model(directory: Path, info: ModelInfo, weights: Weights) -> ModelInfo:
    """Write a model directory, both files whole before either takes its place; return the record written.

    Args:
        directory: made if absent.
        info: its `files` are filled in here.
        weights: C-contiguous arrays, stored as they are.
    """
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f".{WEIGHTS_FILE}.partial"
    save_file(dict(weights), partial)
    partial.chmod(0o644)  # safetensors makes private files; the service may run as another user
    record = FileRecord(size_bytes=partial.stat().st_size, sha256=_sha256(partial))
    info = info.model_copy(update={"files": {WEIGHTS_FILE: record}})
    document = _write_document(directory, info)
    partial.replace(directory / WEIGHTS_FILE)
    document.replace(directory / INFO_FILE)
    return info


def write_info(directory: Path, info: ModelInfo) -> None:
    """Replace the directory's `model.json` at once, with the MACs of every part beside the record."""
    _write_document(directory, info).replace(directory / INFO_FILE)


def _write_document(directory: Path, info: ModelInfo) -> Path:
    """Write the record beside its place; return where."""
    document = {**info.model_dump(mode="json"), "macs": info.macs.to_dict()}
    partial = directory / f".{INFO_FILE}.partial"
    partial.write_text(json.dumps(document, indent=1) + "\n")
    return partial


def load_info(directory: Path) -> ModelInfo:
    """Read and check `model.json`.

    Raises:
        ModelDirectoryError: it is missing, not ours, or from a newer version.
    """
    path = directory / INFO_FILE
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError as exc:
        raise ModelDirectoryError(
            f"{directory} is not a model directory: {path.name} is missing (`sdcom train` writes one)"
        ) from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise ModelDirectoryError(f"{path} cannot be read as JSON: {exc}") from exc
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise ModelDirectoryError(f"{path} is not an SDCOM model's record: it has no schema_version")
    if version > SCHEMA_VERSION:
        raise ModelDirectoryError(
            f"{path} has schema version {version}; this release reads up to {SCHEMA_VERSION}: upgrade sdcom"
        )
    document.pop("macs", None)  # derived from the config; kept in the file for its readers
    try:
        return ModelInfo.model_validate(document)
    except ValidationError as exc:
        raise ModelDirectoryError(f"{path} is not a valid model record: {exc}") from exc


def load_weights(directory: Path, info: ModelInfo) -> dict[str, npt.NDArray[np.generic]]:
    """Read and check the weights, as they are stored: float16 or float32.

    Raises:
        ModelDirectoryError: the file is missing, foreign, truncated or altered.
    """
    path = directory / WEIGHTS_FILE
    record = info.files.get(WEIGHTS_FILE)
    if record is None:
        raise ModelDirectoryError(f"{directory / INFO_FILE} does not list {WEIGHTS_FILE}")
    if not path.is_file():
        raise ModelDirectoryError(f"{path} is missing")
    if (size := path.stat().st_size) != record.size_bytes:
        raise ModelDirectoryError(f"{path} is {size} bytes, {record.size_bytes} expected: copy it again")
    if _sha256(path) != record.sha256:
        raise ModelDirectoryError(f"{path} is damaged: its SHA-256 differs from {INFO_FILE}; copy it again")
    try:
        weights: dict[str, npt.NDArray[np.generic]] = load_file(path)
    except SafetensorError as exc:
        raise ModelDirectoryError(f"{path} is not a safetensors file: {exc}") from exc
    return weights


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
