"""Receipts of time, memory and patches read: stopwatch, peak memory, and the line they are told in."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from foveate.models.types import Receipt
from foveate.types import Size


class Stages:
    """Stopwatch with named stages; a stage that comes again adds up.

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
    """Number of patches, side by side, that would cover an image.

    Arguments:
        size: (height, width) of the image, in pixels.
        patch: (height, width), likewise.

    Example:
        >>> covering((1500, 1490), (50, 100))
        450
    """
    return -(-size[0] // patch[0]) * -(-size[1] // patch[1])


def peak_memory() -> int | None:
    """Peak memory: most that this process has held resident so far, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class Resident:
    """Resident memory of this process, watched from a thread, every 2 ms: a shorter peak is missed.

    Example:
        >>> with Resident() as resident:
        ...     block = bytearray(10**8)
        >>> resident.peak >= resident.growth >= 0
        True
    """

    def __enter__(self) -> "Resident":
        import psutil

        self._process = psutil.Process()
        self._before = self._most = self._process.memory_info().rss
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        """Bytes more than at the start, at most."""
        return int(self._most - self._before)

    @property
    def peak(self) -> int:
        """Bytes, at most."""
        return int(self._most)

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self._most = max(self._most, self._process.memory_info().rss)


def complete_receipt(receipt: Receipt, seconds: float) -> Receipt:
    """Receipt with a stage "other": what the others do not account for of so many seconds."""
    other = max(0.0, seconds - sum(receipt.seconds.values()))
    return replace(receipt, seconds=receipt.seconds | {"other": other})


def add_receipts(one: Receipt, other: Receipt) -> Receipt:
    """Receipt of two things together; what is not known of one is not known of both."""

    def total(name: str) -> int | None:
        first, second = getattr(one, name), getattr(other, name)
        return None if first is None or second is None else first + second

    stages = one.seconds | other.seconds
    return Receipt(
        patches=one.patches + other.patches,
        patches_of=total("patches_of"),
        bytes_read=one.bytes_read + other.bytes_read,
        bytes_of=total("bytes_of"),
        seconds={name: one.seconds.get(name, 0.0) + other.seconds.get(name, 0.0) for name in stages},
        peak_memory=max(one.peak_memory or 0, other.peak_memory or 0) or None,
    )


def receipt_line(receipt: Receipt) -> str:
    """Receipt as one line of text; a part is said to be one of a whole only where it is no more than that.

    Patches overlap, several draws repeat them, and readers may count pixels where a file holds fewer bytes.

    Arguments:
        receipt: of one image or of many.

    Example:
        >>> receipt_line(Receipt(10, 900, 2000, 10**6, {"read": 0.5, "other": 0.25}, 3 * 10**8))
        '10 of 900 patches · 0.002 of 1 MB (0.2 %) · 0.75 s: read 0.50, other 0.25 · peak memory 300 MB'
        >>> receipt_line(Receipt(120, 108, 3_650_000, 10**6, {}, None))
        '120 patches, where 108 would cover everything · 3.65 MB, of files of 1 MB · 0.00 s'
    """
    parts = ["no patches"]
    if receipt.patches_of:
        within = receipt.patches <= receipt.patches_of
        whole = f"{receipt.patches_of:,}"
        told = f"of {whole} patches" if within else f"patches, where {whole} would cover everything"
        parts = [f"{receipt.patches:,} {told}"]
    read = f"{receipt.bytes_read / 1e6:.4g}"
    if receipt.bytes_of and receipt.bytes_read <= receipt.bytes_of:
        share = 100 * receipt.bytes_read / receipt.bytes_of
        parts.append(f"{read} of {receipt.bytes_of / 1e6:.4g} MB ({share:.3g} %)")
    else:
        parts.append(f"{read} MB" + (f", of files of {receipt.bytes_of / 1e6:.4g} MB" if receipt.bytes_of else ""))
    stages = ", ".join(f"{stage} {spent:.2f}" for stage, spent in receipt.seconds.items())
    parts.append(f"{sum(receipt.seconds.values()):.2f} s" + (f": {stages}" if stages else ""))
    if receipt.peak_memory is not None:
        parts.append(f"peak memory {receipt.peak_memory / 1e6:.0f} MB")
    return " · ".join(parts)
