"""Photographs of a surface, some with one defect: JPEG files of three megapixels, unlike any used for tuning."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = (1500, 2000)
"""(height, width), three megapixels."""


def write_photographs(
    folder: Path,
    count: int,
    size: tuple[int, int],
    seed: int,
    picture: Callable[[np.random.Generator, int, tuple[int, int]], tuple[str, Image.Image]],
) -> Path:
    """Write JPEG files, numbered, into a sub-folder for each class.

    Arguments:
        folder: to write to; its sub-folders are the classes.
        count: of files.
        size: (height, width) of each.
        seed: of everything in them.
        picture: gives the class and the picture of a number.

    Returns:
        The folder.
    """
    generator = np.random.default_rng(seed)
    for number in range(count):
        kind, image = picture(generator, number, size)
        path = folder / kind / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=88)
    return folder


def write_surfaces(folder: Path, count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    """Write photographs of rough plaster, intact and damaged: every second one has a chip or a stain of 30 pixels."""
    return write_photographs(folder, count, size, seed, _surface)


def _surface(generator: np.random.Generator, number: int, size: tuple[int, int]) -> tuple[str, Image.Image]:
    image = _plaster(generator, size)
    if number % 2 == 0:
        return "intact", image
    _damage(generator, image)
    return "damaged", image


def _plaster(generator: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A surface of several grains, lit from one side, of some warm or cold grey."""
    height, width = size
    surface = np.full(size, generator.uniform(110, 180), np.float32)
    for scale, depth in ((200, 14.0), (40, 6.0), (9, 7.0), (3, 6.0)):
        coarse = generator.standard_normal((height // scale + 2, width // scale + 2)).astype(np.float32)
        surface += depth * np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    surface += np.linspace(-1, 1, width, dtype=np.float32) * generator.uniform(-25, 25)
    surface += generator.uniform(2, 5) * generator.standard_normal(size, np.float32)
    tint = generator.uniform(0.9, 1.1, 3).astype(np.float32)
    return Image.fromarray((surface[..., None] * tint).clip(0, 255).astype(np.uint8))


def _damage(generator: np.random.Generator, image: Image.Image) -> None:
    """Put a chip (sharp, angular) or a stain (soft, round) of about 30 pixels anywhere, darker or lighter."""
    radius = generator.uniform(12, 18)
    row, column = (generator.uniform(40, side - 40) for side in (image.height, image.width))
    turns = 2 * np.pi * (np.arange(7) + generator.uniform(-0.3, 0.3, 7)) / 7
    reach = radius * generator.uniform(0.7, 1.2, 7)
    corners = [(column + r * np.cos(t), row + r * np.sin(t)) for r, t in zip(reach, turns, strict=True)]
    cover = Image.new("L", image.size)
    ImageDraw.Draw(cover).polygon(corners, fill=int(generator.uniform(170, 240)))
    if generator.random() < 0.5:
        cover = cover.filter(ImageFilter.GaussianBlur(3))
    shade = int(np.clip(generator.choice([35, 225]) + generator.uniform(-20, 20), 0, 255))
    image.paste(Image.new("RGB", image.size, (shade, shade, max(shade - 10, 0))), mask=cover)
