"""What a receipt counts, and what it compares with."""

import sys

from foveate.types import Size

__all__ = ["covering", "peak_memory"]


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
