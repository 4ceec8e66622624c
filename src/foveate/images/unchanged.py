"""Sources that leave the pixels of another one as they are, and say more about them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Shaped

from foveate.images.average import Region
from foveate.images.header import Header
from foveate.images.wrapper import Wrapper
from foveate.types import Box, Size

__all__ = ["Unchanged"]


class Unchanged(Wrapper):
    """A source with the pixels, levels and header of another one.

    Arguments:
        source: the other one.
    """

    def _measure(self) -> Header:
        return self.source.header

    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width channel"]:
        return self.source.read(box, level)

    def _fetch_many(
        self, boxes: Sequence[Box], level: int, threads: int
    ) -> Sequence[Shaped[np.ndarray, "height width channel"]]:
        return self.source.read_many(boxes, level, threads)

    def _view(self, size: Size, region: Region, window: Box) -> Float64[np.ndarray, "rows columns channel"]:
        return self.source._view(size, region, window)
