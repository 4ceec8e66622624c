"""The same images for all methods: a comparison's data set, divided into splits or folds."""

from dataclasses import replace

from foveate.datasets import fill_splits, k_folds, open_dataset
from foveate.errors import DataError
from foveate.settings import DataSettings
from foveate.training.folds import Resplit
from foveate.training.loader import split_indices
from foveate.types import ImageDataset

__all__ = ["Divider"]


class Divider:
    """Gives the images with the splits of a seed and a fold.

    Folds are those of `k_folds`; validation images are held out of what then trains, a share `data.validation` of it.
    Where that is 0, and the data name none, the last model of a run is kept.

    Arguments:
        data: where the images are.
        folds: number of folds; None for one split.
        split_seed: seed of the division; None takes that of the run.
        dataset: the images, opened from `data` if None; without folds they are taken as they are split.
    """

    def __init__(
        self,
        data: DataSettings,
        folds: int | None = None,
        split_seed: int | None = None,
        dataset: ImageDataset | None = None,
    ) -> None:
        self._data, self._folds, self._split_seed, self._given = data, folds, split_seed, dataset
        self._named: ImageDataset | None = dataset
        self._divided: dict[int, list[ImageDataset]] = {}

    def images(self, seed: int, fold: int | None) -> ImageDataset:
        """The images with their splits.

        Arguments:
            seed: of the run.
            fold: which fold tests, counted from 1; None without folds.

        Raises:
            ConfigError, DataError: the images are missing, or cannot be divided so, or none is left to test on.
        """
        seed = seed if self._split_seed is None else self._split_seed
        if seed not in self._divided:
            self._divided[seed] = self._divide(seed)
            for divided in self._divided[seed]:
                if not split_indices(divided, "test"):
                    raise DataError(
                        "there is no test image to compare on: check the manifest's split column, or data.test"
                    )
        return self._divided[seed][0 if fold is None else fold - 1]

    def _divide(self, seed: int) -> list[ImageDataset]:
        if self._folds is None:
            return [open_dataset(self._data, seed) if self._given is None else self._given]
        if self._named is None:  # named test images stay; what is filled in as "train" is dealt into folds
            self._named = open_dataset(replace(self._data, test=0.0, validation=0.0), seed)
        named, crossing = self._named, self._data.allow_crossing_groups
        return [
            Resplit(named, tuple(fill_splits(fold, self._data.validation, 0.0, seed, allow_crossing=crossing)))
            for fold in k_folds(named.examples, self._folds, seed, allow_crossing=crossing)
        ]
