import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from foveate.config.settings import FeatureSettings
from foveate.errors import ConfigError, MissingExtra, RunError, WriteError
from foveate.images import ArraySource
from foveate.models import Model, load_model, make_batch, save_model, shipped_models

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]


@pytest.mark.parametrize(
    "name",
    [
        *("attention-sampling", "uniform", "cnn", "deep-mil", "ips", "top-k", "attention-sampling + cross-attention"),
        *("perturbed-top-k", "gmic", "cnn + ordinal"),
    ],
)
def test_a_saved_model_comes_back_to_the_bit(
    name: str, tmp_path: Path, make_model: Models, make_source: Sources
) -> None:
    model = make_model(name)
    for tensor in model.state_dict().values():
        tensor.add_(torch.rand(tensor.shape))
    folder = save_model(model, tmp_path / "run" / "model", {"metrics": {"test error": 0.125}, "data": "Two animals."})
    again = load_model(folder)
    assert not again.training
    assert (again.settings, again.classes, again.channels) == (model.settings, model.classes, model.channels)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    batch = make_batch([make_source((80, 110))], model.view, [4])
    assert torch.equal(again(batch).logits, model.eval()(batch).logits)
    assert load_model(tmp_path / "run").parameter_count == model.parameter_count  # the run that holds it


