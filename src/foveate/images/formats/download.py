"""Files elsewhere that can only be read whole."""

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from foveate.images.decoded import Decoded
from foveate.images.files import ByteFile

__all__ = ["Download"]


@dataclass
class Download:
    """A file that is downloaded whole when it is opened; it opens like a path does.

    Its bytes are kept among the decoded images of the process, and downloaded again when they had to make room.

    Attributes:
        file: where it is.
    """

    file: ByteFile
    _kept: Decoded | None = field(default=None, repr=False, compare=False)
    _fetched: int = field(default=0, repr=False, compare=False)

    def __str__(self) -> str:
        return self.file.name

    def open(self, mode: str = "rb") -> io.BytesIO:  # noqa: ARG002  only so can an image be opened
        """The file's bytes, in memory.

        Raises:
            ImageError: it cannot be read.
        """
        if self._kept is None:
            self._kept = Decoded()
        return io.BytesIO(self._kept.pixels("file", self._download).tobytes())

    def stored_bytes(self) -> int:
        """Bytes downloaded since this was last asked."""
        fetched, self._fetched = self._fetched, 0
        return fetched

    def _download(self) -> np.ndarray:
        data = np.frombuffer(self.file.read(0, self.file.size), np.uint8)[:, None, None]
        self._fetched += data.nbytes
        return data

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}
