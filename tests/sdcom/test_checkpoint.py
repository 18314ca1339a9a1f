"""The model directory: what is saved comes back, and nothing else is taken for a model."""

import hashlib
import json
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdcom.checkpoint import (
    INFO_FILE,
    SCHEMA_VERSION,
    WEIGHTS_FILE,
    FileRecord,
    ModelInfo,
    load_info,
    write_info,
)
from sdcom.config import ModelConfig
from sdcom.errors import ModelDirectoryError
from sdcom.model import load_model, save_model
from sdcom.models.composition import SDCOM
from tests.conftest import TINY_CONFIG, lively_networks


@pytest.fixture(scope="module")
def networks() -> SDCOM:
    return lively_networks(TINY_CONFIG)


@pytest.fixture
def directory(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, for damaging."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def test_a_saved_model_loads_bit_for_bit(networks: SDCOM, tmp_path: Path) -> None:
    saved = save_model(tmp_path, ModelInfo(name="a", version="1", config=TINY_CONFIG), networks)
    model = load_model(tmp_path)
    assert model.info == saved
    state = model.networks.state_dict()
    for name, tensor in networks.state_dict().items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor), name


def test_a_loaded_model_is_for_inference_only(tiny_model_dir: Path) -> None:
    networks = load_model(tiny_model_dir).networks
    assert not any(module.training for module in networks.modules())
    assert not any(parameter.requires_grad for parameter in networks.parameters())


def test_half_weights_are_half_the_size_and_within_a_thousandth(networks: SDCOM, tmp_path: Path) -> None:
    info = ModelInfo(name="a", version="1", config=TINY_CONFIG)
    whole = save_model(tmp_path / "whole", info, networks).files[WEIGHTS_FILE]
    half = save_model(tmp_path / "half", info, networks, half=True).files[WEIGHTS_FILE]
    assert half.size_bytes < 0.55 * whole.size_bytes
    state = load_model(tmp_path / "half").networks.state_dict()
    for name, tensor in networks.state_dict().items():
        assert state[name].dtype == tensor.dtype
        torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-6)
        if tensor.ndim < 2:
            assert torch.equal(state[name], tensor), f"{name} needs float32's range"


def test_the_record_shows_its_readers_the_macs(tiny_model_dir: Path) -> None:
    document = json.loads((tiny_model_dir / INFO_FILE).read_text())
    assert document["macs"] == load_info(tiny_model_dir).macs.to_dict()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelDirectoryError, match="nowhere is not a model directory"):
        load_info(tmp_path / "nowhere")


def test_a_directory_without_a_record_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ModelDirectoryError, match=r"model\.json is missing \(`sdcom train` writes one\)"):
        load_info(tmp_path)


def test_a_file_in_place_of_the_directory_is_named(directory: Path) -> None:
    with pytest.raises(ModelDirectoryError, match=r"cannot be read"):
        load_info(directory / WEIGHTS_FILE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"architectures": ["ResNet"], "transformers_version": "4"}', "it has no schema_version"),
        (b"[1, 2]", "it has no schema_version"),
        (b'{"schema_version": "1"}', "it has no schema_version"),
        (b'{"schema_version": true}', "is not a valid model record"),
        (b'{"schema_version": 0}', "is not a valid model record"),
        (b'{"schema_version": 1}', r"is not a valid model record(.|\n)*config"),
    ],
)
def test_a_foreign_record_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / INFO_FILE).write_bytes(content)
    with pytest.raises(ModelDirectoryError, match=message):
        load_info(tmp_path)


def test_a_record_from_a_newer_release_asks_for_an_upgrade(directory: Path) -> None:
    _edit_record(directory, lambda document: document.update(schema_version=SCHEMA_VERSION + 1, tokens=[]))
    with pytest.raises(ModelDirectoryError, match="schema version 2; this release reads up to 1: upgrade"):
        load_model(directory)


def test_an_unknown_field_is_named(directory: Path) -> None:
    _edit_record(directory, lambda document: document.update(lables=["a", "b"]))
    with pytest.raises(ModelDirectoryError, match="lables"):
        load_model(directory)


def test_a_record_that_lists_no_weights_is_refused(directory: Path) -> None:
    _edit_record(directory, lambda document: document.update(files={}))
    with pytest.raises(ModelDirectoryError, match=r"does not list model\.safetensors"):
        load_model(directory)


def test_missing_weights_are_named(directory: Path) -> None:
    (directory / WEIGHTS_FILE).unlink()
    with pytest.raises(ModelDirectoryError, match=r"model\.safetensors is missing"):
        load_model(directory)


def test_truncated_weights_are_told_by_their_size(directory: Path) -> None:
    path = directory / WEIGHTS_FILE
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelDirectoryError, match=f"is {len(data) // 2} bytes, {len(data)} expected"):
        load_model(directory)


