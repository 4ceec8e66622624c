"""Settings of zooming: how attention goes down from the view to ever finer levels of an image.

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
