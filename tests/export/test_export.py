"""Exported files beside PyTorch: ONNX through the program that travels with them, and programs of torch.export."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from foveate.config.settings import AttentionSettings, EvidenceSettings, FeatureSettings, PriorSettings, ViewSettings
from foveate.errors import ConfigError, MissingExtra, RunError
from foveate.export import export_model, program
from foveate.images import open_image
from foveate.images.tensors import make_view
from foveate.models import Model, load_model
from foveate.networks.evidence import EvidenceHead, EvidenceNetwork

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[2]
Models = Callable[..., Model]
Images = Callable[..., list[Path]]
TOLERANCE = 1e-4
LITE0 = AttentionSettings(name="timm:tf_efficientnet_lite0", weights="bundled", stages=(3, 4), stride=16, maxima=True)


def agree(model: Model, runner: Any, paths: list[Path], samples: int = 1) -> None:
    """The bar: probabilities within 1e-4, the same patches for the same seed."""
    worst = 0.0
    for seed, path in enumerate(paths):
        ours = model.predict(path, seed=seed, samples=samples)
        theirs, boxes = runner.predict(path, seed=seed, samples=samples)
        worst = max(worst, *(abs(theirs[name] - ours.probabilities[name]) for name in theirs))
        assert [(box.top, box.left) for box in ours.boxes] == [tuple(map(int, one)) for one in boxes]
    assert worst < TOLERANCE
    print(f"{len(paths)} images, probabilities differ by {worst:.1e} at most")


@pytest.fixture(scope="module")
def exported(make_model: Models, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    model = make_model("uniform")  # of those that draw, the one that is exported in the least time
    folder = tmp_path_factory.mktemp("exported") / "pets"
    card = {"data": "pictures of pets", "metrics": {"test error": 0.125}, "license": "mit"}
    done = export_model(model, folder, card=card)
    assert (done.path, done.graphs, done.any_size) == (folder, ("view", "patch", "head"), True)
    assert done.difference < 1e-4
    return model, folder


def test_ten_images(exported: tuple[Model, Path], program: ModuleType, make_images: Images) -> None:
    model, folder = exported
    agree(model, program.Exported(folder), make_images(10), samples=2)


def test_what_is_in_the_folder(exported: tuple[Model, Path]) -> None:
    _, folder = exported
    names = {"view.onnx", "patch.onnx", "head.onnx", "preprocess.json", "predict.py", "README.md"}
    assert {file.name for file in folder.iterdir()} == names
    told = json.loads((folder / "preprocess.json").read_text())
    assert told["classes"] == ["cat", "dog", "owl"]
    assert (told["patch"], told["patches"], told["method"], told["view"]) == ([22, 26], 4, "uniform", {"scale": 0.25})
    assert told["graphs"]["head"]["inputs"] == ["log_prob", "index", "features"]
    card = (folder / "README.md").read_text()
    assert "license: mit\n" in card
    assert "## Data\n\npictures of pets\n" in card
    assert "| test error | 0.125 |" in card
    assert "python predict.py . image.png" in card
    assert "load_model" not in card, "it is no model folder"


def test_the_program_runs_by_itself(exported: tuple[Model, Path], make_images: Images, tmp_path: Path) -> None:
    """In a process of its own, from another folder, without foveate and torch."""
    model, folder = exported
    (path,) = make_images(1)
    code = (
        "import runpy, sys\n"
        "for name in ('foveate', 'torch', 'onnx', 'scipy'): sys.modules[name] = None\n"
        f"sys.argv = ['predict.py', {str(folder)!r}, {str(path)!r}]\n"
        f"runpy.run_path({str(folder / 'predict.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.split()
    assert said[0] == str(path)
    found = dict(zip(said[1::2], map(float, said[2::2]), strict=True))
    assert found == pytest.approx(model.predict(path).probabilities, abs=1e-4)


def test_the_example_is_the_program_that_travels() -> None:
    assert (ROOT / "examples" / "onnx_predict.py").read_text() == program()


def test_a_folder_of_something_else_is_not_replaced(make_model: Models, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(RunError, match="is there already and is no exported model"):
        export_model(make_model("cnn"), tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"neither a folder nor a \.zip file: give e\.g\. .*mine\.zip"):
        export_model(make_model("cnn"), tmp_path / "mine.onnx")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_onnx_that_is_not_installed_is_one_line(
    make_model: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(MissingExtra, match=r"needs onnxscript: pip install 'onnx>=.*' 'onnxruntime>=.*'"):
        export_model(make_model("cnn"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_takes_its_patches_one_way_is_exported_that_way(make_model: Models, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a top-k model takes patches by top alone: leave out --method murthy"):
        export_model(make_model("top-k"), tmp_path / "out", method="murthy")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_torch_programs(make_model: Models, tmp_path: Path) -> None:
    """A CNN's: one graph, of views of any size, in a zip file."""
    model = make_model("cnn")
    export_model(model, tmp_path / "cnn.zip", "torch")
    with zipfile.ZipFile(tmp_path / "cnn.zip") as file:
        assert set(file.namelist()) == {"view.pt2", "preprocess.json", "README.md"}
        file.extractall(tmp_path)
    graph = torch.export.load(tmp_path / "view.pt2").module()
    for size in ((33, 71), (120, 64)):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        view = torch.from_numpy(pixels / 255).float().permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = model.probabilities(model.head(model.features(view)))
        assert torch.allclose(graph(view), expected, atol=1e-6)


