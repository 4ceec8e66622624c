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
        super().__init__(source.name, source.mpp)
        self.source = source

    @property
    def threaded(self) -> bool:
        """Whether reading the original in threads is faster now."""
        return self.source.threaded

    @property
    def bytes_read(self) -> int:
        """Bytes read of the original so far."""
        return self.source.bytes_read

    def close(self) -> None:
        """Close the original."""
        self.source.close()
