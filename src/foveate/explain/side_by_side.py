"""Where several models looked in the same images, side by side with what is there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.explain.explanation import Explanation
from foveate.explain.figures import show_boxes, show_image, show_map, show_points, small_picture
from foveate.images import Source
from foveate.types import Box

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_side_by_side"]

SIDE, TITLE, DPI = 2.4, 0.3, 120
"""Longer side of a panel and height of a line of text in inches, and pixels per inch."""

TRUTH = "#00d0ff"
"""Colour of what is known to be there; the maps have none like it."""


def draw_side_by_side(
    path: Path | str,
    sources: Sequence[Source],
    objects: Sequence[Sequence[Box]],
    seen: Mapping[str, Sequence[Explanation]],
) -> None:
    """Draw a row per image: the image with what is known to be there, then the attention map of each model.

    Objects of one pixel are drawn as dots, larger ones as frames. Each map has a scale of its own, from 0 to its
    largest probability; the frames over it are the patches of the model's first draw, if it draws. A model without a
    map has its patches over the image. After the figures of Katharopoulos & Fleuret, "Processing Megapixel Images with
    Deep Attention-Sampling Models" (ICML 2019), section 4.

    Arguments:
        path: the picture to write; its ending chooses the format.
        sources: the images, one per row.
        objects: what is there, image by image, in level-0 pixels.
        seen: name of each model → what it saw, image by image.

    Raises:
        ImageError: an image cannot be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 1 + len(seen)
    heights = [SIDE * min(1.0, source.size[0] / source.size[1]) + TITLE for source in sources]
    figure = Figure(figsize=(SIDE * columns, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(sources), columns, squeeze=False, height_ratios=heights)
    for row, (source, known) in enumerate(zip(sources, objects, strict=True)):
        picture = small_picture(source)
        show_image(panels[row, 0], picture, source.size, source.name.rpartition("/")[2])
        points = [box for box in known if box.size == (1, 1)]
        show_points(panels[row, 0], points, TRUTH)
        show_boxes(panels[row, 0], [box for box in known if box.size != (1, 1)], TRUTH)
        for panel, (name, told) in zip(panels[row, 1:], seen.items(), strict=True):
            title = name if row == 0 else ""
            show_image(panel, picture, source.size, title)
            _show_seen(panel, told[row], title)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def _show_seen(panel: "Axes", seen: Explanation, title: str) -> None:
    extent = seen.extent
    if seen.attention is not None and extent is not None:
        show_map(panel, seen.attention, extent, seen.size, title)
    if seen.drawn:
        show_boxes(panel, [patch.box for patch in seen.patches if patch.draw == 0])
