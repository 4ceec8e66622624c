"""What an image of any bands and type looks like on a screen."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from foveate.images import Source
from foveate.types import Box, Size

__all__ = ["Rendering", "jpeg", "png", "thumbnail_size"]


@dataclass(frozen=True)
class Rendering:
    """How pixels in the unit range become colours; the same for an image and its patches.

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
        cls, source: Source, view: Float32[np.ndarray, "height width channel"], chosen: Sequence[int]
    ) -> "Rendering":
        """8-bit grey and RGB as they are; anything else from its 1st to its 99th percentile, band by band.

        Arguments:
            source: the image.
            view: what it looks like small, in the unit range.
            chosen: the bands that a model uses, all if empty.
        """
        bands = tuple(chosen) or tuple(range(source.channels))
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
        return self(source.view(thumbnail_size(box.size, longest_side), region))


def thumbnail_size(size: Size, longest_side: int) -> Size:
    """(height, width) of something small enough, in its own proportions and never enlarged.

    Example:
        >>> thumbnail_size((300, 1000), 100), thumbnail_size((30, 40), 100)
        ((30, 100), (30, 40))
    """
    longest = max(size)
    if longest <= longest_side:
        return size
    rows, columns = (max(1, (2 * side * longest_side + longest) // (2 * longest)) for side in size)
    return rows, columns


def jpeg(pixels: UInt8[np.ndarray, "height width 3"], most_bytes: int) -> bytes:
    """The best JPEG file of at most so many bytes: of lower quality first, then smaller.

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
    """A PNG file of RGB or RGBA pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=2)
    return stream.getvalue()
