"""Cache keys: equal where pixels are, different where they may not be, and none where nobody knows."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiffs import noise, write_pyramid

from foveate.config.settings import GuideSettings
from foveate.images import ArraySource, Canvas, Masked, NpySource, PillowSource, Source, open_image, open_zip_member
from foveate.images.augment import Augmented, Change
from foveate.images.wrappers.base import Unchanged
from foveate.images.wrappers.channels import Bands, Colour
from foveate.images.wrappers.guide import Guided
from foveate.images.wrappers.resample import Resampled
from foveate.images.wrappers.standardise import Standardised


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = noise(90, 120)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "mask.png")
    write_pyramid(tmp_path / "a.tif", pixels, levels=2, tile=(64, 64))
    np.save(tmp_path / "a.npy", pixels)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("b.png", "c.png"):
            archive.write(tmp_path / "a.png", name)
    return tmp_path


FILES: dict[str, Callable[[Path], Source]] = {
    "a.png": lambda folder: open_image(folder / "a.png"),
    "a.tif": lambda folder: open_image(folder / "a.tif"),
    "a.npy": lambda folder: open_image(folder / "a.npy"),
    "a.zip": lambda folder: open_zip_member(folder / "a.zip", "b.png"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_one_until_it_changes(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = FILES[name](folder).cache_key()
    assert key is not None
    assert FILES[name](folder).cache_key() == key
    monkeypatch.chdir(folder)
    assert FILES[name](Path()).cache_key() == key, "wherever one is"
    os.utime(folder / name, (1, 1))
    assert FILES[name](folder).cache_key() not in (None, key)


def test_every_image_and_every_change_has_another(folder: Path) -> None:
    def plain() -> Source:
        return PillowSource(folder / "a.png")

    sources: list[Source] = [
        *(opened(folder) for opened in FILES.values()),
        open_zip_member(folder / "a.zip", "c.png"),
        *(Bands(plain(), bands) for bands in ((0, 1), (1, 0), (2,))),
        *(Colour(plain(), kind) for kind in ("rgb", "grey")),
        Standardised(plain()),
        Standardised(Bands(plain(), (0, 1))),
        Bands(Standardised(plain()), (0, 1)),
        *(Resampled(plain(), size) for size in ((45, 60), (45, 61))),
        *(Guided(plain(), GuideSettings(tissue=use)) for use in ("mask", "prior", "ignore")),
        Guided(plain(), GuideSettings(strength=1.0)),
        *(Masked(plain(), folder / name) for name in ("mask.png", "a.png")),
    ]
    keys = [repr(source.cache_key()) for source in sources]
    assert "None" not in keys
    assert len(set(keys)) == len(keys)
    again = Guided(Bands(plain(), [0, 1]), GuideSettings())
    assert again.cache_key() == Guided(Bands(plain(), (0, 1)), GuideSettings()).cache_key()


def test_a_mask_counts_as_it_is_now(folder: Path) -> None:
    source = Masked(PillowSource(folder / "a.png"), folder / "mask.png")
    before = source.cache_key()
    os.utime(folder / "mask.png", (1, 1))
    assert source.cache_key() not in (None, before)


def test_what_nobody_knows_has_none(folder: Path) -> None:
    class Own(Unchanged):
        """A wrapper that says nothing of what it does."""

    array = ArraySource(noise(20, 30), name=str(folder / "a.png"))
    canvas = Canvas(np.ones((1, 2, 3), np.uint8), np.array([[1, 2]]), (20, 30), name=str(folder / "a.png"))
    plain = PillowSource(folder / "a.png")
    moved = Augmented(plain, Change(shift=(1, 2)))
    for source in (array, canvas, Own(plain), moved, Bands(array, (0,)), Masked(plain, folder / "none.png")):
        assert source.cache_key() is None
    npy = NpySource(folder / "a.npy")
    (folder / "a.npy").unlink()
    assert npy.cache_key() is None