HUNDRED: dict[str, dict[str, Any]] = {
    "attention sampling": {},
    "several labels": {"method": "iid", "extras": {"multi_label": True}},
    "valid, residual": {
        "attention": AttentionSettings(widths=(4, 3), stride=3, padding="valid", pool="mean"),
        "features": FeatureSettings("residual", width=8),
        "method": "des_raj",
    },
    "deep mil": {"name": "deep-mil"},
    "cnn": {"name": "cnn", "features": FeatureSettings("residual", width=8)},
    "evidence": {"name": "evidence", "attention": LITE0, "evidence": EvidenceSettings(background="cat")},
    "eyes": {
        "attention": LITE0,
        "evidence": EvidenceSettings(share=0.3, background="dog"),
        "control": True,
        "prior": PriorSettings(contrast=0.5),
        "view": ViewSettings(longest_side=160),
        "patch": (64, 64),
        "features": FeatureSettings("timm:tf_efficientnet_lite0", weights="bundled", stages=(3, 4), project=8),
    },
}


def measure(model: Model, images: list[Path]) -> None:
    """Mean and deviation of the features of cells, as finding measures them: heads are made for standardised ones.

    What a frozen backbone says is rounded to half precision, so that the last digit of an onnxruntime's sum may round
    it to a neighbour: of features that are not standardised a thousandth of a large number.
    """
    assert model.view is not None
    assert isinstance(model.attention, EvidenceNetwork)
    with torch.inference_mode():
        views = [make_view(open_image(path), model.view)[None] for path in images]
        cells = torch.cat([model.attention.cells(view).flatten(0, 2) for view in views])
    heads = [model.attention.head, *([model.first.head] if hasattr(model, "first") else [])]
    for head in heads:
        assert isinstance(head, EvidenceHead)
        head.mean.copy_(cells.mean(0))
        head.deviation.copy_(cells.std(0).clamp(min=1e-3))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", HUNDRED)
def test_a_hundred_images(
    name: str, make_model: Models, make_images: Images, tmp_path: Path, program: ModuleType
) -> None:
    model, images = make_model(**HUNDRED[name]), make_images(100, least=130, most=420)
    if isinstance(getattr(model, "attention", None), EvidenceNetwork):
        measure(model, images[:8])
    export_model(model, tmp_path / "out")
    agree(model, program.Exported(tmp_path / "out"), images)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["attention sampling", "eyes", "deep mil"])
def test_torch_programs_of_the_others(name: str, make_model: Models, tmp_path: Path) -> None:
    """Each is run as it is written, beside the model's own numbers, and at another size than it was traced with."""
    done = export_model(make_model(**HUNDRED[name]), tmp_path / "out", "torch")
    assert done.difference < TOLERANCE


@pytest.mark.slow
def test_the_shipped_model(make_images: Images, tmp_path: Path, program: ModuleType) -> None:
    model = load_model("megapixel-mnist")
    export_model(model, tmp_path / "out")
    agree(model, program.Exported(tmp_path / "out"), make_images(5, mode="L", least=400, most=700), samples=3)
