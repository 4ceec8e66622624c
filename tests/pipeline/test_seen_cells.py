"""What a frozen network sees of a view is computed once and kept, and nothing tells the difference."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foveate.config.augment import AugmentSettings
from foveate.config.settings import DataSettings, EvidenceSettings, InputSettings
from foveate.datasets import read_manifest
from foveate.errors import ImageError
from foveate.evaluation.evaluate import evaluate
from foveate.images import ArraySource
from foveate.models import Model
from foveate.pipeline.loader import Loader, LoadOptions, digest, shares, split_indices
from foveate.pipeline.source_cache import SourceCache

try:
    import timm  # noqa: F401
except Exception as error:  # a torchvision that does not match torch raises RuntimeError
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

from seeing import Marks, make_marks, noted_looks, seeing_model, write_marks

PATCHES = AugmentSettings(patch_shift=3, patch_gain=(0.8, 1.2))
KEPT = DataSettings(cache="memory")


@pytest.fixture
def marks() -> Marks:
    return make_marks(6, 4)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The views that a model's eyes have seen."""
    return noted_looks(monkeypatch)


def loader_of(model: Model, dataset: Any, data: DataSettings = KEPT, augment: AugmentSettings | None = None) -> Loader:
    opened = SourceCache.of_settings(dataset, model.intake, data)
    return Loader.of(model, dataset, 1, augment, LoadOptions(3, opened=opened))


@pytest.mark.parametrize(
    ("name", "cache"), [("evidence", "off"), ("evidence", "disk"), ("attention-sampling", "memory")]
)
def test_kept_cells_answer_to_the_bit_as_the_views_themselves(name: str, cache: Any, tmp_path: Path) -> None:
    dataset = read_manifest(write_marks(tmp_path, make_marks(2, 4)))
    model = seeing_model(name, dataset.classes, evidence=EvidenceSettings(3.0, "none")).eval()
    indices = split_indices(dataset, "validation")
    opened = SourceCache.of_settings(dataset, model.intake, DataSettings(cache=cache))
    for _ in range(2):
        result = evaluate(model, dataset, indices, loading=LoadOptions(3, opened=opened))
        for row, index in enumerate(indices):
            prediction = model.predict(dataset.open(index))
            assert list(prediction.probabilities.values()) == result.probabilities[row].tolist()


def test_of_a_view_nothing_but_its_cells_is_kept(tmp_path: Path) -> None:
    dataset = read_manifest(write_marks(tmp_path / "images", make_marks(2, 4)))
    model = seeing_model("evidence", dataset.classes).eval()
    loader = loader_of(model, dataset, DataSettings(cache="disk", cache_folder=str(tmp_path / "cache")))
    list(loader.evaluation(shares(range(2), 2)))
    kept = [np.load(path) for path in (tmp_path / "cache").rglob("*.npy")]
    assert sorted(one.dtype.name for one in kept) == ["float16"] * 2 + ["uint8"] * 2, "cells, and decoded pixels"


@pytest.mark.parametrize("name", ["evidence", "attention-sampling"])
def test_cells_are_seen_once_even_where_patches_change(name: str, marks: Marks, looks: list[Tensor]) -> None:
    model, indices = seeing_model(name), range(6)
    loader = loader_of(model, marks, augment=PATCHES)
    first, second = (list(loader.training(epoch, shares(indices, 4))) for epoch in (1, 2))
    assert len(looks) == 6
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.cells, other.cells)
        assert not one.views.any(), "nothing needs them"
        assert one.views.untyped_storage().nbytes() == 4
    list(loader_of(model, marks, replace(KEPT, cache="off")).evaluation(shares(indices, 4)))
    assert len(looks) == 12


def test_cells_are_those_of_the_view_as_it_is_changed(marks: Marks, looks: list[Tensor]) -> None:
    model, indices = seeing_model(), range(6)
    flips = AugmentSettings(flip=True, turn=True, gain=(0.5, 1.5))
    loader = loader_of(model, marks, augment=flips)
    views = Loader(marks, model.view, 1, model.intake, flips, LoadOptions(3))
    epochs = []
    for epoch in (1, 2):
        batches = zip(
            loader.training(epoch, shares(indices, 4)), views.training(epoch, shares(indices, 4)), strict=True
        )
        for cells, shown in batches:
            assert cells.view_sizes == shown.view_sizes
            assert torch.equal(cells.mask, shown.mask)
            for row, (height, width) in enumerate(shown.view_sizes):
                wanted = model.cells_of(shown.views[row, :, :height, :width])
                found = cells.cells[row, : wanted.shape[0], : wanted.shape[1]]
                assert torch.equal(found, wanted)
        epochs.append(cells.cells)
    assert not torch.equal(*epochs)