@pytest.mark.parametrize("position", [8, 20_000, -1])
def test_one_flipped_bit_is_noticed(directory: Path, position: int) -> None:
    path = directory / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelDirectoryError, match="its SHA-256 differs"):
        load_model(directory)


def test_weights_of_another_architecture_are_told_by_name(directory: Path, tmp_path: Path) -> None:
    other = TINY_CONFIG.model_copy(update={"dynamic": "resnet18"})
    info = save_model(tmp_path / "other", ModelInfo(name="b", version="1", config=other), SDCOM(other))
    shutil.copy(tmp_path / "other" / WEIGHTS_FILE, directory)
    write_info(directory, load_info(directory).model_copy(update={"files": info.files}))
    with pytest.raises(ModelDirectoryError, match=r"dynamic\.classifier\.1\.bias is missing; .* in all\)"):
        load_model(directory)


def test_weights_of_another_size_are_told_by_both_shapes(directory: Path) -> None:
    labels = {"labels": ["clap", "jump", "run", "wave"]}
    _edit_record(directory, lambda document: document["config"].update(labels))
    with pytest.raises(ModelDirectoryError, match=r"has shape \[3\] instead of \[4\]"):
        load_model(directory)


def test_a_tensor_too_many_is_told_by_name(directory: Path) -> None:
    tensors = load_file(directory / WEIGHTS_FILE)
    save_file(tensors | {"payload": torch.zeros(2)}, directory / WEIGHTS_FILE)
    _list_weights_as_they_are(directory)
    with pytest.raises(ModelDirectoryError, match="payload is unknown"):
        load_model(directory)


class _Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_under_the_weights_name_is_never_unpickled(directory: Path, tmp_path: Path) -> None:
    path, proof = directory / WEIGHTS_FILE, tmp_path / "exploded"
    for data in (pickle.dumps(_Bomb(proof)), b"", b"\x00" * 64, b"\xff" * 64):
        path.write_bytes(data)
        _list_weights_as_they_are(directory)
        with pytest.raises(ModelDirectoryError, match="is not a safetensors file"):
            load_model(directory)
    torch.save(_Bomb(proof), path)
    _list_weights_as_they_are(directory)
    with pytest.raises(ModelDirectoryError, match="is not a safetensors file"):
        load_model(directory)
    assert not proof.exists()
    pickle.loads(pickle.dumps(_Bomb(proof)))
    assert proof.exists(), "the bomb was no bomb"


@pytest.mark.parametrize("room_bytes", [1000, 2_000_000])
def test_an_old_model_survives_a_full_disk(directory: Path, room_bytes: int) -> None:
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    info = ModelInfo(name="newer", version="2", config=TINY_CONFIG)
    with _files_limited_to(room_bytes), pytest.raises(Exception, match="too large"):
        save_model(directory, info, SDCOM(TINY_CONFIG))
    assert {name: (directory / name).read_bytes() for name in before} == before


def test_an_old_model_survives_when_the_new_ones_record_cannot_be_written(directory: Path) -> None:
    (directory / f".{INFO_FILE}.partial").mkdir()
    with pytest.raises(IsADirectoryError):
        save_model(directory, ModelInfo(name="newer", version="2", config=TINY_CONFIG), SDCOM(TINY_CONFIG))
    assert load_model(directory).info.name == "tiny"


def test_a_save_leaves_nothing_but_the_model(directory: Path, networks: SDCOM) -> None:
    save_model(directory, ModelInfo(name="newer", version="2", config=TINY_CONFIG), networks)
    assert {path.name for path in directory.iterdir()} == {INFO_FILE, WEIGHTS_FILE}
    assert load_model(directory).info.full_name == "newer@2"


@pytest.mark.parametrize(
    ("widths", "reason"),
    [
        ([0, 0.5], "widths must ascend from 0 to 1"),
        ([], "at least 2 items"),
        ([0, 0.251, 0.252, 1], "widths must differ in whole hundredths"),
    ],
)
def test_a_networks_config_that_cannot_be_is_refused(
    directory: Path, widths: list[float], reason: str
) -> None:
    _edit_record(directory, lambda document: document["config"].update(widths=widths))
    with pytest.raises(ModelDirectoryError, match=reason):
        load_model(directory)


def test_every_architecture_has_a_round_trip(tmp_path: Path) -> None:
    config = ModelConfig.model_validate(
        TINY_CONFIG.model_dump() | {"static": "resnet50", "dynamic": "resnet18", "same_padding": True}
    )
    save_model(tmp_path, ModelInfo(name="a", version="1", config=config), SDCOM(config), half=True)
    assert load_model(tmp_path).networks.config == config


def _edit_record(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = directory / INFO_FILE
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def _list_weights_as_they_are(directory: Path) -> None:
    """Make the checksum fit, as an attacker would."""
    path = directory / WEIGHTS_FILE
    record = FileRecord(size_bytes=path.stat().st_size, sha256=_sha256(path))
    write_info(directory, load_info(directory).model_copy(update={"files": {WEIGHTS_FILE: record}}))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _files_limited_to(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