def test_folder_has_the_hubs_layout_and_nothing_else(tmp_path: Path, make_model: Models) -> None:
    model = make_model()
    save_model(model, tmp_path, {"metrics": {"test error": 0.125}, "data": "Two animals.", "license": "mit"})
    (tmp_path / "notes.txt").write_text("mine")
    save_model(model, tmp_path, {"metrics": {"test error": 0.125}, "data": "Two animals.", "license": "mit"})
    assert {file.name for file in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors", "notes.txt"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["format_version"] == 1
    assert config["classes"] == ["cat", "dog", "owl"]
    assert config["settings"]["attention"]["stride"] == 2
    assert config["card"]["metrics"] == {"test error": 0.125}
    _, header, text = (tmp_path / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "foveate",
        "license": "mit",
        "pipeline_tag": "image-classification",
        "tags": ["foveate", "attention-sampling", "model_hub_mixin", "pytorch_model_hub_mixin"],
    }
    for part in ("2 channel(s)", "4 patches of 22×26", "| test error | 0.125 |", "Two animals.", "cat, dog, owl"):
        assert part in text


def test_a_save_that_fails_leaves_the_old_model(
    tmp_path: Path, make_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(make_model(), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foveate.models.store.save_file", full)
    with pytest.raises(WriteError) as caught:
        save_model(make_model("cnn"), tmp_path)
    said = "cannot be written (No space left on device): free some space or write elsewhere"
    assert str(caught.value) == f"{tmp_path / 'model.safetensors'}: {said}"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_files_of_a_model_have_the_rights_that_the_umask_gives(tmp_path: Path, make_model: Models) -> None:
    before = os.umask(0o027)
    try:
        save_model(make_model(), tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o640}


def refused(name: str | Path) -> str:
    with pytest.raises(RunError) as caught:
        load_model(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_no_model_is_refused_with_a_remedy(tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    assert refused(missing).startswith(
        f"no folder and no shipped model is called {missing}: give the folder of a run or of a model, "
    )
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file") == (
        f"{tmp_path / 'file'} is a file, not a run or model folder: give the folder it lies in"
    )
    assert refused(tmp_path) == (
        f"{tmp_path} is not a run or model folder, it has neither config.json nor model/config.json: "
        "give the folder that foveate train wrote"
    )


@pytest.fixture
def shipping(tmp_path: Path, make_model: Models, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models in the place of foveate's own: two, and what is none."""
    shelf = tmp_path / "shipped"
    save_model(make_model(), shelf / "pets", {"data": "Shipped."})
    save_model(make_model("cnn"), shelf / "letters")
    (shelf / "unfinished").mkdir()
    monkeypatch.setattr("foveate.models.store.SHIPPED", shelf)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return shelf


def test_a_shipped_model_is_loaded_by_its_name_unless_a_folder_has_it(shipping: Path, make_model: Models) -> None:
    assert shipped_models() == ("letters", "pets")
    assert load_model("pets").settings.name == "attention-sampling"
    assert load_model("letters").settings.name == "cnn"
    save_model(make_model("uniform"), "pets")
    assert load_model("pets").settings.name == "uniform"


def test_an_unknown_name_is_told_what_is_shipped(shipping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pest", "unfinished", "../shipped/none"):
        assert refused(name) == (
            f"no folder and no shipped model is called {name}: give the folder of a run or of a model, "
            "a shipped model (letters, pets), or a hub id with a slash"
        )
    monkeypatch.setattr("foveate.models.store.SHIPPED", shipping / "unfinished")
    assert shipped_models() == ()
    assert refused("pest").endswith("give the folder of a run or of a model, or a hub id with a slash")


def test_a_missing_run_beside_others_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert refused("runs/demo").startswith("no folder and no shipped model is called runs/demo: ")


def test_the_hub_is_asked_for_an_id_with_a_slash(
    tmp_path: Path, make_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    folder = save_model(make_model(), tmp_path / "snapshot")
    asked = []

    def snapshot(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        if repository.startswith("nobody"):
            raise ConnectionError("no network\nmore")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load_model("someone/animals@v1").classes == ("cat", "dog", "owl")
    assert asked == [("someone/animals", "v1", ["config.json", "model.safetensors", "README.md"])]
    assert refused("nobody/animals") == (
        "nobody/animals is no folder here and could not be had from the hub (no network): "
        "check the name and the network"
    )


def test_without_the_hubs_client_its_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra) as caught:
        load_model("someone/animals")
    assert str(caught.value) == (
        "someone/animals is no folder here; to look for it on the hub: pip install 'huggingface-hub>=0.27'"
    )


def broken(folder: Path, make_model: Models, **changes: object) -> Path:
    save_model(make_model(), folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"format_version": 2},
            "has format_version 2, this foveate 0.1.0 reads 1: update your clone and pip install . again in it",
        ),
        (
            {"format_version": None},
            "has no format_version, so foveate did not write it: give a folder that foveate wrote",
        ),
        ({"classes": None}, "lacks classes: save the model again"),
        ({"colour": 1}, "has unknown key(s) colour: remove them, or save the model again"),
        (
            {"settings": {"pathces": 3}},
            "does not describe a model: unknown key settings.pathces: did you mean settings.patches?",
        ),
        (
            {"classes": ["a"]},
            "does not describe a model: a model needs at least two classes with different names, got ['a']",
        ),
    ],
)
def test_a_config_that_is_wrong_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path, make_model: Models
) -> None:
    found = refused(broken(tmp_path, make_model, **changes))
    assert found == f"{tmp_path / 'config.json'} {message}"


def test_a_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert refused(tmp_path).startswith(f"{tmp_path / 'config.json'} cannot be read as JSON (")


def test_weights_that_do_not_match_are_refused(tmp_path: Path, make_model: Models) -> None:
    weights = tmp_path / "model.safetensors"
    broken(tmp_path, make_model, classes=["a", "b"])
    assert refused(tmp_path) == (
        f"{weights} does not match the config.json beside it in head.bias, head.weight: both must come from one save"
    )
    save_model(make_model(), tmp_path)
    tensors = load_file(weights)
    save_file({f"x.{key}": value for key, value in tensors.items()}, weights)
    assert refused(tmp_path).endswith(f"and {2 * len(tensors) - 3} more: both must come from one save")
    weights.write_bytes(b"\x00" * 20)
    assert refused(tmp_path).startswith(f"{weights} is damaged (")
    weights.unlink()
    assert refused(tmp_path) == f"{weights} is missing: copy the whole model folder"


@pytest.fixture
def somebodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file behind when it is imported; the file."""
    trace = tmp_path / "imported"
    code = f"import pathlib\nfrom torch import nn\npathlib.Path({str(trace)!r}).touch()\n"
    (tmp_path / "somebodys_code.py").write_text(code + "def network(channels):\n    return nn.Conv2d(channels, 4, 3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield trace
    sys.modules.pop("somebodys_code", None)


def test_a_folder_imports_nothing_that_is_not_allowed_by_its_name(
    tmp_path: Path, make_model: Models, somebodys: Path
) -> None:
    name = "somebodys_code:network"
    folder = save_model(make_model("uniform", features=FeatureSettings(name)), tmp_path / "model")
    del sys.modules["somebodys_code"]
    somebodys.unlink()
    for allowed in ((), ("somebodys_code", "somebodys_code:other")):
        with pytest.raises(ConfigError) as caught:
            load_model(folder, allow_code=allowed)
        assert str(caught.value) == (
            f"{folder / 'config.json'} would import and call {name}, which does not come with foveate: if you trust "
            f"it, allow it by name, --allow-code {name} (in Python load_model(folder, allow_code=['{name}']))"
        )
    assert not somebodys.exists()
    assert "somebodys_code" not in sys.modules
    assert load_model(folder, allow_code=[name]).features.dimension == 4
    assert somebodys.exists()
