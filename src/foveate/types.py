"""Vocabulary types: boxes, levels, draws and labels, the words every module speaks, each with its shape and unit.

Rows come before columns everywhere: a size is (height, width), a point (row, column), a box (top, left, height,
width). Letters in shapes: B images in a batch, K cells of an attention map, n cells drawn per image, D features.
Nothing here imports torch when the program runs.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64, Int
    from torch import Tensor


Size = tuple[int, int]
"""(height, width), in pixels of the level it is said of."""

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): the point (row, column) lies at x = a·column + b·row + c, y = d·column + e·row + f."""

Label = int | tuple[int, ...] | float
"""Index of an image's class; with several labels, the sorted indices of all classes it has, which may be none; or,
where an image has no class but a number, that, as a float."""


@dataclass(frozen=True)
class Box:
    """Rectangle of pixels; it may hang over the border of its image, where it reads as fill.

    Attributes:
        top: first row, in pixels of the level it is said of (level 0 unless said otherwise); may be negative.
        left: first column, likewise.
        height: number of rows, at least 1.
        width: number of columns, at least 1.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The row after the last one."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The column after the last one."""
        return self.left + self.width

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.height, self.width

    def within(self, top: int, left: int, bottom: int, right: int) -> "Box | None":
        """The part of it that lies in rows top … bottom−1 and columns left … right−1; None if nothing does."""
        top, left = max(self.top, top), max(self.left, left)
        bottom, right = min(self.bottom, bottom), min(self.right, right)
        return Box(top, left, bottom - top, right - left) if top < bottom and left < right else None

    def place_in(self, other: "Box") -> tuple[slice, slice]:
        """Rows and columns that it takes in the pixels of a box that it lies in."""
        top, left = self.top - other.top, self.left - other.left
        return slice(top, top + self.height), slice(left, left + self.width)


@dataclass(frozen=True)
class Level:
    """Resolution level of an image.

    Attributes:
        size: (height, width) in pixels of this level.
        factor: level-0 pixels per pixel of this level, (down the rows, along the columns); exact, so 4.0001 is not 4.
    """

    size: Size
    factor: tuple[float, float]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds: nodes κ_m of their distribution given the set of drawn cells, q_s the chance to lie above one.

    Attributes:
        probability: (B, M) weight of each node; sums to 1.
        inverse: (B, n, M) 1/q_s at each node, divided by exp(log_scale).
        log_scale: (B, n) log of a factor that 1/q_s is too large for; 0 but for cells of relative mass below e^−50.
    """

    probability: "Float64[Tensor, 'batch node']"
    inverse: "Float64[Tensor, 'batch draw node']"
    log_scale: "Float64[Tensor, 'batch draw']"


@dataclass(frozen=True)
class Draw:
    """Cells drawn from an attention distribution, and what each of them stands for.

    Attributes:
        index: (B, n) cell numbers, row-major over the map, in order of draw; always valid indices.
        log_prob: (B, n) log attention of the drawn cells; carries the gradient of the attention.
        weight: (B, n) float64 importance weights w with E[Σ_t 1{I_t = i} w_t] = 1; 0 where not valid; detached
            (except for method "top").
        valid: (B, n) False for slots left over because an image has fewer than n cells; these are never read.
        log_rest: (B,) float64 log mass not drawn, under the distribution drawn from; −inf if nothing is left.
        threshold: (B,) float64 κ, the (n+1)-th Gumbel key; None where the method has none, −inf if nothing is left.
        method: "iid", "des_raj", "priority", "murthy", "uniform" or "top".
        log_proposal: (B, n) float64 log probability of the drawn cells under the distribution drawn from.
        nodes: nodes of the threshold's distribution given the cells drawn, of which Murthy's weights were made; a
            baseline uses them again. None for the other methods.
        checks: (B, 8) what an accelerator has worked out of the distributions and nobody has looked at yet, which
            `foveate.sampling.fetch` does; None if all has been checked.
    """

    index: "Int[Tensor, 'batch draw']"
    log_prob: "Float[Tensor, 'batch draw']"
    weight: "Float64[Tensor, 'batch draw']"
    valid: "Bool[Tensor, 'batch draw']"
    log_rest: "Float64[Tensor, ' batch']"
    threshold: "Float64[Tensor, ' batch'] | None"
    method: str
    log_proposal: "Float64[Tensor, 'batch draw']"
    nodes: Thresholds | None = None
    checks: "Float64[Tensor, 'batch check'] | None" = None
