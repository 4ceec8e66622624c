"""Galleries of images whose model looks at contrast without having been trained, and their server."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyramid_files import values, write_pyramid

from foveate.config.settings import AttentionSettings, FeatureSettings, ModelSettings, PriorSettings, ViewSettings
from foveate.models import DrawOptions, Model, build_model
from foveate.predict import find_rows
from foveate.view import Gallery, ViewServer

Serving = Callable[[Gallery], AbstractContextManager[ViewServer]]

SIZE = (613, 1107)
"""Of the first image: three levels of several tiles, none of which ends at a border of the image."""


def scene(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A quiet image with a few striped squares."""
    random = np.random.default_rng(seed)
    pixels = random.integers(60, 90, (*size, 3), dtype=np.uint8)
    for _ in range(5):
        top, left = (int(random.integers(0, side - 40)) for side in size)
        pixels[top : top + 40, left : left + 40] = random.integers(0, 255, 3)
        pixels[top : top + 40 : 7, left : left + 40] = 250
    return pixels


@pytest.fixture(scope="session")
def model() -> Model:
    """A model whose attention is its contrast prior alone."""
    settings = ModelSettings(
        view=ViewSettings(longest_side=96),
        patch=(28, 36),
        patches=4,
        attention=AttentionSettings(widths=(4,), stride=3),
        prior=PriorSettings(contrast=6.0),
        features=FeatureSettings(width=6),
    )
    torch.manual_seed(3)
    made = build_model(settings, ("cat", "<b>dog", "owl & co"), 3)
    with torch.no_grad():
        for parameter in made.attention.parameters():  # type: ignore[union-attr]
            parameter.zero_()
    return made.eval()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain image, one whose three levels have nothing to do with each other, and a broken one."""
    root = tmp_path_factory.mktemp("gallery")
    Image.fromarray(scene(SIZE)).save(root / "a.png")
    write_pyramid(root / "b.tif", [values((571, 389), seed=4), values((191, 130)), values((64, 44))])
    (root / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (root / "secret.txt").write_text("not yours")
    return root


@pytest.fixture(scope="session")
def gallery(model: Model, folder: Path) -> Gallery:
    return Gallery(model, find_rows([folder / name for name in ("a.png", "b.tif", "c.png")]), DrawOptions(2))


@contextmanager
def _served(gallery: Gallery) -> Iterator[ViewServer]:
    with ViewServer(gallery) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def served() -> Serving:
    """What serves a gallery while it is entered."""
    return _served


@pytest.fixture(scope="session")
def server(gallery: Gallery) -> Iterator[ViewServer]:
    with _served(gallery) as running:
        yield running
