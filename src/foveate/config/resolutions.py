"""Settings of several resolutions: how attention zooms in, level by level, and how large what a patch shows may be.

The string under each field is its help text. Nothing here imports torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ZoomSettings:
    r"""Zoom: attention level by level, each within the regions that the level above has chosen.

    .. math:: a(\text{patch}) = \prod_l a_l(\text{cell}_l \mid \text{region}_{l-1})

    Level 0 is the view (`model.view`); every further level is `scale` times as fine. A cell of a level, which is
    `model.attention.stride` of its pixels wide, is a region of the next one, where it has scale × scale cells. Of the
    last level a cell is what a patch is read for. With views of at most 512 pixels, 3 levels and a scale of 8, the
    last level of an image of 32,768² is the image itself; some 10 patches look at 11 regions a level.

    Example:
        >>> ZoomSettings(levels=3, scale=(8, 4)).factors
        (8, 4)
        >>> ZoomSettings(levels=3).factors
        (4, 4)
    """

    levels: int = 2
    """Levels of attention, 2 to 4: the view, and the regions that are looked at more closely."""
    scale: tuple[int, ...] = (4,)
    """How many times as fine as the level above a level is: one number for every step, or one for each."""
    margin: int = 1
    """Cells around a region that its attention network sees as well, and gives no attention to."""
    shared: bool = False
    """Whether all levels have the attention network of the view; else each has one of its own."""

    @property
    def factors(self) -> tuple[int, ...]:
        """`scale` of every step from a level to the next."""
        return self.scale if len(self.scale) != 1 else self.scale * (self.levels - 1)


@dataclass(frozen=True)
class ScaleSettings:
    r"""Scales: how many times as large as `model.patch` what a patch shows may be, which is drawn with where it lies.

    .. math:: a(\text{cell}, \text{scale}) = a(\text{cell}) \, a(\text{scale} \mid \text{cell})

    What is larger is read from the level of the file that is just fine enough, and averaged down to `model.patch`
    pixels: every patch costs the feature network the same.

    Example:
        >>> ScaleSettings((1, 2.5)).sizes((20, 31))
        ((20, 31), (50, 78))
    """

    factors: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Sides of what a patch shows, in those of `model.patch`; ascending, the first at least 1."""
    shared: bool = True
    """Whether one feature network serves all scales; else each has one of its own."""

    def sizes(self, patch: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """(height, width) of what a patch shows at every scale, in full-resolution pixels, halves rounded up."""
        return tuple((int(patch[0] * factor + 0.5), int(patch[1] * factor + 0.5)) for factor in self.factors)
