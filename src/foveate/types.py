"""The vocabulary: the words every other module speaks, each with its shape and its unit.

Rows come before columns everywhere: a size is (height, width), a point (row, column), a box (top, left, height,
width). Letters in shapes: B images in a batch, K cells of an attention map, n cells drawn per image, D features.
Nothing here imports torch when the program runs.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from jaxtyping import Bool, Float, Float64, Int
    from torch import Tensor

    from foveate.images import Source

__all__ = [
    "Affine",
    "Batch",
    "Box",
    "Draw",
    "Example",
    "ImageDataset",
    "Label",
    "Level",
    "Output",
    "Prediction",
    "Receipt",
    "Size",
]

Size = tuple[int, int]
"""(height, width), in pixels of the level it is said of."""

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): the point (row, column) lies at x = a·column + b·row + c, y = d·column + e·row + f."""

Label = int | tuple[int, ...]
"""Index of an image's class; with several labels, the sorted indices of all classes it has, which may be none."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; it may hang over the border of its image, where it reads as fill.

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


@dataclass(frozen=True)
class Level:
    """One resolution of an image.

    Attributes:
        size: (height, width) in pixels of this level.
        factor: level-0 pixels per pixel of this level, (down the rows, along the columns); exact, so 4.0001 is not 4.
    """

    size: Size
    factor: tuple[float, float]


@dataclass(frozen=True)
class Example:
    """One row of a data set.

    Attributes:
        id: what names the image in draws, splits and reports: unique in its data set, independent of row order.
        label: index of its class (several labels: the sorted indices of its classes), or None where it is unknown.
        split: "train", "validation", "test" or None where no split is given.
        group: what must not be split (a patient, a scene); None makes every image a group of its own.
    """

    id: str
    label: Label | None
    split: str | None = None
    group: str | None = None


class ImageDataset(Protocol):
    """What training, evaluation and prediction ask of a data set.

    One that also knows what lies where has a method `objects(index)`, which gives the class and the `Box` of every
    object of an example, in level-0 pixels of its file; evaluation then says how many of them were covered.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; an example's label is an index into them."""
        ...

    @property
    def multi_label(self) -> bool:
        """Whether an example's label is a tuple of classes, any number of them, instead of one."""
        ...

    @property
    def examples(self) -> "Sequence[Example]":
        """One per image, in a fixed order."""
        ...

    def open(self, index: int) -> "Source":
        """The image of example `index`; cheap, it reads no pixel."""
        ...


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
    """

    index: "Int[Tensor, 'batch draw']"
    log_prob: "Float[Tensor, 'batch draw']"
    weight: "Float64[Tensor, 'batch draw']"
    valid: "Bool[Tensor, 'batch draw']"
    log_rest: "Float64[Tensor, ' batch']"
    threshold: "Float64[Tensor, ' batch'] | None"
    method: str
    log_proposal: "Float64[Tensor, 'batch draw']"


@dataclass(frozen=True)
class Batch:
    """Images as a model sees them before it looks anywhere in full resolution.

    Attributes:
        views: (B, C, h, w) float32 low-resolution views in the unit range, padded with zeros below and to the right.
        mask: (B, h, w) True where the attention may look: inside the image, and where no mask says otherwise.
        sources: the B images at full resolution.
        seeds: B integers that determine every draw made for the image.
        view_sizes: B (height, width) of the views without padding; taken from the mask's extent if empty.
        labels: (B,) class indices; with several labels (B, classes), 1 for a class the image has and 0 else; or None.
        ids: B image ids, or empty.
        prior: (B, h, w) log weights known before any attention, 0 where nothing speaks against looking; None if
            nowhere does anything.
    """

    views: "Float[Tensor, 'batch channel height width']"
    mask: "Bool[Tensor, 'batch height width']"
    sources: "tuple[Source, ...]"
    seeds: tuple[int, ...]
    view_sizes: tuple[Size, ...] = ()
    labels: "Int[Tensor, ' batch'] | Float[Tensor, 'batch class'] | None" = None
    ids: tuple[str, ...] = ()
    prior: "Float[Tensor, 'batch height width'] | None" = None

    def __post_init__(self) -> None:
        if not self.view_sizes:
            object.__setattr__(self, "view_sizes", tuple(_extent(row) for row in self.mask))

    def __len__(self) -> int:
        return len(self.sources)

    def to(self, device: "torch.device | str", non_blocking: bool = False) -> "Batch":
        """The same batch with its tensors on `device`."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch with its tensors in page-locked memory."""
        return self._changed(lambda tensor: tensor.pin_memory())

    def _changed(self, change: "Callable[[Tensor], Tensor]") -> "Batch":
        tensors = {name: getattr(self, name) for name in ("views", "mask", "labels", "prior")}
        changed: dict[str, Any] = {name: None if one is None else change(one) for name, one in tensors.items()}
        return replace(self, **changed)


