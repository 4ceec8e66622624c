"""Images of which nothing can be answered, each in its own way, among others that are well; none square."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.models import build_model, save_model

EMPTY_MASK = "nowhere.png"


def write(path: Path, pixels: np.ndarray) -> None:
    """A tiled TIFF, whatever its name."""
    tifffile.imwrite(path, pixels, tile=(32, 48), photometric="rgb", compression="zlib")


def nodata(path: Path, pixels: np.ndarray) -> None:
    rasterio = pytest.importorskip("rasterio")
    height, width, count = pixels.shape
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 400000, 0, -2, 5000000)}
    size = {"height": height, "width": width, "count": count, "dtype": "uint8", "nodata": 9}
    with rasterio.open(path, "w", driver="GTiff", **size, **place) as stream:
        stream.write(np.full_like(pixels, 9).transpose(2, 0, 1))


def truncated(path: Path, pixels: np.ndarray) -> None:
    write(path, pixels)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def absurd(path: Path, pixels: np.ndarray) -> None:
    words = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**9}, {10**11}, 3)}}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words)


def missing(path: Path, pixels: np.ndarray) -> None:
    """Nothing at all."""


def masked(path: Path, pixels: np.ndarray) -> None:
    write(path, pixels)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(path.with_name(EMPTY_MASK))


SPOILT: tuple[Callable[[Path, np.ndarray], None], ...] = (nodata, truncated, absurd, missing, masked)
"""Ways of being spoilt, in the order in which they occur."""


def spoilt_images(folder: Path, rows: int, every: int = 4) -> tuple[Path, dict[str, str]]:
    """A manifest of so many images, one in `every` of which is spoilt; and the names of these, each with how."""
    noise = np.random.default_rng(20261130)
    (folder / "images").mkdir(parents=True)
    lines, bad = ["path,label,mask"], dict[str, str]()
    for number in range(rows):
        pixels = noise.integers(0, 256, (int(noise.integers(60, 90)), 100, 3), dtype=np.uint8)
        name = f"images/{number:04d}.tif"
        spoil = SPOILT[number // every % len(SPOILT)] if number % every == 1 else write
        spoil(folder / name, pixels)
        if spoil is not write:
            bad[name] = spoil.__name__
        lines.append(f"{name},{('left', 'right')[number % 2]},{f'images/{EMPTY_MASK}' if spoil is masked else ''}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder / "images.csv", bad


def small_model(folder: Path, classes: tuple[str, str] = ("left", "right")) -> Path:
    """The folder of a model that takes such images."""
    settings = ModelSettings(
        view=ViewSettings(longest_side=40), patch=(29, 24), patches=3, features=FeatureSettings(width=8)
    )
    save_model(build_model(settings, classes, channels=3), folder, None)
    return folder
