"""Settings of what becomes of patches: how their features are pooled and classified; grids of which all are read.

The string under each field is its help text. Nothing here imports torch.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class HeadSettings:
    """Head, which turns the features of patches, or of a view, into the classes, or into a number.

    Example:
        >>> HeadSettings(pool="cross-attention").heads
        8
    """

    pool: Literal["mean", "cross-attention"] = "mean"
    """"mean" is the importance-weighted mean of the patches' features, an unbiased estimate; "cross-attention" lets a
    learnt query look at them together, and is none (docs/heads.md). For models that draw patches."""
    heads: int = 8
    """Heads of the cross-attention, each as wide as the features over their number, rounded up."""
    hidden: int = 0
    """Width of the feed-forward layer after it; four times that of the features if 0."""
    dropout: float = 0.0
    """Dropout of the cross-attention and of its layers, in training."""
    kind: Literal["classes", "ordinal", "number"] = "classes"
    """"classes" are any; "ordinal" are grades, of which each is further than the one before; "number" answers with a
    number, such as a count or an age, and labels are numbers (docs/heads.md)."""
    huber: float | None = None
    """With "number": the error, in standard deviations of the training labels, above which an image counts by its error
    and no longer by the square of it; squares alone if None."""
    order: tuple[str, ...] = ()
    """Names of the grades, the lowest first; as the data have the classes, numbers by their size, if empty."""

    @property
    def numeric(self) -> bool:
        """Whether labels and answers are numbers."""
        return self.kind == "number"


@dataclass(frozen=True)
class MilSettings:
    """Models that read every patch of a grid, Deep MIL and ips: what is particular to them."""

    pooling: Literal["attention", "gated"] = "attention"
    """Attention over the patches' features: tanh alone, or gated by a sigmoid."""
    hidden: int = 128
    """Width of the attention's hidden layer."""
    stride: int | None = None
    """Full-resolution pixels between two patches; None lays them side by side, a patch's sides apart."""
    memory: Literal["plain", "chunked"] = "plain"
    """"plain" keeps all activations for the backward pass, as published; "chunked" computes them again, chunk by chunk,
    and needs memory for one chunk only."""
    chunk: int = 64
    """Patches worked on at a time where activations are not kept: in prediction, and in training if "chunked", or where
    patches are chosen (ips)."""
    positions: bool = False
    """Whether patches are told apart by where they lie (ips): sines and cosines of row and column beside features."""
