"""What figures of several images are made of: a panel with an image, a map over it, boxes and points."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from foveate.images import Source, unit_range
from foveate.training.watched import map_colours
from foveate.types import Box, Size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["show_boxes", "show_image", "show_map", "show_points", "small_picture"]

THUMBNAIL = 400
"""Longest side of an image in a panel, in pixels."""

FONT = 8


def small_picture(source: Source) -> Shaped[np.ndarray, "height width *channel"]:
    """An image as a panel shows it: grey, RGB, or the first band of others; in [0, 1].

    Raises:
        ImageError: it cannot be read.
    """
    pixels = unit_range(source.thumbnail(THUMBNAIL)).clip(0, 1)
    return pixels if pixels.shape[2] == 3 else pixels[:, :, 0]


def show_image(panel: "Axes", pixels: Shaped[np.ndarray, "height width *channel"], size: Size, title: str = "") -> None:
    """Fill a panel with an image.

    Arguments:
        panel: of a figure; from now on it has the coordinates of level-0 pixels.
        pixels: of `small_picture`.
        size: (height, width) of the image, in level-0 pixels.
        title: above it.
    """
    panel.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(0, size[1], size[0], 0))
    _finish(panel, size, title)


def show_map(
    panel: "Axes",
    attention: Shaped[np.ndarray, "row column"],
    extent: tuple[float, float, float, float],
    size: Size,
    title: str = "",
    opacity: float = 1.0,
) -> None:
    """Lay an attention map over what a panel shows, in colours from 0 to its largest probability.

    Arguments:
        panel: of a figure.
        attention: (rows, columns) probabilities.
        extent: (top, left, bottom, right) of the map, in level-0 pixels.
        size: (height, width) of the image, likewise.
        title: above it.
        opacity: of the map.
    """
    top, left, bottom, right = extent
    panel.imshow(map_colours(attention), extent=(left, right, bottom, top), alpha=opacity, interpolation="nearest")
    _finish(panel, size, title)


def show_boxes(panel: "Axes", boxes: Iterable[Box], colour: str = "white") -> None:
    """Frame boxes, in level-0 pixels."""
    from matplotlib.patches import Rectangle

    for box in boxes:
        panel.add_patch(
            Rectangle((box.left, box.top), box.width, box.height, fill=False, edgecolor=colour, linewidth=0.6)
        )


def show_points(panel: "Axes", boxes: Iterable[Box], colour: str = "white") -> None:
    """Dot the middles of boxes, in level-0 pixels."""
    middles = np.array([(box.left + box.width / 2, box.top + box.height / 2) for box in boxes]).reshape(-1, 2)
    panel.plot(*middles.T, linestyle="none", marker="o", markersize=1.5, color=colour)


def _finish(panel: "Axes", size: Size, title: str) -> None:
    panel.set_xlim(0, size[1])
    panel.set_ylim(size[0], 0)
    panel.set_title(title, fontsize=FONT)
    panel.set_axis_off()
