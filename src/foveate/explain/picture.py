"""Heatmap colours, and pictures: what an image of any bands and type, and the attention over it, look like."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8
from PIL import Image

from foveate.explain.explanation import Explanation
from foveate.images import Source
from foveate.images.view import shrunk_size
from foveate.images.wrappers.channels import find_bands
from foveate.types import Box

MAP = "plasma"
"""Matplotlib's colour map: its order survives grey prints and colour blindness."""

FAINTEST = 0.15
"""Opacity of the cells with the least attention: what is under them can still be read."""

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

BAR = 130
"""Width of the strip with the colour bar, in pixels, to the right of the image."""

DPI = 100


def class_colour(number: int) -> tuple[int, int, int]:
    """Colour (red, green, blue) of a class; after the seventh they come again."""
    return CLASS_COLOURS[number % len(CLASS_COLOURS)]


@dataclass(frozen=True)
class Scale:
    """Colour scale of a heatmap: what its first and its last colour stand for, and the numbers beside its bar.

    Attributes:
        low: attention (probability of a cell) of the first colour; cells below it have that colour as well.
        high: likewise of the last.
        largest: attention of any cell.
        uniform: attention of every cell, if all that may be looked at had the same.
    """

    low: float
    high: float
    largest: float
    uniform: float

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
        high = max(high, low + 0.1 * float(values.mean()))
        return cls(low, high, float(attention.max()), 1 / len(values))

    @classmethod
    def over(cls, seen: Explanation) -> "Scale | None":
        """Of what was seen; None where there is no map."""
        return None if seen.attention is None or seen.cell_mask is None else cls.of(seen.attention, seen.cell_mask)

    def colour(
        self, attention: Float32[np.ndarray, "row column"], cell_mask: Bool[np.ndarray, "row column"]
    ) -> UInt8[np.ndarray, "row column 4"]:
        """RGBA of every cell: the less attention, the more transparent; wholly where the attention may not look."""
        place = np.clip((attention.astype(np.float64) - self.low) / (self.high - self.low), 0, 1)
        colours = _table()[np.rint(255 * place).astype(np.int64)]
        colours[:, :, 3] = np.rint(255 * (FAINTEST + (1 - FAINTEST) * place))
        return np.where(cell_mask[:, :, None], colours, np.uint8(0))

    def stops(self, count: int = 9) -> list[str]:
        """Colours at equal steps from low to high, as CSS writes them."""
        chosen = _table()[np.linspace(0, 255, count).round().astype(np.int64), :3]
        return ["#" + bytes(one.tolist()).hex() for one in chosen]


def _table() -> Shaped[np.ndarray, "256 4"]:
    from matplotlib import colormaps

    return np.array(colormaps[MAP](np.arange(256), bytes=True))


@dataclass(frozen=True)
class Rendering:
    """Rendering: how pixels in the unit range become colours; the same for an image and its patches.

    Attributes:
        bands: three of them as red, green and blue, or one as grey.
        low: what becomes black, by band.
        high: what becomes white, by band.
        stretched: whether these are the image's own percentiles instead of 0 and 1.
    """

    bands: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    stretched: bool

    @classmethod
    def of(
        cls, source: Source, view: Float32[np.ndarray, "height width channel"], chosen: Sequence[int | str]
    ) -> "Rendering":
        """8-bit grey and RGB as they are; anything else from its 1st to its 99th percentile, band by band.

        Arguments:
            source: the image.
            view: what it looks like small, in the unit range.
            chosen: the bands that a model uses, by number or name; all if empty.
        """
        bands = find_bands(source, chosen) or tuple(range(source.channels))
        bands = bands[:3] if len(bands) >= 3 else bands[:1]
        if source.dtype in (np.uint8, np.bool_) and source.channels in (1, 3, 4) and not chosen:
            return cls(bands, (0.0,) * len(bands), (1.0,) * len(bands), False)
        finite = np.nan_to_num(view[:, :, bands].reshape(-1, len(bands)), posinf=0, neginf=0)
        low, high = np.percentile(finite, (1, 99), axis=0)
        return cls(bands, tuple(low.tolist()), tuple(np.maximum(high, low + 1e-6).tolist()), True)

    def __call__(self, view: Float32[np.ndarray, "height width channel"]) -> UInt8[np.ndarray, "height width 3"]:
        """Colours of pixels in the unit range."""
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        scaled = np.nan_to_num((view[:, :, self.bands] - low) / (high - low), posinf=1, neginf=0).clip(0, 1)
        colours = np.floor(255 * scaled + 0.5).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))

    def patch(self, source: Source, box: Box, longest_side: int) -> UInt8[np.ndarray, "height width 3"]:
        """What lies in a box of an image, black beyond its border, at most so large.

        Arguments:
            source: the image.
            box: in its level-0 pixels.
            longest_side: of the result, in pixels.

        Raises:
            ImageError: if it cannot be read.
        """
        region = (float(box.top), float(box.left), float(box.bottom), float(box.right))
        return self(source.view(shrunk_size(box.size, longest_side), region))


