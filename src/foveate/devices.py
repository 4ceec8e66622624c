"""Devices: the one rule for where to compute; and the CPU's memory allocator, which keeps what a tensor leaves."""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from foveate.errors import ConfigError

if TYPE_CHECKING:
    import torch

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Kinds of accelerator without float64, in which draws and their weights are computed: never chosen, and refused."""

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Names of the C library's parameters (glibc's malloc.h, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_MMAP_MAX)."""

KEPT = 2**30
"""Bytes at the end of the heap that may lie unused before they are given back."""

OWN_MAPPING = 2**25
"""Bytes above which a block is mapped for itself and given back when freed: the most that glibc lets one say."""

MAPPINGS = 65536
"""Blocks at most that are mapped for themselves, as glibc has it."""

CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables of the environment by which a user sets this himself."""


def best_device() -> "torch.device":
    """The accelerator of this machine, if it has one with float64; the CPU if not."""
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if device is None or device.type in WITHOUT_FLOAT64 else device


def choose_device(name: str, local: int | None = None) -> "torch.device":
    """The device a user asked for.

    Arguments:
        name: "auto" (an accelerator, or the CPU; see `best_device`), "cpu", "cuda", "cuda:1" …
        local: number of this process among those on this machine, which share its accelerators out where it is "auto";
            None if it is alone.

    Returns:
        The device.

    Raises:
        ConfigError: if this machine, or this build of torch, does not have it, or it has no float64.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    import torch

    if name == "auto":
        best = best_device()
        if local is None or best.type == "cpu":
            return best
        own = torch.device(best.type, local % torch.accelerator.device_count())
        if own.type == "cuda":
            torch.cuda.set_device(own)  # for what names no device, such as pinned memory
        return own
    try:
        device = torch.device(name)
        if device.type in WITHOUT_FLOAT64:
            raise ConfigError(
                f"device {name!r} has no float64, in which foveate draws and weighs patches: use auto or cpu"
            )
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}): use auto or cpu") from error
    return device


def let_waiting_threads_sleep() -> bool:
    """OpenMP wait policy: threads of torch that have nothing to do sleep, and leave their cores to those that read.

    Left alone, they go on asking for work, on cores that decoding threads, or other programs, could use: where there
    are no cores to spare, a training step takes up to twice as long (docs/performance.md). OpenMP looks at this once,
    when torch is imported: it must be called before. The command line does it for every verb; a program that imports
    foveate may set OMP_WAIT_POLICY=PASSIVE in its environment.

    Returns:
        Whether it was done: False where torch is there already, or the environment says what to do.
    """
    if "torch" in sys.modules or any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")):
        return False
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return True


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
    done = _told(TRIM_THRESHOLD, KEPT) and _told(MMAP_THRESHOLD, OWN_MAPPING)
    if done:
        _keeping.set()
    return done


@contextmanager
def keeping_large_blocks() -> Iterator[None]:
    """Context in which blocks of any size are kept, where `keep_freed_memory` was called: for networks on large inputs.

    glibc maps blocks above `OWN_MAPPING` for themselves, whatever it is told, unless it maps none; outside the context
    it does, so that the memory of a large image that was decoded is given back. Contexts are not put inside each other.

    Example:
        >>> with keeping_large_blocks():
        ...     pass
    """
    if not _keeping.is_set():
        yield
        return
    _told(MMAP_MAX, 0)
    try:
        yield
    finally:
        _told(MMAP_MAX, MAPPINGS)


_keeping = threading.Event()
"""Set once this process keeps freed memory: what the C library was told cannot be asked of it."""


def _told(parameter: int, value: int) -> bool:
    """Whether the C library took a value of one of its parameters."""
    if not sys.platform.startswith("linux") or any(name in os.environ for name in CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # musl has none
    return bool(mallopt(parameter, value))
