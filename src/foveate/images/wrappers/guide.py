"""Attention guide of an image: missing data, its mask, and tissue, which is what is coloured on a slide."""

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from foveate.config.settings import GuideSettings
from foveate.images.area import Region
from foveate.images.source import Source
from foveate.images.wrappers.base import Unchanged
from foveate.types import Box, Size

LEAST_DIFFERENCE = 0.03
"""Tissue is more saturated than glass by this at least, on average; where the difference is less, both are glass."""

LEAST_SHARE = 1e-3
"""Where less of the view than this is coloured, no tissue is found: dust, or a slide that was not stained."""

BINS = 256
"""Of the histogram of saturation."""


class Guided(Unchanged):
    """Attention guide: an image that says where to look, and how strictly; pixels stay as they are.

    Arguments:
        source: the image, before its colours are changed.
        settings: whether missing data, masks and what is no tissue are masked, discouraged or ignored.
    """

    _made_with = ("settings",)

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
            known.append((settings.tissue, self._tissue(size, region or (0, 0, *self.size))))
        weights = None
        for use, good in known:
            if good is not None:
                part = np.where(good, 0, -np.inf if use == "mask" else -settings.strength).astype(np.float32)
                weights = part if weights is None else weights + part
        return weights

    def _tissue(self, size: Size, region: Region) -> Bool[np.ndarray, "rows columns"] | None:
        sums, share = self.source.average_of(size, region, Box(0, 0, *self.size))
        view = self.source.filled((sums, share), size, region)
        return find_tissue(view, None if share is None else share.min(2) >= 0.5)


def find_tissue(
    view: Float[np.ndarray, "rows columns channel"], data: Bool[np.ndarray, "rows columns"] | None = None
) -> Bool[np.ndarray, "rows columns"] | None:
    r"""Tissue mask by colour: saturation above Otsu's threshold, small holes closed and specks left out.

    .. math:: s = \max_c x_c - \min_c x_c, \qquad t = \arg\max_t \; w_0(t)\, w_1(t)\, (\mu_0(t) - \mu_1(t))^2

    Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Transactions on Systems, Man, and Cybernetics
    1979. It is a guess: fat and pale tissue may fall below the threshold, and coloured pen above it.

    Arguments:
        view: (rows, columns, 3) in the unit range.
        data: False where most of a cell is missing data, which has no say in the threshold and is no tissue.

    Returns:
        (rows, columns) True where there is tissue; None if the view is not RGB, or hardly anything on it is coloured.

    Example:
        >>> view = np.full((20, 30, 3), 0.9)
        >>> view[5:15, 10:20] = (0.7, 0.3, 0.6)
        >>> find_tissue(view).sum()
        np.int64(100)
    """
    if view.shape[2] != 3:
        return None
    from scipy import ndimage

    pixels = np.nan_to_num(np.asarray(view, np.float64))
    saturation = pixels.max(2) - pixels.min(2)
    known = saturation if data is None else saturation[data]
    threshold = _otsu(known)
    above = known > threshold
    if not above.any() or known[above].mean() - known[~above].mean() < LEAST_DIFFERENCE:
        return None
    coloured = saturation > threshold if data is None else (saturation > threshold) & data
    closed = ndimage.binary_closing(np.pad(coloured, 2, mode="edge"))
    # what is more than a speck, in its own outline
    found: Bool[np.ndarray, "rows columns"] = ndimage.binary_propagation(ndimage.binary_opening(closed), mask=closed)
    found = found[2:-2, 2:-2]
    found = found if data is None else found & data
    return found if found.mean() > LEAST_SHARE * (1 if data is None else data.mean()) else None


def _otsu(values: Float64[np.ndarray, "*some"]) -> float:
    """Otsu's threshold between two classes of values that makes their means differ most, weighted by their shares."""
    counts, edges = np.histogram(values, BINS, (0.0, 1.0))
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    low, high = sums / np.maximum(below, 1), (sums[-1] - sums) / np.maximum(above, 1)
    between = below * above * np.square(low - high)
    best = np.flatnonzero(between == between.max())
    return float(edges[1:][int(best.mean())])
