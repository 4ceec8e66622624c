"""What is known of where to look: no data, masks and tissue, as masks of the attention or as its prior."""

import numpy as np
from jaxtyping import Bool, Float32

from foveate.images.average import Region
from foveate.images.source import Source
from foveate.images.tissue import find_tissue
from foveate.images.unchanged import Unchanged
from foveate.settings import GuideSettings
from foveate.types import Size

__all__ = ["Guided"]


class Guided(Unchanged):
    """An image that says where to look, and how strictly; pixels stay as they are.

    Arguments:
        source: the image, before its colours are changed.
        settings: whether missing data, masks and what is no tissue are masked, discouraged or ignored.
    """

    def __init__(self, source: Source, settings: GuideSettings) -> None:
        super().__init__(source)
        self.settings = settings

    def guide(self, size: Size, region: Region | None = None) -> Float32[np.ndarray, "rows columns"] | None:
        """Log weights of the cells of a view: −inf where masked, −strength for each thing that speaks against looking.

        Where no tissue is found, nothing is said of it.

        Arguments:
            size: (rows, columns) of the view.
            region: as in `view`.

        Raises:
            ImageError: if the image or its mask cannot be read.
        """
        settings = self.settings
        known: list[tuple[str, Bool[np.ndarray, "rows columns"] | None]] = []
        if settings.given != "ignore":
            known.append((settings.given, self.source.valid(size, region)))
        if settings.tissue != "ignore":
            known.append((settings.tissue, find_tissue(self.source.view(size, region))))
        weights = None
        for use, good in known:
            if good is not None:
                part = np.where(good, 0, -np.inf if use == "mask" else -settings.strength).astype(np.float32)
                weights = part if weights is None else weights + part
        return weights
