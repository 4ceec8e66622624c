"""Photographs of textures, each all of one kind: a task with no background class, and with nothing to look for."""

from pathlib import Path

import numpy as np
from defects import write_photographs
from PIL import Image

SIZE = (700, 900)
"""(height, width), in pixels."""

KINDS = ("felt", "linen", "sand", "slate")
"""The kinds: even fibres, threads both ways, grains, and layers one way."""


def write_textures(folder: Path, count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    """Write photographs of all `KINDS` in turn, whose light, colour, scale and contrast say nothing."""
    return write_photographs(folder, count, size, seed, _texture)


def _texture(generator: np.random.Generator, number: int, size: tuple[int, int]) -> tuple[str, Image.Image]:
    kind = KINDS[number % len(KINDS)]
    scale = generator.uniform(1.0, 1.8)
    reach = {
        "felt": [(3.0, 3.0)],
        "linen": [(1.2, 9.0), (9.0, 1.2)],
        "sand": [(1.6, 1.6), (5.0, 5.0)],
        "slate": [(2.0, 6.0)],
    }[kind]
    surface = sum(_smooth(generator, size, rows * scale, columns * scale) for rows, columns in reach)
    if kind == "sand":  # grains stand out to one side alone
        surface = np.maximum(surface, 0.2)
    surface = (surface - surface.mean()) / surface.std()
    light = _smooth(generator, size, size[0] / 4, size[1] / 4)
    noise = generator.standard_normal(size)
    grey = (
        generator.uniform(90, 160)
        + generator.uniform(1.2, 2.4) * surface
        + generator.uniform(6, 9) * noise
        + 10 * light
    )
    tint = generator.uniform(0.85, 1.15, 3)
    return kind, Image.fromarray((grey[..., None] * tint).clip(0, 255).astype(np.uint8))


def _smooth(generator: np.random.Generator, size: tuple[int, int], rows: float, columns: float) -> np.ndarray:
    """White noise under a Gaussian of so many pixels along either side, of deviation 1."""
    spectrum = np.fft.rfft2(generator.standard_normal(size))
    down, along = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    spectrum *= np.exp(-2 * np.pi**2 * ((rows * down) ** 2 + (columns * along) ** 2))
    field = np.fft.irfft2(spectrum, size)
    field -= field.mean()
    return np.asarray(field / field.std())
