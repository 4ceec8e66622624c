"""Every value of an advised configuration follows from what was found, and has its reason."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foveate.config.files import changed_keys, commented_yaml, load_settings, preset
from foveate.config.training import RunSettings
from foveate.datasets.manifest.rows import ManifestRow, ManifestTable
from foveate.datasets.manifest.survey import Survey
from foveate.training.advice import Advice, Means, advise

TABLE = ManifestTable(Path("x.csv"), Path(), tuple(ManifestRow(f"{i}.jpg", "ok") for i in range(400)))
FOUND = Survey(
    table=TABLE,
    multi_label=False,
    labels=Counter({"ok": 300, "crack": 100}),
    splits=Counter({"": 400}),
    groups=0,
    looked=400,
    sizes=((1500, 2000),) * 400,
    kinds=Counter({(3, "uint8"): 400}),
    mpps=(None,) * 400,
    slides=0,
    placed=0,
    missing=0,
    whole=400,
    tissue=(),
    faults=(),
)
MEANS = Means(memory=8.0, minutes=60.0, cores=2)


def told(advice: Advice) -> dict[str, tuple[Any, str]]:
    return {key: (value, reason) for key, value, reason in advice.choices}


def of_table(rows: int) -> ManifestTable:
    return replace(TABLE, rows=TABLE.rows[:rows])


@pytest.mark.parametrize("kind", ["photographs", "pathology", "remote-sensing"])
@pytest.mark.parametrize("rows", [24, 400])
def test_every_value_that_is_no_default_is_there_with_a_reason_and_is_read_back(
    kind: Any, rows: int, tmp_path: Path
) -> None:
    advice = advise(replace(FOUND, table=of_table(rows)), MEANS, kind)
    settings, keys = advice.settings, {key for key, _, _ in advice.choices}
    assert set(changed_keys(RunSettings(), settings)) <= keys
    assert all(reason and not reason.endswith(".") for _, _, reason in advice.choices)
    (tmp_path / "config.yaml").write_text(commented_yaml(["top", ""], advice.choices))
    assert load_settings(tmp_path / "config.yaml") == settings
    assert max(map(len, (tmp_path / "config.yaml").read_text().splitlines())) <= 120


def test_many_photographs_and_an_hour_are_the_preset_but_for_what_was_measured() -> None:
    settings = advise(FOUND, MEANS).settings
    same = {"model.view.longest_side", "model.patch", "model.patches", "training.epochs", "training.batch"}
    changed = set(changed_keys(preset("photographs"), settings))
    assert not same & changed
    assert {key.split(".")[0] for key in changed} == {"data", "training", "model"}
    assert settings.training.max_minutes == 60.0
    assert (settings.data.background, settings.model.input.normalise) == ("ok", "none")


def test_few_images_or_little_time_leave_the_feature_network_as_it_is() -> None:
    few = told(advise(replace(FOUND, table=of_table(60)), MEANS))
    assert few["model.features.frozen"] == (
        True,
        "about 34 training images would be learnt by heart: it is left as it is, and its words are kept",
    )
    hurried = told(advise(FOUND, replace(MEANS, minutes=5.0)))
    assert hurried["model.features.frozen"][0] is True
    assert "would take about 21 minutes of these cores, 5 are given" in hurried["model.features.frozen"][1]
    assert few["data.validation"][0] == 0.3
    assert told(advise(FOUND, MEANS))["data.validation"][0] == 0.1


@pytest.mark.parametrize(("memory", "batch"), [(32.0, 16), (8.0, 16), (3.0, 5), (2.0, 1), (0.5, 1)])
def test_the_batch_fits_the_memory(memory: float, batch: int) -> None:
    assert advise(FOUND, replace(MEANS, memory=memory)).settings.training.batch == batch


def test_a_thing_of_thirty_pixels_decides_on_view_patch_and_cells() -> None:
    large = replace(FOUND, sizes=((6000, 8000),) * 400)
    settings = advise(large, replace(MEANS, smallest=30, minutes=600.0)).settings
    side = settings.model.view.longest_side
    assert side is not None
    assert 30 * side / 8000 >= 12
    assert settings.model.patch == (64, 64)
    assert settings.model.attention.stride is not None
    assert settings.model.attention.stride * 8000 / side <= 1.5 * 64, "no cell is much larger than a patch"
    blind = told(advise(large, MEANS))
    assert blind["model.view.longest_side"][0] > 1024
    patch, reason = blind["model.patch"]
    assert patch == [96, 96]
    assert reason.startswith("as large as a cell (")
    giant = told(advise(replace(FOUND, sizes=((80_000, 100_000),) * 400), MEANS))
    assert "what is smaller may be missed" in giant["model.patch"][1]


def test_small_images_have_patches_that_fit_into_them() -> None:
    settings = advise(replace(FOUND, sizes=((64, 96),) * 400), MEANS).settings
    assert settings.model.view.longest_side == 256
    assert "enlarge" not in told(advise(replace(FOUND, sizes=((64, 96),) * 400), MEANS))["model.view.longest_side"][1]
    assert settings.model.patch == (32, 32)
    assert settings.model.patches <= 10


def test_bands_types_and_missing_data() -> None:
    found = replace(FOUND, kinds=Counter({(6, "uint16"): 400}), placed=400, missing=10)
    advice = advise(found, MEANS)
    assert advice.kind == "remote-sensing"
    values = told(advice)
    assert values["model.input.normalise"][0] == "bands"
    assert values["model.input.guide.given"][1] == "10 of 400 images have missing data, 0 a mask: never looked at"
    assert values["augment.patch_colour"] == (0.0, "unchanged: bands mean something")
    mixed = told(advise(replace(FOUND, kinds=Counter({(3, "uint8"): 300, (1, "uint8"): 100})), MEANS))
    assert mixed["model.input.colour"][0] == "rgb"
    several = told(advise(replace(FOUND, kinds=Counter({(6, "uint8"): 300, (5, "uint8"): 100})), MEANS))
    assert several["model.input.bands"][0] == [0, 1, 2, 3, 4]
    orders = Counter({("red", "green", "nir"): 300, ("nir", "blue", "red"): 100})
    named = told(advise(replace(FOUND, kinds=Counter({(3, "uint16"): 400}), bands=orders), MEANS))
    assert named["model.input.bands"] == (["red", "nir"], "images differ in their bands: those that all have")
    for alike in (Counter({("red", "nir"): 400}), Counter({("red", "nir"): 300, (): 100})):
        assert "model.input.bands" not in told(advise(replace(FOUND, bands=alike), MEANS))


def test_slides_are_brought_to_the_coarsest_scale_and_glass_is_looked_at_less() -> None:
    found = replace(FOUND, mpps=(0.25,) * 300 + (0.5,) * 100, slides=400, tissue=(0.2, 0.4, 0.3), whole=0)
    values = told(advise(found, MEANS))
    assert values["model.input.mpp"][0] == 0.5
    assert values["model.input.mpp"][1].startswith("microns per pixel: 0.25 to 0.5; the coarsest")
    assert values["model.input.guide.tissue"] == (
        "prior",
        "tissue covers 30% of thumbnails (median of 3): less of glass",
    )
    assert "750×1,000" in values["model.view.longest_side"][1], "in pixels of that scale"
    unknown = told(advise(replace(found, mpps=(0.25,) * 300 + (None,) * 100), MEANS))
    assert unknown["model.input.mpp"] == (
        None,
        "microns per pixel are known of 300 of 400 images: a column mpp says them where files do not",
    )


def test_what_cannot_be_read_is_skipped_by_name_and_more_is_not() -> None:
    values = told(advise(replace(FOUND, faults=tuple(f"/a/b/{n}.jpg: cut" for n in range(40))), MEANS))
    assert values["training.on_error"] == (
        "skip",
        "40 cannot be read (0.jpg, 1.jpg, 2.jpg, …); RUN/skipped.csv will say",
    )
    assert values["training.skip_limit"][0] == 0.15
    assert "training.on_error" not in told(advise(FOUND, MEANS))


def test_several_labels_and_classes_without_a_background() -> None:
    values = told(advise(replace(FOUND, multi_label=True), MEANS))
    assert values["data.multi_label"][0] is True
    assert "data.background" not in values
    cats = told(advise(replace(FOUND, labels=Counter({"cat": 200, "dog": 200})), MEANS))
    assert cats["data.background"][0] == "auto"
    assert "either of the two is tried" in cats["data.background"][1]
