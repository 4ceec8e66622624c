"""Libraries that a reader needs and a plain installation lacks."""

import importlib
from typing import Any

from foveate.errors import ImageError

__all__ = ["installed", "library"]

EXTRAS = {"openslide": "openslide", "pyvips": "vips", "zarr": "zarr", "rasterio": "geo", "fsspec": "remote"}
"""Module: the extra that installs it."""


def library(module: str, name: str) -> Any:
    """An optional library, imported now.

    Arguments:
        module: what to import.
        name: of the image that needs it.

    Raises:
        ImageError: it is not installed; the line says how to install it.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError):  # OSError: the Python part is there, the C library is not
        root = module.partition(".")[0]
        raise ImageError(
            f"{name}: reading it needs {root}, which is not installed: pip install 'foveate[{EXTRAS[root]}]'"
        ) from None


def installed(module: str) -> bool:
    """Whether an optional library can be imported."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError):
        return False
    return True
