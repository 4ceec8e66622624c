"""The attention map over its image, as one picture with a colour bar."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from foveate.explain.colours import MAP, Scale
from foveate.explain.explanation import Explanation

__all__ = ["BAR", "write_overlay"]

BAR = 130
"""Width of the strip with the colour bar, in pixels, to the right of the image."""

DPI = 100


def write_overlay(path: Path, seen: Explanation, picture: UInt8[np.ndarray, "height width 3"]) -> None:
    """Draw the map and the patches of the first draw over a picture of the image.

    Every pixel of the picture is a pixel of the result, from the top left corner; the colour bar stands to its right.
    A model without attention has its patches drawn alone, without a bar.

    Arguments:
        path: PNG file to write.
        seen: what is drawn.
        picture: the whole image, at any size.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    height, width = picture.shape[:2]
    bar = BAR if seen.attention is not None else 0
    tall = max(height, 160 if bar else 1)
    figure = Figure(figsize=((width + bar) / DPI, tall / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 1 - height / tall, width / (width + bar), height / tall))
    axes.set_axis_off()
    axes.imshow(picture, extent=(0, seen.size[1], seen.size[0], 0), aspect="auto", interpolation="none")
    if seen.attention is not None:
        _draw_map(figure, axes, seen, width)
    for patch in seen.patches:
        if patch.draw == 0:
            box = patch.box
            corner = (box.left, box.top)
            axes.add_patch(Rectangle(corner, box.width, box.height, fill=False, edgecolor="black", linewidth=2.2))
            axes.add_patch(Rectangle(corner, box.width, box.height, fill=False, edgecolor="white", linewidth=1.0))
    axes.set_xlim(0, seen.size[1])
    axes.set_ylim(seen.size[0], 0)
    figure.savefig(path, dpi=DPI, pil_kwargs={"compress_level": 1})


def _draw_map(figure, axes, seen: Explanation, width: int) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    assert seen.attention is not None
    assert seen.cell_mask is not None
    assert seen.extent is not None
    top, left, bottom, right = seen.extent
    scale = Scale.of(seen.attention, seen.cell_mask)
    colours = scale.colour(seen.attention, seen.cell_mask)
    axes.imshow(colours, extent=(left, right, bottom, top), aspect="auto", interpolation="nearest", alpha=0.5)
    place = (width + 14) / (width + BAR), 0.06, 18 / (width + BAR), 0.8
    side = figure.add_axes(place)
    figure.colorbar(ScalarMappable(Normalize(scale.low, scale.high), MAP), cax=side, extend="both")
    side.tick_params(labelsize=7)
    side.set_title("attention\nof a cell", fontsize=7, loc="left")
