"""ImageNet weights from files of others: torchvision's names, and MobileNetV2 with folded batch norm."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from sdcom.errors import ModelDirectoryError
from sdcom.models.mobilenet_v2 import SlimmableMobileNetV2
from sdcom.models.pretrained import load_folded_mobilenet_v2, load_torchvision_weights
from sdcom.models.resnet import SlimmableResNet
from sdcom.models.slimmable import batch_norms

WIDTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
Randomize = Callable[[nn.Module], None]


def _torchvision_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a static network's state as torchvision writes it: with a batch counter in every norm."""
    state = dict(model.state_dict())
    means = [name for name in state if name.endswith(".running_mean")]
    return {
        **state,
        **{name.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for name in means},
    }


@pytest.fixture
def source(randomize: Randomize) -> SlimmableResNet:
    model = SlimmableResNet("resnet18", (1.0,), 10).eval()
    randomize(model)
    return model


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_torchvision_file_loads_and_starts_every_width_from_the_first_channels(
    suffix: str, source: SlimmableResNet, tmp_path: Path
) -> None:
    path = tmp_path / f"resnet18{suffix}"
    state = _torchvision_state(source)
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    model = SlimmableResNet("resnet18", WIDTHS, 10).eval()
    assert load_torchvision_weights(model, path)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(x, 1.0), source(x, 1.0))
    mean, variance = model.bn1.statistics(0.25)
    assert torch.equal(mean, source.bn1.statistics(1.0)[0][:16])
    assert torch.equal(variance, source.bn1.statistics(1.0)[1][:16])


def test_a_classifier_of_other_classes_is_left_out_and_the_rest_loads(
    source: SlimmableResNet, tmp_path: Path
) -> None:
    torch.save(_torchvision_state(source), tmp_path / "w.pth")
    model = SlimmableResNet("resnet18", WIDTHS, 3)
    before = model.fc.weight.clone()
    assert not load_torchvision_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.fc.weight, before)
    assert torch.equal(model.conv1.weight, source.conv1.weight)


def test_a_file_of_another_architecture_is_refused_with_names(
    source: SlimmableResNet, tmp_path: Path
) -> None:
    torch.save(_torchvision_state(source), tmp_path / "w.pth")
    model = SlimmableResNet("resnet50", WIDTHS, 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ModelDirectoryError, match=r"missing layer1\.0\.conv3\.weight.* more; unexpected nothing"
    ):
        load_torchvision_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_missing_and_unexpected_names_are_both_named(source: SlimmableResNet, tmp_path: Path) -> None:
    state = _torchvision_state(source)
    state["module.conv1.weight"] = state.pop("conv1.weight")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ModelDirectoryError, match=r"missing conv1\.weight; unexpected module\.conv1\.weight"):
        load_torchvision_weights(SlimmableResNet("resnet18", WIDTHS, 10), tmp_path / "w.pth")


def test_another_shape_is_refused_with_both_shapes(source: SlimmableResNet, tmp_path: Path) -> None:
    state = _torchvision_state(source)
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ModelDirectoryError, match=r"conv1\.weight \(64, 1, 7, 7\), expected \(64, 3, 7, 7\)"):
        load_torchvision_weights(SlimmableResNet("resnet18", WIDTHS, 10), tmp_path / "w.pth")


