# ruff: noqa: ARG005, E501  a hook takes what it is given
"""What a user registers is used, saved, found again and refused in a line; what the pages show of it runs."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate import draw, expectation, hooks, load_model, open_image, register, save_model
from foveate.config.serial import from_plain
from foveate.config.settings import AttentionSettings, FeatureSettings, ModelSettings, ViewSettings
from foveate.datasets.manifest.folders import image_files
from foveate.errors import ArgumentError, ArgumentTypeError, ConfigError, ImageError, RunError
from foveate.images import ArraySource
from foveate.models import Model, build_model, make_batch
from foveate.models.build import MODELS
from foveate.networks.features import BODIES
from foveate.sampling.gumbel import METHODS

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that a test registers outlives it."""
    monkeypatch.setattr(hooks, "REGISTERED", hooks.REGISTERED)
    before, readers = dict(hooks.REGISTERED), dict(hooks.READERS)
    yield
    for known, kept in ((hooks.REGISTERED, before), (hooks.READERS, readers)):
        known.clear()
        known.update(kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("page", ["hooks", "python"])
def test_the_pages_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
    assert len(blocks) >= 7
    names: dict[str, object] = {"__name__": page}
    for block in blocks:
        exec(block, names)


def test_names_of_foveates_own_are_known() -> None:
    assert set(hooks.TAKEN["features"]) == {*BODIES, "timm"}
    assert set(hooks.TAKEN["model"]) == set(MODELS)
    assert hooks.TAKEN["method"] == METHODS


def small(**changes: Any) -> ModelSettings:
    given = {
        "view": ViewSettings(longest_side=30),
        "patch": (22, 26),
        "patches": 3,
        "attention": AttentionSettings(widths=(4,), stride=3),
        "features": FeatureSettings(width=4),
    } | changes
    return ModelSettings(**given)  # type: ignore[arg-type]


def built(**changes: Any) -> Model:
    return build_model(small(**changes), ("a", "b"), channels=3).eval()


class Bias(nn.Module):
    """Attention that would see padding if it were given any: a bias, and a wide kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 7, padding=3), nn.Sigmoid(), nn.Conv2d(4, 1, 5, padding=2))

    def forward(self, views: Tensor) -> Any:
        return self.layers(views)[:, 0]


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_own_attention_is_the_same_in_any_company(pool: str) -> None:
    register("attention", "bias", Bias)
    model = built(attention=AttentionSettings(name="bias", stride=3, pool=pool))  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    sources = [
        ArraySource(random.integers(0, 256, (*size, 3), dtype=np.uint8), name=f"{size}")
        for size in ((40, 60), (60, 31), (25, 90))
    ]
    together = model(make_batch(sources, model.view, [0, 1, 2]))
    for row, source in enumerate(sources):
        alone = model(make_batch([source], model.view, [row]))
        rows, columns = alone.attention.shape[1:]
        torch.testing.assert_close(together.attention[row, :rows, :columns], alone.attention[0])
        assert float(together.attention[row].detach().sum()) == pytest.approx(1, abs=1e-5)
        assert torch.equal(together.draw.index[row] // together.attention.shape[2], alone.draw.index[0] // columns)
    loss = together.attention[:, 0, 0].sum()
    loss.backward()
    assert all(one.grad is not None for one in model.attention.parameters())


def test_own_things_are_saved_and_found_again_or_refused(tmp_path: Path) -> None:
    register("attention", "bias", Bias)
    register("features", "thin", lambda channels: nn.Conv2d(channels, 5, 3))
    register("method", "last", lambda log_prob, n, generator: (torch.arange(n), torch.ones(n)))
    model = built(
        attention=AttentionSettings(name="bias", stride=3), features=FeatureSettings(name="thin"), method="last"
    )
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    wanted = model.predict(pixels)
    folder = save_model(model, tmp_path / "model")
    assert load_model(folder).predict(pixels).probabilities == wanted.probabilities
    for key, message in (
        (("attention", "bias"), r"no attention 'bias' is registered here, there are convolutional: run what calls"),
        (("features", "thin"), "no feature network 'thin'"),
        (("method", "last"), r"settings.method must be one of iid, .*; your own is to be registered first"),
    ):
        thing = hooks.REGISTERED.pop(key)
        with pytest.raises(RunError, match=message) as caught:
            load_model(folder)
        assert "\n" not in str(caught.value)
        hooks.REGISTERED[key] = thing


def test_a_folder_imports_no_hook_that_is_not_allowed_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strangers.py").write_text(
        "from torch import nn\nimport torch\n"
        "def attention(channels):\n    return nn.Conv2d(channels, 1, 3, padding=1)\n"
        "def first(log_prob, n, generator):\n    return torch.arange(n), torch.ones(n)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ["strangers:attention", "strangers:first"]
    model = built(attention=AttentionSettings(name=names[0], stride=3), method=names[1])
    folder = save_model(model, tmp_path / "model")
    del sys.modules["strangers"]
    for allowed in ([], names[:1], names[1:]):
        with pytest.raises(ConfigError, match="would import and call strangers:"):
            load_model(folder, allow_code=allowed)
        assert "strangers" not in sys.modules
    pixels = np.zeros((50, 70, 3), np.uint8)
    assert load_model(folder, allow_code=names).predict(pixels).boxes == model.predict(pixels).boxes
    sys.modules.pop("strangers", None)


def test_own_draws_are_of_valid_cells_and_sum_exactly_where_all_are_drawn(generator: torch.Generator) -> None:
    asked = []

    @register("method", "uniform-pair")
    def pair(log_prob: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        asked.append((log_prob.exp().sum().item(), len(log_prob), n))
        index = torch.randperm(len(log_prob), generator=generator)[:n]
        return index, torch.full((n,), len(log_prob) / n)

    probabilities = torch.tensor([[0.5, 0.0, 0.3, 0.2, 0.0], [0.0, 0.0, 0.6, 0.0, 0.4]], requires_grad=True)
    drawn = draw(probabilities.log(), 2, "uniform-pair", generator=generator)
    assert asked == [(pytest.approx(1), 3, 2)]
    assert set(drawn.index[0].tolist()) < {0, 2, 3}
    assert sorted(drawn.index[1].tolist()) == [2, 4]
    assert drawn.weight[1].tolist() == [1, 1]
    features = torch.arange(10.0).reshape(2, 5, 1).gather(1, drawn.index[:, :, None])
    estimate = expectation(drawn, features)
    assert float(estimate[1].detach()) == pytest.approx(7 * 0.6 + 9 * 0.4)
    estimate.sum().backward()
    assert probabilities.grad is not None
    with pytest.raises(ValueError, match="method 'uniform-pair' of your own has no baseline: pass baseline=None"):
        expectation(drawn, features, "leave-one-out")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([0, 9], [1.0, 1.0]), "gave .* cells, .* weights: let it give at most 2 numbers of the 3 cells"),
        (([0, 1, 2], [1.0, 1.0, 1.0]), "let it give at most 2 numbers"),
        (([0, 1], [1.0]), "as many weights"),
        (([0.5, 1.0], [1.0, 1.0]), "let it give at most 2 numbers"),
        (([0, 1], [1.0, float("nan")]), "gave a weight that is no finite number"),
    ],
)
def test_wrong_draws_are_refused_in_a_line(given: tuple[list[float], list[float]], message: str) -> None:
    register("method", "wrong", lambda log_prob, n, generator: tuple(map(torch.tensor, given)))
    with pytest.raises(ArgumentError, match=message):
        draw(torch.zeros(1, 3).log_softmax(1), 2, "wrong")


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: register("atention", "a", print), ArgumentError, "no hook for 'atention': choose one of attention"),
        (lambda: register("method", "murthy", print), ArgumentError, "'murthy' cannot name a method: choose a word"),
        (lambda: register("reader", "xyz", print), ArgumentError, "'xyz' cannot name a reader: choose an ending"),
        (lambda: register("features", "a:b", print), ArgumentError, "'a:b' cannot name a features"),
        (lambda: register("model", "mine", 3), ArgumentTypeError, "the model mine is of type int: register what can be"),
        (lambda: built(attention=AttentionSettings(name="nothing")), ConfigError, "no attention 'nothing' is registered"),
        (lambda: from_plain(ModelSettings, {"method": "murthi"}), ConfigError, r"got 'murthi': did you mean murthy\?$"),
        (lambda: (register("model", "mine", print), built(name="mine")), ConfigError, "let it be a subclass of Model"),
    ],
)  # fmt: skip
def test_wrong_hooks_are_refused_in_a_line(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_attention_of_the_wrong_shape_is_told_the_right_ones() -> None:
    register("attention", "wrong", lambda channels: nn.AdaptiveAvgPool2d(3))
    model = built(attention=AttentionSettings(name="wrong", stride=3))
    with pytest.raises(ConfigError, match=r"wrong gives \(1, 3, 3, 3\) for views of .*: let it give one logit a view"):
        model.predict(np.zeros((50, 70, 3), np.uint8))


def test_a_reader_reads_its_files_wherever_they_are_named(tmp_path: Path) -> None:
    register("reader", ".Grey", lambda path: np.frombuffer(Path(path).read_bytes(), np.uint8).reshape(-1, 30).copy())
    (tmp_path / "one.grey").write_bytes(bytes(range(60)))
    (tmp_path / "two.GREY").write_bytes(bytes(61))
    assert image_files(tmp_path) == ["one.grey", "two.GREY"]
    image = open_image(tmp_path / "one.grey", mpp=0.5)
    assert (image.size, image.mpp, image.name) == ((2, 30), 0.5, str(tmp_path / "one.grey"))
    with pytest.raises(ImageError, match=r"two.GREY: the reader that is registered for it failed \(ValueError cannot"):
        open_image(tmp_path / "two.GREY")
    register("reader", ".grey", lambda path: "pixels")
    with pytest.raises(ImageError, match=r"its reader gave str: let it give a Source or an array"):
        open_image(tmp_path / "one.grey")
    assert foveate.register is register
