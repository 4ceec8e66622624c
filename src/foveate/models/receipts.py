"""What a receipt counts, what it compares with, and how it is written in a line."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from foveate.models.types import Receipt
from foveate.types import Size

__all__ = ["Stages", "complete_receipt", "covering", "peak_memory", "receipt_line"]


class Stages:
    """A stopwatch with named stages; a stage that comes again adds up.

    On a GPU, which works on while the program goes on, the time falls to the stage that waits for it.

    Attributes:
        seconds: stage → seconds, in order of first use.

    Example:
        >>> stages = Stages()
        >>> with stages("read"):
        ...     pass
        >>> list(stages.seconds)
        ['read']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def covering(size: Size, patch: Size) -> int:
    """Patches, side by side, that would cover an image.

    Arguments:
        size: (height, width) of the image, in pixels.
        patch: (height, width), likewise.

    Example:
        >>> covering((1500, 1490), (50, 100))
        450
    """
    return -(-size[0] // patch[0]) * -(-size[1] // patch[1])


def peak_memory() -> int | None:
    """Most memory this process has held resident so far, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def complete_receipt(receipt: Receipt, seconds: float) -> Receipt:
    """The receipt with a stage "other": what the others do not account for of so many seconds."""
    other = max(0.0, seconds - sum(receipt.seconds.values()))
    return replace(receipt, seconds=receipt.seconds | {"other": other})


def receipt_line(receipt: Receipt) -> str:
    """A receipt in a line.

    Arguments:
        receipt: of one image or of many.

    Example:
        >>> receipt_line(Receipt(10, 900, 2000, 10**6, {"read": 0.5, "other": 0.25}, 3 * 10**8))
        '10 of 900 patches · 0.002 of 1 MB (0.2 %) · 0.75 s: read 0.50, other 0.25 · peak memory 300 MB'
    """
    parts = [f"{receipt.patches:,} of {receipt.patches_of:,} patches" if receipt.patches_of else "no patches"]
    if receipt.bytes_of:
        share = 100 * receipt.bytes_read / receipt.bytes_of
        parts.append(f"{receipt.bytes_read / 1e6:.4g} of {receipt.bytes_of / 1e6:.4g} MB ({share:.3g} %)")
    else:
        parts.append(f"{receipt.bytes_read / 1e6:.4g} MB")
    stages = ", ".join(f"{stage} {spent:.2f}" for stage, spent in receipt.seconds.items())
    parts.append(f"{sum(receipt.seconds.values()):.2f} s: {stages}")
    if receipt.peak_memory is not None:
        parts.append(f"peak memory {receipt.peak_memory / 1e6:.0f} MB")
    return " · ".join(parts)