class _Payload:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("owned",)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": _Payload()}, tmp_path / "w.pth")
    with pytest.raises(ModelDirectoryError, match="cannot read weights"):
        load_torchvision_weights(SlimmableResNet("resnet18", WIDTHS, 10), tmp_path / "w.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "name", ["absent.pth", "absent.safetensors", "cut.pth", "cut.safetensors", "text.pth"]
)
def test_a_missing_or_damaged_file_is_refused_by_name(
    name: str, source: SlimmableResNet, tmp_path: Path
) -> None:
    torch.save(source.state_dict(), tmp_path / "cut.pth")
    safetensors.torch.save_file(source.state_dict(), tmp_path / "cut.safetensors")
    for path in tmp_path.glob("cut.*"):
        os.truncate(path, path.stat().st_size // 2)
    (tmp_path / "text.pth").write_bytes(b"\x80not a state dict")
    with pytest.raises(ModelDirectoryError, match=f"cannot read weights from .*{name}"):
        load_torchvision_weights(SlimmableResNet("resnet18", WIDTHS, 10), tmp_path / name)


def test_a_text_is_refused_with_what_is_expected_instead_of_what_torch_says(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("these are no weights")
    with pytest.raises(
        ModelDirectoryError, match=r"w\.pth: a state dict that torch\.save wrote was expected"
    ):
        load_torchvision_weights(SlimmableResNet("resnet18", WIDTHS, 10), tmp_path / "w.pth")


def test_a_checkpoint_that_is_no_state_dict_is_refused(source: SlimmableResNet, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": source.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(ModelDirectoryError, match="not a state dict"):
        load_torchvision_weights(SlimmableResNet("resnet18", WIDTHS, 10), tmp_path / "w.pth")


@pytest.fixture(scope="session")
def folded_weights(shared_dir: Path) -> Path:
    return shared_dir / "weights" / "mobilenet_v2_1.0_224.npz"


@pytest.fixture(scope="session")
def photos(shared_dir: Path) -> Tensor:
    """A cat and a hot dog, centre-cropped, [2, 3, 224, 224] in [-1, 1]."""
    return torch.stack([_photo(shared_dir / "weights" / name) for name in ("cat_720p.jpg", "hot_dog.jpg")])


def _photo(path: Path) -> Tensor:
    image_HWC = cv2.imread(str(path))
    assert image_HWC is not None
    scale = 256 / min(image_HWC.shape[:2])
    image_HWC = cv2.resize(image_HWC, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, left = ((size - 224) // 2 for size in image_HWC.shape[:2])
    rgb_HWC = image_HWC[top : top + 224, left : left + 224, ::-1].copy()
    return torch.from_numpy(rgb_HWC).permute(2, 0, 1).float() / 127.5 - 1


def _folded_logits(path: Path, x: Tensor) -> Tensor:
    """Run the file's network straight from its arrays: no module of ours, no batch norm."""
    with np.load(path) as archive:
        names = sorted({name.rpartition(".")[0] for name in archive.files})
        layers = [
            tuple(torch.from_numpy(archive[f"{n}.{kind}"]) for kind in ("weight", "bias")) for n in names
        ]
    strided = {0, 4, 10, 19, 40}  # the stem and the depthwise layers that halve
    shortcut = x
    for index, ((weight, bias), name) in enumerate(zip(layers[:-1], names, strict=False)):
        depthwise = weight.shape[1] == 1
        if name.endswith(".expand"):
            shortcut = x
        if index in strided:
            x = nn.functional.pad(x, (0, 1, 0, 1))
        padding = 1 if weight.shape[-1] == 3 and index not in strided else 0
        stride = 2 if index in strided else 1
        groups = len(weight) if depthwise else 1
        y = nn.functional.conv2d(x, weight, bias, stride, padding, groups=groups)
        if not name.endswith(".project"):
            x = nn.functional.relu6(y)
        else:
            x = y + shortcut if y.shape == shortcut.shape else y
    weight, bias = layers[-1]
    return x.mean((2, 3)) @ weight.flatten(1).T + bias


def test_folded_weights_recognise_the_photos_before_and_after_recovering_batch_norm(
    folded_weights: Path, photos: Tensor, shared_dir: Path
) -> None:
    labels = (shared_dir / "weights" / "imagenet_labels.txt").read_text().splitlines()
    model = SlimmableMobileNetV2((0.5, 1.0), 1001, same_padding=True).eval()
    assert load_folded_mobilenet_v2(model, folded_weights, photos)
    with torch.inference_mode():
        folded, recovered = _folded_logits(folded_weights, photos), model(photos, 1.0)
    torch.testing.assert_close(recovered, folded, rtol=0, atol=1e-3)
    for logits_NL in (folded, recovered):
        cat, hot_dog = logits_NL.argmax(1).tolist()
        assert labels[cat] == "Egyptian cat"
        assert {"tabby, tabby cat", "tiger cat"} <= {labels[i] for i in logits_NL[0].topk(5).indices.tolist()}
        assert labels[hot_dog] == "hotdog, hot dog, red hot"


def test_recovered_batch_norm_is_at_home_in_training_on_the_calibration_frames(
    folded_weights: Path, photos: Tensor
) -> None:
    model = SlimmableMobileNetV2((0.5, 1.0), 21, same_padding=True)
    assert not load_folded_mobilenet_v2(model, folded_weights, photos)
    assert model.training
    narrow_mean, narrow_variance = batch_norms(model)[0].statistics(0.5)
    full_mean, full_variance = batch_norms(model)[0].statistics(1.0)
    assert torch.equal(narrow_mean, full_mean[:16])
    assert torch.equal(narrow_variance, full_variance[:16])
    with torch.no_grad():
        in_training = model.train().pool(model.feature_map(photos, 1.0))
        in_evaluation = model.eval().pool(model.feature_map(photos, 1.0))
    assert nn.functional.cosine_similarity(in_training, in_evaluation).min() > 0.99
    assert all(norm.weight.min() > 0 for norm in batch_norms(model))


@pytest.mark.parametrize("content", [b"these are no weights", b"\x93NUMPY\x01\x00", b""])
def test_what_is_no_archive_is_refused_with_what_is_expected(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.npz").write_bytes(content)
    model = SlimmableMobileNetV2((1.0,), 21, same_padding=True)
    expected = (
        r"w\.npz: it is no NumPy archive, which \.npz stands for; that of a MobileNetV2 .* was expected"
    )
    with pytest.raises(ModelDirectoryError, match=expected):
        load_folded_mobilenet_v2(model, tmp_path / "w.npz", torch.zeros(1, 3, 32, 32))


def test_folded_weights_need_the_padding_they_were_trained_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same_padding=True"):
        load_folded_mobilenet_v2(
            SlimmableMobileNetV2((1.0,), 21), tmp_path / "w.npz", torch.zeros(1, 3, 32, 32)
        )


def test_batch_norm_cannot_be_recovered_from_no_frames(tmp_path: Path) -> None:
    model = SlimmableMobileNetV2((1.0,), 21, same_padding=True)
    with pytest.raises(ValueError, match="calibration frames"):
        load_folded_mobilenet_v2(model, tmp_path / "w.npz", torch.zeros(0, 3, 32, 32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (None, "cannot read weights"),
        ({}, "has 0 layers, expected MobileNetV2's 53"),
        ({"00.Conv.weight": np.zeros((32, 3, 3, 3), np.float32)}, "missing 00.Conv.bias"),
        (
            {
                f"{i:02d}.Conv.{kind}": np.zeros(3, np.float32)
                for i in range(53)
                for kind in ("weight", "bias")
            },
            r"shape \(3,\), expected \(32, 3, 3, 3\)",
        ),
    ],
)
def test_a_foreign_archive_of_folded_weights_is_refused(
    arrays: dict[str, npt.NDArray[np.float32]] | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.npz"
    if arrays is None:
        path.write_bytes(b"PK\x03\x04 cut")
    else:
        np.savez(path, allow_pickle=False, **arrays)
    model = SlimmableMobileNetV2((1.0,), 21, same_padding=True)
    with pytest.raises(ModelDirectoryError, match=message):
        load_folded_mobilenet_v2(model, path, torch.zeros(1, 3, 32, 32))
