"""Sources that make something else of another source's pixels."""

from foveate.images.source import Source

__all__ = ["Wrapper"]


class Wrapper(Source):
    """A source that reads another one; name, microns per pixel, threads, bytes and handles are the other's.

    Attributes:
        source: the other one.
    """

    _reads_file = True

    def __init__(self, source: Source) -> None:
        super().__init__(source.name)
        self.source = source
        self.threaded = source.threaded

    @property
    def mpp(self) -> float | None:
        """Microns per level-0 pixel: as given, else the original's."""
        return self.source.mpp if self._mpp is None else self._mpp

    @mpp.setter
    def mpp(self, value: float | None) -> None:
        self._mpp = value

    @property
    def bytes_read(self) -> int:
        """Bytes read of the original so far."""
        return self.source.bytes_read

    def close(self) -> None:
        """Close the original."""
        self.source.close()
