"""What travels computes what the model does: the program of examples/ on a model's graphs, beside `Model.predict`."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.config.heads import HeadSettings, MilSettings
from foveate.config.settings import (
    AttentionSettings,
    EvidenceSettings,
    FeatureSettings,
    GuideSettings,
    InputSettings,
    Method,
    PriorSettings,
    ViewSettings,
)
from foveate.models import Model
from foveate.networks.normalise import BandStatistics
from foveate.sampling import draw

Models = Callable[..., Model]
Images = Callable[..., list[Path]]

EYES = AttentionSettings(name="timm:test_resnet", stages=(2, 3), stride=6, hidden=5, members=2)


def same(model: Model, runner: Any, path: Path, tolerance: float = 2e-5, **options: Any) -> None:
    """One image predicted both ways: probabilities, and the same patches in the same order."""
    ours = model.predict(path, **options)
    options.pop("method", None)
    theirs, boxes = runner.predict(path, **options)
    assert list(theirs) == list(ours.probabilities)
    assert max(abs(theirs[name] - ours.probabilities[name]) for name in theirs) < tolerance
    assert [(box.top, box.left) for box in ours.boxes] == [tuple(map(int, one)) for one in boxes[: len(ours.boxes)]]
    assert set(boxes[len(ours.boxes) :]) <= set(boxes[:1]), "slots left over hold the first one again"


@pytest.fixture(autouse=True)
def _untrained_eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backbones without pretrained weights: none is to be downloaded."""
    import foveate.networks.timm as rooms

    monkeypatch.setattr(rooms, "_learnt", rooms._unlearnt)


