"""Settings: the same in Python, YAML and flags, and plain words about what is wrong."""

from pathlib import Path

import pytest

from foveate.config.files import PRESETS, changed_keys, load_settings, merge_settings, preset, save_settings
from foveate.config.training import RunSettings, TrainingSettings
from foveate.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_and_survive_saving(name: str, tmp_path: Path) -> None:
    settings = preset(name)
    save_settings(settings, tmp_path / "config.yaml")
    assert load_settings(tmp_path / "config.yaml") == settings
    assert settings != RunSettings()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_models(name: str) -> None:
    from foveate.models import build_model

    settings = preset(name)
    model = build_model(settings.model, ("a", "b"), channels=3, image_size=(1000, 1200))
    assert model.patches == settings.model.patches


def test_every_shipped_file_is_a_preset() -> None:
    import foveate.config

    folder = Path(foveate.config.__file__).parent / "presets"
    assert tuple(sorted(path.stem for path in folder.glob("*.yaml"))) == PRESETS


def test_the_paper_preset_says_what_the_paper_says() -> None:
    settings = preset("megapixel-mnist-paper")
    assert settings.model.attention.stride == 1
    assert settings.model.method == "des_raj"
    assert settings.model.features.norm == 1
    assert (settings.training.batch, settings.training.epochs, settings.training.learning_rate) == (128, 500, 1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {patchs: 3}", "unknown key model.patchs: did you mean model.patches?"),
        ("modle: {patches: 3}", "unknown key modle: did you mean model?"),
        ("training: {epochs: many}", "training.epochs must be an integer, got 'many'"),
        ("training: {epochs: 0}", "training.epochs must be at least 1, got 0: set it to 1 or more"),
        ("training: {max_minutes: -1}", "training.max_minutes must be positive, got -1.0: set it to a number above 0"),
        ("training: {averaging: 1}", "training.averaging must be in [0, 1), got 1.0: set it to e.g. 0.1"),
        (
            "augment: {translate: [0, -1]}",
            "augment.translate must not be negative, got (0, -1): set it to e.g. 0 10",
        ),
        (
            "augment: {gain: [1.1, 0.9]}",
            "augment.gain must go from low to high, got 1.1 0.9: write the smaller number first",
        ),
        (
            "augment: {bias: [0.1, 0]}",
            "augment.bias must go from low to high, got 0.1 0.0: write the smaller number first",
        ),
        (
            "augment: {probability: 1.5}",
            "augment.probability must be in [0, 1], got 1.5: set it to e.g. 0.8",
        ),
        ("model: [1, 2]", "model must be a mapping of keys to values, got [1, 2]"),
    ],
)
def test_faults_are_named_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert str(caught.value) == message


def test_files_that_hold_no_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    with pytest.raises(
        ConfigError, match=r"cannot read the configuration .*mine.yaml: No such file or directory; give"
    ):
        load_settings(file)
    file.write_text("seed: 1\nmodel: {patches: 3")
    with pytest.raises(ConfigError, match=r"mine.yaml is not YAML \(line 2\): write `key: value` lines"):
        load_settings(file)
    file.write_text("- 1")
    with pytest.raises(ConfigError, match=r"mine.yaml must hold `key: value` lines, got list: see a saved config.yaml"):
        load_settings(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is not UTF-8 text; give an existing YAML file"):
        load_settings(file)
    file.write_text("")
    assert load_settings(file) == RunSettings()


def test_unknown_presets_are_listed() -> None:
    with pytest.raises(ConfigError, match=r'^unknown preset "smok": choose one of .*smoke.*, or give --config FILE$'):
        preset("smok")


def test_numbers_without_a_point_are_numbers() -> None:
    assert merge_settings(RunSettings(), {"training": {"learning_rate": "1e-4"}}).training.learning_rate == 1e-4


def test_one_way_to_set_the_view_replaces_another() -> None:
    settings = merge_settings(preset("smoke"), {"model": {"view": {"scale": 0.25}}})
    assert (settings.model.view.longest_side, settings.model.view.scale) == (None, 0.25)


def test_a_manifest_replaces_generated_images() -> None:
    assert merge_settings(preset("smoke"), {"data": {"manifest": "mine.csv"}}).data.source == "manifest"


def test_changes_are_checked_with_what_they_change() -> None:
    before = merge_settings(RunSettings(), {"training": {"anneal": {"prior": {"over": 0.3}}}})
    prior = merge_settings(before, {"training": {"anneal": {"prior": {"hold": 0.7}}}}).training.anneal.prior
    assert (prior.hold, prior.over) == (0.7, 0.3)


def test_differences_are_named_by_their_keys() -> None:
    after = merge_settings(RunSettings(), {"seed": 1, "model": {"attention": {"stride": 2}}})
    assert changed_keys(RunSettings(), after) == ["seed", "model.attention.stride"]


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        TrainingSettings().epochs = 3  # type: ignore[misc]


def test_stains_and_standardised_images_exclude_each_other() -> None:
    changes = {"augment": {"stain": 0.1}, "model": {"input": {"normalise": "image"}}}
    with pytest.raises(ConfigError, match=r"^augment\.stain is 0\.1, but .*: set augment\.stain to 0, or "):
        merge_settings(RunSettings(), changes)
