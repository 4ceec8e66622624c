"""Memory allocator: what the C library does with freed memory, which it keeps for the next tensor."""

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of two of the C library's parameters (glibc's malloc.h, M_TRIM_THRESHOLD and M_MMAP_THRESHOLD)."""

KEPT = 2**30
"""Bytes at the end of the heap that may lie unused before they are given back."""

OWN_MAPPING = 2**25
"""Bytes above which a block is mapped for itself and given back when freed: the most that glibc lets one say."""

CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables of the environment by which a user sets this himself."""


def keep_freed_memory() -> bool:
    """Let the C library keep memory that a tensor leaves, up to 1 GiB, for the tensors of the next step.

    Left alone, glibc gives every block of more than a few megabytes back to the system when it is freed, and the
    system hands out zeroed pages, one fault at a time, when the next step asks for the same again: on a CPU that is a
    good part of a training step (benchmarks/freed_memory.py). The command line does this for every verb; a program
    that imports foveate may do it once at its start. It holds for the whole process, GPU memory apart.

    Returns:
        Whether it was done: False where the C library is not glibc, or the environment already says what to do.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # musl has none
    return bool(mallopt(TRIM_THRESHOLD, KEPT)) and bool(mallopt(MMAP_THRESHOLD, OWN_MAPPING))
