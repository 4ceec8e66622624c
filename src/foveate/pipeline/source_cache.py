"""Images that stay open from epoch to epoch, with the pixels they have decoded."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from foveate.datasets.types import ImageDataset
from foveate.images import PillowSource, Source, original

__all__ = ["OpenedImages"]

LIMIT = 4096
"""Images kept open at a time."""


class OpenedImages:
    """Opens the images of a data set as a model wants them, and keeps those that are decoded whole.

    The least recently used go first. What a model's intake has found out of an image, such as its mean, stays with it.

    Such a source holds no file open, and its decoded pixels lie in a memory of limited size that all sources share
    (`foveate.images.PillowSource`). Sources of other kinds may hold handles or arrays and are opened anew, which reads
    no pixel. What is kept stays behind when this is pickled.

    Arguments:
        dataset: the images.
        intake: gives an image as the model wants it, or raises (`Model.intake`); None takes it as it is.
        limit: how many to keep.
    """

    def __init__(
        self, dataset: ImageDataset, intake: Callable[[Source], Source] | None = None, limit: int = LIMIT
    ) -> None:
        self.dataset, self.intake, self.limit = dataset, intake, limit
        self._kept: OrderedDict[int, Source] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def open(self, index: int) -> Source:
        """The image of example `index`, as the model wants it.

        Raises:
            ImageError: as the data set's `open`, and the intake.
        """
        kept = self._kept.get(index)
        if kept is not None:
            self._kept.move_to_end(index)
            return kept
        opened = self.dataset.open(index)
        source = opened if self.intake is None else self.intake(opened)
        if isinstance(original(opened), PillowSource):
            self._kept[index] = source
            if len(self._kept) > self.limit:
                self._kept.popitem(last=False)
        return source

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict()}
