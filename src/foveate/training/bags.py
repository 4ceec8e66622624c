"""Bags: features of the cells of many images, in memory or in a file that is mapped."""

import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.atomic import writing
from foveate.networks.evidence import EvidenceHead, pooled_evidence
from foveate.types import Label

MOMENT_CELLS = 2**20
"""Cells of which mean and deviation are measured, at most, evenly spaced."""


class Bags:
    """Bags of cells: of each image those that may be looked at, in half precision, images of any size side by side.

    Arguments:
        memory: bytes that may be held in memory; what is more lies in an unnamed file.

    Attributes:
        labels: of the images.

    Example:
        >>> bags = Bags(memory=10**6)
        >>> bags.add(torch.ones(3, 2, dtype=torch.float16))
        >>> bags.add(torch.zeros(1, 2, dtype=torch.float16))
        >>> cells, allowed = bags.batch([1, 0])
        >>> cells.shape, allowed.tolist()
        (torch.Size([2, 3, 2]), [[True, False, False], [True, True, True]])
    """

    def __init__(self, memory: int) -> None:
        self._memory, self._bytes = memory, 0
        self._images: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        self.labels: tuple[Label, ...] = ()

    def __len__(self) -> int:
        return len(self._images)

    def add(self, cells: Float[Tensor, "cell feature"]) -> None:
        """Add an image's cells."""
        array = cells.half().cpu().numpy()
        if self._bytes + array.nbytes > self._memory:
            array = self._filed(array)
        else:
            self._bytes += array.nbytes
        self._images.append(array)

    def _filed(self, array: np.ndarray) -> np.ndarray:
        """The same array, mapped from the end of the file; it stays readable when the file is closed."""
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the bags, and has no name to remove
            weakref.finalize(self, self._file.close)
        offset = self._file.seek(0, 2)
        with writing(Path(tempfile.gettempdir()) / "features of find first"):
            self._file.write(array.tobytes())  # NumPy's own writing hides what the disk says
            self._file.flush()
        return np.memmap(self._file, np.float16, "r", offset, array.shape)

    def part(self, chosen: Bool[Tensor, " image"]) -> "Bags":
        """Some of the images; nothing is copied."""
        rows = chosen.nonzero()[:, 0].tolist()
        result = Bags(0)
        result._images = [self._images[row] for row in rows]
        result.labels = tuple(self.labels[row] for row in rows)
        return result

    def batch(
        self, rows: Sequence[int], device: torch.device | str = "cpu"
    ) -> tuple[Float[Tensor, "batch cell feature"], Bool[Tensor, "batch cell"]]:
        """Cells of some images, and where there are any: those of the smaller images are followed by 0."""
        most = max(len(self._images[row]) for row in rows)
        cells = torch.zeros(len(rows), most, self._images[rows[0]].shape[1])
        allowed = torch.zeros(len(rows), most, dtype=torch.bool)
        for place, row in enumerate(rows):
            count = len(self._images[row])
            cells[place, :count] = torch.from_numpy(self._images[row].astype(np.float32))
            allowed[place, :count] = True
        return cells.to(device), allowed.to(device)

    def cells(self, row: int) -> int:
        """Number of an image's cells."""
        return len(self._images[row])

    def some(self, rows: Sequence[int], index: Int[Tensor, "batch *any"]) -> Float[Tensor, "batch *any feature"]:
        """Features of chosen cells of some images."""
        chosen = [self._images[row][one.numpy()] for row, one in zip(rows, index, strict=True)]
        return torch.from_numpy(np.stack(chosen).astype(np.float32))

    def moments(self) -> Float[Tensor, "2 feature"]:
        """Mean and deviation of every feature over the cells of all images; the deviation of a constant one is 1."""
        cells = sum(len(one) for one in self._images)
        step = -(-cells // MOMENT_CELLS)
        count, sums, squares = 0, 0.0, 0.0
        for image in self._images:
            some = image[:: min(step, len(image))].astype(np.float64)
            count, sums, squares = count + len(some), sums + some.sum(0), squares + np.square(some).sum(0)
        mean = sums / count
        deviation = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
        return torch.from_numpy(np.stack([mean, np.where(deviation > 1e-6, deviation, 1.0)])).float()

    def pooled(
        self, head: EvidenceHead, rows: Sequence[int], top: float, device: torch.device
    ) -> Float[Tensor, "batch question"]:
        """Evidence of images."""
        cells, allowed = self.batch(rows, device)
        return pooled_evidence(head(cells), allowed, top) + head.bias.mean(0)
