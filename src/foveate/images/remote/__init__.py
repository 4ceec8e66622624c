"""Files elsewhere, of which only what is asked for is transferred."""

from foveate.images.remote.file import RemoteFile

__all__ = ["RemoteFile"]
