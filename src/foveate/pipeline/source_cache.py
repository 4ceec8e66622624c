"""Source cache: images that stay open from one pass over them to the next, with what was found out of them."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from foveate.datasets.types import ImageDataset
from foveate.images import PillowSource, Source, original


class SourceCache:
    """LRU cache of open images, from epoch to epoch: those decoded whole, with what a model's intake found out of them.

    Such a source holds no file open, and its decoded pixels lie in a cache of limited bytes that all sources share
    (`foveate.images.PillowSource`). Sources of other kinds may hold handles or arrays and are opened anew, which reads
    no pixel. What is held stays behind when this is pickled.

    Arguments:
        dataset: the images.
        intake: gives an image as the model wants it, or raises (`Model.intake`); None takes it as it is.
        limit: how many to hold.
    """

    def __init__(
        self, dataset: ImageDataset, intake: Callable[[Source], Source] | None = None, limit: int = 4096
    ) -> None:
        self.dataset, self.intake, self.limit = dataset, intake, limit
        self._held: OrderedDict[int, Source] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def open(self, index: int) -> Source:
        """The image of example `index`, as the model wants it.

        Raises:
            ImageError: as the data set's `open`, and the intake.
        """
        source = self._held.pop(index, None)
        if source is None:
            opened = self.dataset.open(index)
            source = opened if self.intake is None else self.intake(opened)
            if not isinstance(original(opened), PillowSource):
                return source
        self._held[index] = source
        if len(self._held) > self.limit:
            self._held.popitem(last=False)
        return source

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": OrderedDict()}
