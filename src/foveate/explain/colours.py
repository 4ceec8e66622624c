"""Attention in colours: one scale for a map, its colour bar and its numbers."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

__all__ = ["CLASS_COLOURS", "MAP", "Scale", "class_colour"]

MAP = "plasma"
"""Matplotlib's colour map: its order survives grey prints and colour blindness."""

CLASS_COLOURS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)
"""Okabe & Ito, "Color Universal Design" (2008): told apart by the colour-blind, too."""


def class_colour(number: int) -> tuple[int, int, int]:
    """(red, green, blue) of a class; after the seventh they come again."""
    return CLASS_COLOURS[number % len(CLASS_COLOURS)]


@dataclass(frozen=True)
class Scale:
    """What the first and the last colour stand for.

    Attributes:
        low: attention (probability of a cell) of the first colour; cells below it have that colour as well.
        high: likewise of the last.
    """

    low: float
    high: float

    @classmethod
    def of(cls, attention: Float32[np.ndarray, "row column"], cell_mask: Bool[np.ndarray, "row column"]) -> "Scale":
        """From the 1st to the 99.5th percentile of the cells that may be looked at.

        A few cells with nearly all attention would leave everything else in one colour; percentiles do not, and the
        colour bar says what they are. They are at least a tenth of the mean apart, so that a map as good as uniform
        looks it.

        Example:
            >>> Scale.of(np.full((2, 3), 1 / 6, np.float32), np.ones((2, 3), bool)).high - 1 / 6 < 0.02
            True
        """
        values = attention[cell_mask].astype(np.float64)
        low, high = (float(one) for one in np.percentile(values, (1, 99.5)))
        return cls(low, max(high, low + 0.1 * float(values.mean())))

    def colour(
        self, attention: Float32[np.ndarray, "row column"], cell_mask: Bool[np.ndarray, "row column"]
    ) -> UInt8[np.ndarray, "row column 4"]:
        """RGBA of every cell; transparent where the attention may not look."""
        place = np.clip((attention.astype(np.float64) - self.low) / (self.high - self.low), 0, 1)
        colours = _table()[np.rint(255 * place).astype(np.int64)]
        return np.where(cell_mask[:, :, None], colours, np.uint8(0))

    def stops(self, count: int = 9) -> list[str]:
        """Colours at equal steps from low to high, as CSS writes them."""
        chosen = _table()[np.linspace(0, 255, count).round().astype(np.int64), :3]
        return ["#" + bytes(one.tolist()).hex() for one in chosen]


def _table() -> Shaped[np.ndarray, "256 4"]:
    from matplotlib import colormaps

    return np.asarray(colormaps[MAP](np.arange(256), bytes=True))