def jpeg(pixels: UInt8[np.ndarray, "height width 3"], most_bytes: float = math.inf) -> bytes:
    """JPEG file, the best of at most so many bytes: of lower quality first, then smaller.

    Arguments:
        pixels: RGB.
        most_bytes: length it may have.
    """
    picture = Image.fromarray(pixels)
    while True:
        for quality in (88, 75, 60):
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=quality)
            if stream.tell() <= most_bytes or max(picture.size) <= 64:
                return stream.getvalue()
        picture = picture.resize(
            (max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)), Image.Resampling.BOX
        )


def png(pixels: UInt8[np.ndarray, "height width channel"]) -> bytes:
    """PNG file of RGB or RGBA pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=2)
    return stream.getvalue()


def shrunk(pixels: UInt8[np.ndarray, "_ _ 3"], longest_side: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Thumbnail of a picture: so large at most, in its own proportions and never enlarged."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest_side, longest_side))
    return np.asarray(picture)


def small_jpegs(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], most_bytes: int) -> list[bytes]:
    """JPEG files of at most so many bytes together, as large as that allows; of equal pictures only one is made.

    Arguments:
        pictures: RGB.
        most_bytes: length they may have, unless the smallest are longer.
    """
    keys = [pixels.tobytes() for pixels in pictures]
    distinct, made = dict(zip(keys, pictures, strict=True)), dict[bytes, bytes]()
    for side in (256, 160, 112, 80, 56):
        made = {key: jpeg(shrunk(pixels, side), most_bytes) for key, pixels in distinct.items()}
        if sum(len(made[key]) for key in keys) <= most_bytes:
            break
    return [made[key] for key in keys]


def coarse_map(
    attention: Float32[np.ndarray, "row column"], cell_mask: Bool[np.ndarray, "row column"], block: int
) -> tuple[Float32[np.ndarray, "rows columns"], Bool[np.ndarray, "rows columns"]]:
    """Heatmap of blocks of cells: the largest attention in each, and whether any of its cells may be looked at."""
    if block == 1:
        return attention, cell_mask
    missing = [(0, -side % block) for side in attention.shape]
    rows, columns = (-(-side // block) for side in attention.shape)
    padded = (np.pad(values, missing) for values in (np.where(cell_mask, attention, np.float32(0)), cell_mask))
    blocks, masks = (values.reshape(rows, block, columns, block) for values in padded)
    return blocks.max((1, 3)), np.asarray(masks.any((1, 3)))


def write_overlay(
    file: Path | io.BytesIO,
    seen: Explanation,
    picture: UInt8[np.ndarray, "height width 3"],
    scale: Scale | None,
) -> None:
    """Heatmap overlay: the map and the patches of the first draw over a picture of the image.

    Every pixel of the picture is a pixel of the result, from the top left corner; the colour bar stands to its right.
    A model without attention has its patches drawn alone, without a bar.

    Arguments:
        file: PNG to write.
        seen: what is drawn.
        picture: the whole image, at any size.
        scale: of the map's colours; None where there is no map.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    height, width = picture.shape[:2]
    bar = 0 if scale is None else BAR
    tall = max(height, 160 if bar else 1)
    figure = Figure(figsize=((width + bar) / DPI, tall / DPI), dpi=DPI)
    axes = figure.add_axes((0, 1 - height / tall, width / (width + bar), height / tall))
    axes.set_axis_off()
    axes.imshow(picture, extent=(0, seen.size[1], seen.size[0], 0), aspect="auto", interpolation="none")
    if scale is not None:
        _draw_map(figure, axes, seen, scale, width)
    for box in seen.regions:
        frame = Rectangle((box.left, box.top), box.width, box.height, fill=False, edgecolor="#ffd21e", linestyle="--")
        axes.add_patch(frame)
    for patch in seen.patches:
        if patch.draw == 0:
            box = patch.box
            corner = (box.left, box.top)
            axes.add_patch(Rectangle(corner, box.width, box.height, fill=False, edgecolor="black", linewidth=2.2))
            axes.add_patch(Rectangle(corner, box.width, box.height, fill=False, edgecolor="white", linewidth=1.0))
    axes.set_xlim(0, seen.size[1])
    axes.set_ylim(seen.size[0], 0)
    figure.savefig(file, dpi=DPI, format="png", pil_kwargs={"compress_level": 1})


def _draw_map(figure: Any, axes: Any, seen: Explanation, scale: Scale, width: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    assert seen.attention is not None
    assert seen.cell_mask is not None
    assert seen.extent is not None
    top, left, bottom, right = seen.extent
    colours = scale.colour(seen.attention, seen.cell_mask)
    axes.imshow(colours, extent=(left, right, bottom, top), aspect="auto", interpolation="nearest", alpha=0.5)
    tall = figure.get_figheight() * DPI
    above, below = max(44, 0.14 * tall), max(12, 0.06 * tall)  # room for its title, and for half a label
    place = (width + 14) / (width + BAR), below / tall, 18 / (width + BAR), (tall - above - below) / tall
    side = figure.add_axes(place)
    figure.colorbar(ScalarMappable(Normalize(scale.low, scale.high), MAP), cax=side, extend="both")
    side.tick_params(labelsize=7)
    side.set_title("attention\nof a cell", fontsize=7, loc="left")
