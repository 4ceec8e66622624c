"""Models small enough to export, images in files, and the program of examples/ as it is and without ONNX."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import small_settings

from foveate.config.settings import (
    Method,
)
from foveate.export import graphs_of, preprocess
from foveate.models import Model, build_model

ROOT = Path(__file__).parents[2]
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="session")
def program() -> ModuleType:
    """The program that travels with a model, imported as a module."""
    spec = importlib.util.spec_from_file_location("onnx_predict", ROOT / "examples" / "onnx_predict.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Model]:
    """A small model whose weights are all random, and matter."""

    def make(
        name: str = "attention-sampling", channels: int = 3, extras: dict[str, Any] | None = None, **changes: object
    ) -> Model:
        model = build_model(small_settings(name, **changes), CLASSES, channels, **extras or {})
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_images(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Path]]:
    """Pictures of mixed sizes in files: blobs of light on noise, PNG and JPEG by turns."""

    def make(number: int, mode: str = "RGB", least: int = 90, most: int = 260) -> list[Path]:
        folder, paths = tmp_path_factory.mktemp("images"), []
        for one in range(number):
            rng = np.random.default_rng([one, number])
            height, width = (int(side) for side in rng.integers(least, most, 2))
            pixels = rng.normal(90, 6, (height, width, 3)) + rng.normal(0, 12, 3)
            for _ in range(6):
                top, left = int(rng.integers(0, height - 20)), int(rng.integers(0, width - 20))
                pixels[top : top + 20, left : left + 20] += rng.normal(0, 60, (20, 20, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)
            paths.append(folder / f"picture-{one}.{'jpg' if one % 2 else 'png'}")
            image.save(paths[-1])
        return paths

    return make


@pytest.fixture(scope="session")
def here(program: ModuleType) -> Callable[..., Any]:
    """The program, with a model's graphs as they are before they are exported."""

    def make(model: Model, method: Method | None = None) -> Any:
        method = method or getattr(model, "draw_method", model.method)
        graphs = graphs_of(model, method)
        ends = {name: {"inputs": graph.inputs, "outputs": graph.outputs} for name, graph in graphs.items()}
        runner = program.Exported.__new__(program.Exported)
        runner.told = json.loads(json.dumps(preprocess(model, method, "onnx", ends)))

        def run(name: str, **given: np.ndarray) -> dict[str, np.ndarray]:
            inputs = [torch.from_numpy(np.ascontiguousarray(given[one])) for one in ends[name]["inputs"]]
            with torch.no_grad():
                found = graphs[name](*inputs)
            found = found if isinstance(found, tuple) else (found,)
            return dict(zip(ends[name]["outputs"], (one.numpy() for one in found), strict=True))

        runner.run = run
        return runner

    return make