def test_changed_images_have_no_key(marks: Marks) -> None:
    model, plan = seeing_model("attention-sampling"), shares([4, 1, 3], 3)

    def keys(augment: AugmentSettings | None) -> tuple[object, ...]:
        (batch,) = loader_of(model, marks, augment=augment).training(1, plan)
        return batch.keys

    assert keys(None) == keys(AugmentSettings()) == (4, 1, 3)
    assert keys(PATCHES) == keys(AugmentSettings(gain=(0.5, 1.5))) == (None,) * 3
    (batch,) = loader_of(model, marks, augment=PATCHES).evaluation(plan)
    assert batch.keys == (None,) * 3
    (batch,) = loader_of(model, marks).evaluation(plan)
    assert batch.repeat(1, [7, 8]).keys == (1, 1)


CHANGES: dict[str, Callable[[], Model]] = {
    "another stride": lambda: seeing_model(attention={"stride": 12}),
    "other stages": lambda: seeing_model(attention={"stages": (3,)}),
    "another order of stages": lambda: seeing_model(attention={"stages": (3, 2)}),
    "other weights": lambda: seeing_model(seed=1),
    "normalised bands": lambda: seeing_model(input=InputSettings(normalise="bands")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_eyes_see_for_themselves(change: str, tmp_path: Path) -> None:
    """Cells that lie on the disk are those of the same eyes, of cells of one size, and of pixels made alike."""
    dataset = read_manifest(write_marks(tmp_path, make_marks(3, 1)))
    data, plan = DataSettings(cache="disk"), shares(range(3), 3)
    list(loader_of(seeing_model(), dataset, data).evaluation(plan))
    model = CHANGES[change]()
    (kept,) = loader_of(model, dataset, data).evaluation(plan)
    (fresh,) = loader_of(model, dataset, replace(data, cache="off")).evaluation(plan)
    assert torch.equal(kept.cells, fresh.cells)


def test_statistics_of_bands_belong_to_what_is_seen(looks: list[Tensor], tmp_path: Path) -> None:
    dataset = read_manifest(write_marks(tmp_path, make_marks(3, 1)))
    models = [seeing_model(input=InputSettings(normalise="bands")) for _ in range(2)]
    models[1].normalise.deviation.mul_(2)
    cells = [
        next(iter(loader_of(model, dataset, DataSettings(cache="disk")).evaluation(shares(range(3), 3)))).cells
        for model in models
    ]
    assert len(looks) == 6
    assert not torch.equal(*cells)


def test_the_next_run_finds_them_on_the_disk(looks: list[Tensor], tmp_path: Path) -> None:
    dataset = read_manifest(write_marks(tmp_path, make_marks(3, 1)))
    models = [seeing_model(), seeing_model("attention-sampling")]
    models[1].attention.cells.load_state_dict(models[0].attention.cells.state_dict())
    for model in (*models, models[0]):
        list(loader_of(model, dataset, DataSettings(cache="disk")).evaluation(shares(range(3), 3)))
    assert len(looks) == 3
    assert digest(models[0]) == digest(models[1]) != digest(seeing_model(seed=1))
    assert digest(seeing_model(attention={"maxima": True})) != digest(seeing_model())


def test_a_view_that_is_not_a_number_is_refused_by_name() -> None:
    class Floats(Marks):
        def open(self, index: int) -> Any:
            pixels = (self.shown(index)[0] / 255).astype(np.float32)
            pixels[5, 7] = np.nan
            return ArraySource(pixels, name="broken.tif")

    plain = make_marks(2, 0)
    loader = loader_of(seeing_model(), Floats(plain.examples, plain.classes))
    with pytest.raises(ImageError, match=r"broken\.tif: its view has pixels that are nan or infinite"):
        list(loader.evaluation(shares(range(2), 2)))
