"""Photographs as cameras write them: JPEG files of three megapixels, cut from two real pictures and grained."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (1500, 2000)
"""(height, width), three megapixels."""

GRAIN = 4.0
"""Standard deviation of the noise of the sensor, of 255."""


def write_photographs(folder: Path, count: int, size: tuple[int, int] = SIZE, quality: int = 90) -> Path:
    """Write a folder of two classes of JPEG files, as `foveate train manifest --data` takes it.

    Arguments:
        folder: to write to; its sub-folders are the classes.
        count: of files, alternately of either class.
        size: (height, width) of each.
        quality: of JPEG.

    Returns:
        The folder.
    """
    from sklearn.datasets import load_sample_images

    pictures = [Image.fromarray(picture) for picture in load_sample_images().images]
    generator = np.random.default_rng(0)
    for number in range(count):
        picture = pictures[number % 2]
        height = int(generator.integers(picture.height // 2, picture.height))
        width = min(picture.width, height * size[1] // size[0])
        top, left = (int(generator.integers(0, side + 1)) for side in (picture.height - height, picture.width - width))
        cut = picture.crop((left, top, left + width, top + height)).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        grained = np.asarray(cut, np.float32) + GRAIN * generator.standard_normal((*size, 3), np.float32)
        path = folder / ("temple", "flower")[number % 2] / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grained.clip(0, 255).astype(np.uint8)).save(path, quality=quality)
    return folder