VARIANTS: dict[str, dict[str, Any]] = {
    "attention sampling": {},
    "uniform": {"name": "uniform"},
    "top-k": {"name": "top-k"},
    "cross-attention": {"head": HeadSettings("cross-attention", heads=4)},
    "uniform, cross-attention": {"name": "uniform", "head": HeadSettings("cross-attention", heads=1)},
    "grades": {"head": HeadSettings(kind="ordinal", order=("owl", "cat", "dog"))},
    "deep mil": {"name": "deep-mil"},
    "deep mil, a stride of its own": {"name": "deep-mil", "mil": MilSettings(hidden=5, stride=17, pooling="gated")},
    "cnn": {"name": "cnn"},
    "cnn, residual": {"name": "cnn", "features": FeatureSettings("residual", width=8)},
    "enlarged patches, projected": {"features": FeatureSettings(width=6, enlarge=1.7, project=5)},
    "shrunk patches": {"patch": (38, 29), "features": FeatureSettings(width=6, enlarge=0.8)},
    "longest side, mean": {
        "view": ViewSettings(longest_side=61),
        "attention": AttentionSettings(widths=(4, 3), stride=3, pool="mean"),
    },
    "valid padding": {"attention": AttentionSettings(widths=(4, 3), stride=3, padding="valid", smoothing=0.0)},
    "strided": {"attention": AttentionSettings(widths=(4,), stride=3, pool="strided", activation="relu")},
    "no prior, stride 1": {"prior": PriorSettings(), "attention": AttentionSettings(widths=(4,), stride=1)},
    "each image standardised": {"input": InputSettings(normalise="image")},
    "bands of its own": {"input": InputSettings(bands=(2, 0)), "channels": 2},
    "grey": {"input": InputSettings(colour="grey"), "channels": 1},
    "several labels": {"extras": {"multi_label": True}},
    "normalised bands": {
        "input": InputSettings(normalise="bands"),
        "extras": {"bands": BandStatistics((0.4, 0.5, 0.3), (0.2, 0.1, 0.3))},
    },
    "evidence": {"name": "evidence", "attention": EYES},
    "evidence against a background": {
        "name": "evidence",
        "attention": EYES,
        "evidence": EvidenceSettings(top=0.1, background="dog"),
    },
    "evidence, several labels": {"name": "evidence", "attention": EYES, "extras": {"multi_label": True}},
    "eyes": {"attention": EYES},
    "eyes, a share of the first answer, foretold": {
        "attention": AttentionSettings(**(vars(EYES) | {"maxima": True, "stride": 9})),
        "evidence": EvidenceSettings(share=0.3, background="cat"),
        "control": True,
    },
    "eyes and a prior, all cells alike": {"attention": EYES, "evidence": EvidenceSettings(top=1e9, share=0.5)},
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_model_travels(variant: str, make_model: Models, make_images: Images, here: Callable[..., Any]) -> None:
    changes = VARIANTS[variant]
    model = make_model(**changes)
    runner = here(model)
    for number, path in enumerate(make_images(3)):
        same(model, runner, path, seed=number, samples=1 + 2 * number)


@pytest.mark.parametrize("method", get_args(get_args(Method)[0]))
def test_every_way_of_drawing_travels(
    method: Method, make_model: Models, make_images: Images, here: Callable[..., Any]
) -> None:
    model = make_model(patches=5)
    runner = here(model, method)
    for number, path in enumerate(make_images(2)):
        same(model, runner, path, seed=number, samples=3, method=method)


@pytest.mark.parametrize("method", ["murthy", "top", "iid", "des_raj"])
def test_an_image_of_fewer_cells_than_draws(
    method: Method, make_model: Models, tmp_path: Path, here: Callable[..., Any]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (14, 19, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.png")
    model = make_model(patches=9)
    same(model, here(model, method), tmp_path / "small.png", method=method)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_other_colours_become_those_of_the_model(
    mode: str, make_model: Models, make_images: Images, tmp_path: Path, here: Callable[..., Any]
) -> None:
    model = make_model()
    path = tmp_path / "picture.tif"
    with Image.open(make_images(1)[0]) as image:
        image.convert(mode).save(path)
    same(model, here(model), path)


def test_a_turned_photograph_is_upright(make_model: Models, make_images: Images, here: Callable[..., Any]) -> None:
    path = make_images(1)[0].with_suffix(".jpg")
    tags = Image.Exif()
    tags[0x0112] = 6
    with Image.open(path.with_suffix(".png")) as image:
        image.save(path, exif=tags)
    model = make_model()
    same(model, here(model), path)


def test_what_the_program_cannot_make_is_refused_in_a_line(
    make_model: Models, make_images: Images, tmp_path: Path, here: Callable[..., Any]
) -> None:
    (path,) = make_images(1)
    clear = tmp_path / "clear.png"
    with Image.open(path) as image:
        image.convert("RGBA").save(clear)
    tissue = InputSettings(guide=GuideSettings(tissue="mask"))
    for model, given, words in (
        (make_model(input=InputSettings(mpp=0.5)), path, "microns per pixel"),
        (make_model(input=tissue), path, "where tissue is"),
        (make_model(), clear, "transparency"),
        (make_model(channels=1), path, "the model wants 1 channels, this has 3"),
    ):
        with pytest.raises(SystemExit, match=words):
            here(model).predict(given)


def test_a_guide_says_where_to_look(make_model: Models, make_images: Images, here: Callable[..., Any]) -> None:
    model, (path,) = make_model(patches=6), make_images(1)
    with Image.open(path) as image:
        width, height = image.size
    guide = np.full(((height + 2) // 4, (width + 2) // 4), -np.inf, np.float32)
    guide[-12:, -13:] = 0
    _, boxes = here(model).predict(path, guide=guide)
    assert all(top + 11 >= height - 52 and left + 13 >= width - 56 for top, left in boxes)


@pytest.mark.parametrize("seed", [0, 5, 2**63 - 1])
def test_numbers_of_a_seed_are_torchs(seed: int, program: ModuleType) -> None:
    expected = torch.rand(301, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert (program.uniform(seed, 301) == expected.numpy()).all()


@pytest.mark.parametrize("method", ["iid", "des_raj", "priority", "murthy", "uniform", "top"])
def test_the_program_draws_the_cells_of_a_seed(method: str, program: ModuleType) -> None:
    for seed in range(30):
        log_prob = (3 * torch.randn(1, 40, generator=torch.Generator().manual_seed(seed))).log_softmax(1)
        log_prob[0, 7] = -torch.inf
        log_prob = log_prob.log_softmax(1)
        drawn = draw(log_prob, 6, method, generator=torch.Generator().manual_seed(seed))
        index, threshold = program.draw(log_prob[0].numpy(), 6, method, seed)
        assert index.tolist() == drawn.index[0].tolist()
        if method == "priority":
            assert drawn.threshold is not None
            assert threshold == pytest.approx(float(drawn.threshold), abs=1e-9)
