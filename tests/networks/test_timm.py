import json
import logging
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from foveate.config.settings import FeatureSettings
from foveate.errors import ConfigError, MissingExtra
from foveate.networks import FeatureNetwork, build_features

try:
    import timm
except Exception as error:  # a torchvision that does not match torch raises RuntimeError
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

NEW = "timm:test_resnet"


def build(
    name: str, channels: int = 3, patch: tuple[int, int] | None = (40, 56), seed: int = 0, pretrained: bool = False
) -> FeatureNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build_features(FeatureSettings(name, pretrained=pretrained, width=0, norm=4.0), channels, patch)


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    """A folder with a tiny network of ten classes, its weights and its constants, as timm reads them."""
    folder = tmp_path / "saved"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(99)
        network = timm.create_model("test_resnet", num_classes=10)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    layers = {"first_conv": "conv1.0", "classifier": "fc", "num_classes": 10, "input_size": [3, 160, 160]}
    constants = {"mean": [0.1, 0.2, 0.6], "std": [0.5, 0.25, 0.125], **layers}
    description = {"architecture": "test_resnet", "num_classes": 10, "num_features": 96, "pretrained_cfg": constants}
    (folder / "config.json").write_text(json.dumps(description))
    return folder


@pytest.mark.parametrize(
    ("name", "channels", "patch", "dimension"),
    [
        (NEW, 3, (40, 56), 96),
        (NEW, 5, (33, 47), 96),
        ("timm:test_efficientnet", 1, (40, 56), 256),
        ("timm:test_mambaout", 3, (40, 56), 256),  # its num_features says 64
        ("timm:test_vit", 3, (32, 64), 64),
        ("timm:test_vit3", 2, (32, 64), 96),
    ],
)
def test_dimension_norm_and_gradient(name: str, channels: int, patch: tuple[int, int], dimension: int) -> None:
    network = build(name, channels, patch)
    assert network.dimension == dimension
    features = network(torch.rand(3, channels, *patch, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(features.norm(dim=1), torch.full((3,), 4.0), rtol=1e-4, atol=0)
    (features * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    first = next(network.layers.network.parameters())
    assert first.grad is not None
    assert first.grad.any()


@pytest.mark.parametrize("name", [NEW, "timm:test_vit"])
def test_a_seed_settles_the_weights(name: str) -> None:
    def states(seed: int) -> dict[str, Tensor]:
        return build(name, patch=(32, 48), seed=seed).state_dict()

    first, again, other = states(5), states(5), states(6)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_building_leaves_batch_norm_and_mode_alone() -> None:
    network = build(NEW)
    assert all(layer.training for layer in network.modules())
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert all(norm.num_batches_tracked == 0 and not norm.running_mean.any() for norm in norms)


def test_whole_views_of_any_size() -> None:
    network = build(NEW, patch=None).eval()
    smallest = network.smallest
    assert network(torch.rand(1, 3, smallest, smallest + 40)).shape == (1, network.dimension)


def test_networks_made_for_one_size_are_built_for_the_patch() -> None:
    network = build("timm:vit_tiny_patch16_224", patch=(32, 48))
    assert network.layers.network.pos_embed.shape[1] == 1 + 2 * 3


def test_pickled_it_computes_the_same() -> None:
    network, patches = build("timm:test_vit", patch=(32, 48)).eval(), torch.rand(2, 3, 32, 48)
    assert torch.equal(pickle.loads(pickle.dumps(network))(patches), network(patches))


@pytest.mark.parametrize("patch", [(40, 56), None])
def test_pretrained_weights_and_constants_are_timms_own(saved: Path, patch: tuple[int, int] | None) -> None:
    network = build(f"timm:local-dir:{saved}", patch=patch, pretrained=True).eval()
    own = timm.create_model("test_resnet", num_classes=10).eval()
    own.load_state_dict(torch.load(saved / "pytorch_model.bin"))
    patches = torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    seen = (patches - torch.tensor([0.1, 0.2, 0.6])[:, None, None]) / torch.tensor([0.5, 0.25, 0.125])[:, None, None]
    expected = own.forward_head(own.forward_features(seen), pre_logits=True)
    torch.testing.assert_close(network.layers(patches), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "mean", "deviation"),
    [
        (3, [0.1, 0.2, 0.6], [0.5, 0.25, 0.125]),
        (1, [0.3], [0.875 / 3]),
        (5, [0.1, 0.2, 0.6, 0.1, 0.2], [0.5, 0.25, 0.125, 0.5, 0.25]),
    ],
)
def test_constants_for_any_number_of_channels(
    saved: Path, channels: int, mean: list[float], deviation: list[float]
) -> None:
    name = f"timm:local-dir:{saved}"
    backbone = build(name, channels, pretrained=True).layers
    torch.testing.assert_close(backbone.mean, torch.tensor(mean))
    torch.testing.assert_close(backbone.deviation, torch.tensor(deviation))
    for plain in (
        build(name, channels, pretrained=False).layers,
        build_features(FeatureSettings(name), channels, (40, 56), standardised=True).layers,
    ):
        assert not plain.mean.any()
        assert bool((plain.deviation == 1).all())


def test_a_saved_model_needs_no_pretrained_weights(saved: Path) -> None:
    name = f"timm:local-dir:{saved}"
    trained = build(name, pretrained=True).eval()
    (saved / "pytorch_model.bin").unlink()
    patches = torch.rand(2, 3, 40, 56)
    for settings in (FeatureSettings(name, norm=4.0), FeatureSettings("timm:test_resnet", norm=4.0)):
        again = build_features(settings, 3, (40, 56), pretrained=False).eval()
        again.load_state_dict(trained.state_dict())
        assert torch.equal(again(patches), trained(patches))


@pytest.mark.parametrize(
    "error",
    [
        URLError("no route to host"),
        TimeoutError("timed out"),
        ConnectionError("refused"),
        OSError("disk full"),
        RuntimeError("Error(s) in loading state_dict:\n\tsize mismatch."),
    ],
)
def test_weights_that_cannot_be_had_are_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: object) -> nn.Module:
        if pretrained:
            raise RuntimeError("An error happened.") from error
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError) as caught:
        build(NEW, pretrained=True)
    reason = " ".join(str(error).split()).rstrip(".")
    assert str(caught.value) == (
        f"the pretrained weights of timm:test_resnet could not be had ({type(error).__name__} {reason}): connect to "
        "the network, point HF_HOME at a cache that holds them, or set model.features.pretrained to false"
    )


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client as HF_HUB_OFFLINE=1 has it, with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "beginning", "end"),
    [
        (
            NEW,
            "the pretrained weights of timm:test_resnet could not be had (",
            "): connect to the network, point HF_HOME at a cache that holds them, or set model.features.pretrained to "
            "false",
        ),
        (
            "timm:hf-hub:nobody/nothing",
            "the description of the feature network timm:hf-hub:nobody/nothing could not be had or used (",
            "): check the name, connect to the network or point HF_HOME at a cache that holds it",
        ),
    ],
)
def test_truly_offline(
    offline: None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    name: str,
    beginning: str,
    end: str,
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(name, pretrained=True)
    message = str(caught.value)
    assert message.startswith(beginning)
    assert message.endswith(end)
    assert "offline" in message.lower()
    assert "\n" not in message
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_the_hubs_retries_are_not_reported_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def retrying(name: str, **options: object) -> nn.Module:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
        raise TimeoutError("timed out")

    level = logging.getLogger("huggingface_hub").level
    monkeypatch.setattr(timm, "create_model", retrying)
    with pytest.raises(ConfigError):
        build("timm:hf-hub:nobody/nothing")
    assert caplog.records == []
    assert logging.getLogger("huggingface_hub").level == level


@pytest.mark.parametrize(
    ("name", "patch", "message"),
    [
        ("timm:", (40, 56), "timm has no network '': timm.list_models() names them all"),
        (
            "timm:test_resnet.a1_in1k",
            (40, 56),
            "timm has no pretrained weights 'test_resnet.a1_in1k': there are timm:test_resnet.r160_in1k",
        ),
        (
            "timm:test_vit",
            (50, 60),
            "the feature network timm:test_vit cuts patches into tokens of 16×16 pixels, which patches of 50×60 are no "
            "multiple of: set model.patch to e.g. 48 64",
        ),
        (
            "timm:vit_tiny_patch16_224",
            (50, 40),
            "the feature network timm:vit_tiny_patch16_224 cuts patches into tokens of 16×16 pixels, which patches of "
            "50×40 are no multiple of: set model.patch to e.g. 48 32",
        ),
        (
            "timm:vit_tiny_patch16_224",
            None,
            "the feature network timm:vit_tiny_patch16_224 takes patches of one size, not whole views: "
            "choose another model.features.name",
        ),
        (
            "timm:test_vit",
            None,
            "the feature network timm:test_vit takes patches of one size, not whole views: "
            "choose another model.features.name",
        ),
    ],
)
def test_networks_that_do_not_exist_or_fit(name: str, patch: tuple[int, int] | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(name, patch=patch)
    assert str(caught.value) == message


def test_a_misspelt_network() -> None:
    with pytest.raises(ConfigError) as caught:
        build("timm:resnet_10t")
    assert str(caught.value).startswith("timm has no network 'resnet_10t': did you mean timm:resnet10t, timm:")


def test_a_network_of_another_size_says_why() -> None:
    with pytest.raises(ConfigError) as caught:
        build("timm:test_coatnet", patch=(48, 80))
    message = str(caught.value)
    assert message.startswith("the feature network timm:test_coatnet cannot take ")
    assert "patches of 48×80 pixels and 3 channels (" in message
    assert message.endswith("): set model.patch to a size it takes or choose another model.features.name")


def test_a_network_without_pretrained_weights() -> None:
    name = next(name for name in timm.list_models("*vit*") if not timm.list_models(name, pretrained=True))
    with pytest.raises(ConfigError) as caught:
        build(f"timm:{name}", pretrained=True)
    assert str(caught.value) == (
        f"timm has no pretrained weights for '{name}': choose another network or set model.features.pretrained to false"
    )


def test_timm_missing_is_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "timm":
                raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(MissingExtra) as caught:
        build(NEW)
    assert str(caught.value) == "feature networks timm:NAME need timm: pip install 'timm>=1.0'"


def test_a_torchvision_that_does_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)

    class Mismatched:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "timm":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(sys, "meta_path", [Mismatched(), *sys.meta_path])
    with pytest.raises(MissingExtra) as caught:
        build(NEW)
    assert str(caught.value) == (
        "timm is installed but cannot be imported (RuntimeError operator torchvision::nms does not exist): pip "
        f"install the torchvision that belongs to torch {torch.__version__}"
    )