def _extent(mask: "Bool[Tensor, 'height width']") -> Size:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return (int(rows[-1]) + 1, int(columns[-1]) + 1) if len(rows) else (mask.shape[0], mask.shape[1])


@dataclass(frozen=True)
class Output:
    """What a model says of a batch, and where it looked.

    With `samples` = s > 1, `draw`, `boxes` and `features` have B·s rows, the s draws of an image side by side.

    Attributes:
        logits: (B, classes); softmax (several labels: the sigmoid) gives the class probabilities, averaged over the
            samples, if several.
        attention: (B, rows, columns) probabilities over the cells of the attention map, 0 where masked; or None.
        draw: the cells drawn; or None.
        boxes: (B·s, n, 4) int64 top, left, height, width of the patches read, in level-0 pixels; or None.
        features: (B·s, n, D) features of the patches read; or None.
        read: (B·s, n) which of `boxes` were read: False for slots left over and for a smaller image's missing cells; or
            None, where there are no boxes.
        cell_mask: (B, rows, columns) True for the cells of the map that may be looked at; or None, as the attention.
        seconds: wall-clock time by stage: "attention", "draw", "read", "features", "classify".
    """

    logits: "Float[Tensor, 'batch class']"
    attention: "Float[Tensor, 'batch row column'] | None" = None
    draw: Draw | None = None
    boxes: "Int[Tensor, 'rows draw 4'] | None" = None
    features: "Float[Tensor, 'rows draw feature'] | None" = None
    read: "Bool[Tensor, 'rows draw'] | None" = None
    cell_mask: "Bool[Tensor, 'batch row column'] | None" = None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Receipt:
    """What something cost, and what it would have cost to look at everything.

    Attributes:
        patches: full-resolution patches read.
        patches_of: patches of that size, side by side, that would cover everything; None where none are read.
        bytes_read: bytes read from files (or memory), views included.
        bytes_of: bytes of the files; None where there is no file, or its size is not known.
        seconds: wall-clock time by stage: "open", "view", "attention", "draw", "read", "features", "classify"; what is
            left of the whole is "other".
        peak_memory: most memory the process has held so far, resident, in bytes; None where that is not known.
    """

    patches: int
    patches_of: int | None
    bytes_read: int
    bytes_of: int | None
    seconds: dict[str, float]
    peak_memory: int | None


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image, with its receipt.

    Attributes:
        path: where the image came from, or "" for an array.
        predicted: name of the most probable class; with several labels, those of probability ½ or more, joined by |.
        probabilities: class name → probability; they sum to 1, unless there are several labels.
        patches: number of full-resolution patches read.
        bytes_read: bytes read from the image's file (or memory), views included.
        seconds: wall-clock time, opening included.
        boxes: the patches read, in level-0 pixels of the file.
        receipt: what it cost, in detail.
    """

    path: str
    predicted: str
    probabilities: dict[str, float]
    patches: int
    bytes_read: int
    seconds: float
    boxes: tuple[Box, ...] = field(default=(), repr=False)
    receipt: Receipt | None = field(default=None, repr=False)
