"""Listed images: lists, arrays, tables, folders and manifests of Python code, all as one kind of data set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from foveate.config.settings import DataSettings
from foveate.datasets.labels import Labels, column_of, is_missing
from foveate.datasets.manifest.dataset import read_manifest
from foveate.datasets.manifest.folders import IMAGE_SUFFIXES, TABLES, image_files
from foveate.datasets.manifest.rows import COLUMNS, SPLIT_NAMES, Layout
from foveate.datasets.types import Example, ImageDataset
from foveate.errors import ArgumentTypeError, DataError
from foveate.images import Masked, Source, is_zarr, open_image
from foveate.images.formats.arrays import ARRAYS
from foveate.images.header import Reading
from foveate.types import Label

WANTED = (
    "a list of paths, arrays, Pillow images or tensors, a 4-D array, a table with a column path, a folder or a manifest"
)
"""What images may be."""

MOST_CHANNELS = 4
"""Last axis (of a tensor, first) up to which an array of three axes is one image rather than a stack of grey ones."""


@dataclass(frozen=True)
class ListedImages:
    """Data set of images that Python code has: paths, arrays, Pillow images, tensors or sources.

    Attributes:
        items: the images, as they were given; or functions that open them.
        examples: one per image; ids are paths, or numbers of images in memory.
        classes: names of the classes; empty if no label is known.
        multi_label: whether a label is a tuple of classes.
        mpps: microns per pixel, or None to believe the file; empty if none is given.
        masks: files that say where to look, or None; empty if none is given.
        texts: labels as a table or a manifest has them; None where it has none.
        notes: what a user should be told.
    """

    items: Sequence[Any]
    examples: Sequence[Example]
    classes: tuple[str, ...] = ()
    multi_label: bool = False
    mpps: tuple[float | None, ...] = ()
    masks: tuple[str | None, ...] = ()
    texts: Any = None
    notes: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.examples)

    def open(self, index: int) -> Source:
        """The image of example `index`; no pixel is read."""
        item, mpp = self.items[index], self.mpps[index] if self.mpps else None
        source = open_image(item() if callable(item) else item, mpp)
        mask = self.masks[index] if self.masks else None
        if mask is None:
            return source
        with Reading(mask):
            return Masked(source, mask)

    def labelled(self, labels: Labels) -> "ListedImages":
        """The same images, with labels."""
        if len(labels.indices) != len(self):
            raise DataError(f"{len(self)} images and {len(labels.indices)} labels: give one label an image")
        examples = [replace(one, label=label) for one, label in zip(self.examples, labels.indices, strict=True)]
        return replace(self, examples=examples, classes=labels.names, multi_label=labels.several)

    def grouped(self, groups: Any) -> "ListedImages":
        """The same images, with the group (a patient, a scene) of each."""
        names = column_of(groups)
        if len(names) != len(self):
            raise DataError(f"{len(self)} images and {len(names)} groups: give one group an image, or None")
        return replace(
            self,
            examples=[
                replace(one, group=None if is_missing(name) else str(name))
                for one, name in zip(self.examples, names, strict=True)
            ],
        )

    def only(self, indices: Sequence[int]) -> "ListedImages":
        """Some of the images."""

        def of(values: Any) -> Any:
            return tuple(values[index] for index in indices) if len(values) else values

        items, examples, mpps, masks = map(of, (self.items, self.examples, self.mpps, self.masks))
        return replace(self, items=items, examples=examples, mpps=mpps, masks=masks, texts=None)

    def to_train(self, labels: Labels, tell: bool = True) -> "ListedImages":
        """Those that are not held out for a test.

        Arguments:
            labels: of all of them.
            tell: whether to say how many are left out.

        Raises:
            DataError: all are of one class.
        """
        if len(labels.classes) < 2 and not labels.several:
            only = f"the class {labels.names[0]}" if labels.names else "no class"
            raise DataError(f"every image is of {only}: a classifier needs two classes, and more than one class here")
        kept = [number for number, one in enumerate(self.examples) if one.split != "test"]
        if len(kept) == len(self):
            return self
        if tell:
            print(f"note: {len(self) - len(kept)} images of the split test are left out", flush=True)
        return self.only(kept)

    def in_split(self, split: str) -> "ListedImages":
        """The same images, all of one split."""
        return replace(self, examples=[replace(one, split=split) for one in self.examples])

    def joined(self, others: "ListedImages") -> "ListedImages":
        """These images and others, whose ids are made different from theirs."""

        def both(name: str) -> tuple[Any, ...]:
            pairs = ((one, getattr(one, name)) for one in (self, others))
            every = [values or (None,) * len(one) for one, values in pairs]
            return (*every[0], *every[1])

        examples = [*self.examples, *others.examples]
        ids = unique([one.id for one in examples])
        return replace(
            self,
            items=[*self.items, *others.items],
            examples=[replace(one, id=name) for one, name in zip(examples, ids, strict=True)],
            mpps=both("mpps"),
            masks=both("masks"),
        )


def listed(images: Any, multi_label: bool = False, layout: Layout | None = None) -> ListedImages:
    """Images as a data set, whatever they are given as; labels of a table or a manifest are in `texts`.

    Arguments:
        images: see `WANTED`.
        multi_label: whether the labels of a manifest are names with | between.
        layout: of a manifest that has other columns, or images elsewhere.

    Raises:
        ArgumentTypeError: they are something else, such as one image alone.
        DataError: there is none, or a table or manifest has faults.
    """
    if isinstance(images, ListedImages):
        return images
    if hasattr(images, "examples") and hasattr(images, "open"):
        opened = [partial(images.open, index) for index in range(len(images.examples))]
        return ListedImages(opened, [replace(one, label=None) for one in images.examples], texts=_known_texts(images))
    if isinstance(images, str | Path):
        return _named(images, multi_label, layout or Layout())
    if hasattr(images, "columns") and hasattr(images, "__getitem__"):
        return _tabled(images)
    items = _items(images)
    if not items:
        raise DataError(f"there is no image: give {WANTED}")
    for number, item in enumerate(items):
        if not (isinstance(item, str | Path | Source) or any(hasattr(item, name) for name in ARRAYS)):
            raise ArgumentTypeError(f"image {number} is {_kind(item)}: give {WANTED}")
    ids = unique([_id(item, number) for number, item in enumerate(items)])
    return ListedImages(items, [Example(name, None) for name in ids])


def _items(images: Any) -> list[Any]:
    axes = getattr(images, "ndim", None)
    if hasattr(images, "getbands") or isinstance(images, Source | bytes | dict) or axes == 0:
        raise ArgumentTypeError(f"images are {_kind(images)}: give {WANTED}; one image goes in a list")
    if axes is not None and axes > 1:
        shape = tuple(images.shape)
        channels = shape[0 if hasattr(images, "movedim") else -1]
        if axes == 2 or (axes == 3 and channels <= MOST_CHANNELS):
            meant = "one image" if axes == 3 else "a table of numbers, or one grey image"
            raise ArgumentTypeError(f"images of shape {shape} are {meant}: give {WANTED}; one image goes in a list")
        if axes > 4:
            raise ArgumentTypeError(f"images of shape {shape} have too many axes: give {WANTED}")
    if not isinstance(images, Iterable):
        raise ArgumentTypeError(f"images are {_kind(images)}: give {WANTED}")
    return list(images)


def _kind(thing: Any) -> str:
    if thing is None or isinstance(thing, int | float):
        return "None" if thing is None else f"{thing!r}, a number"
    return f"of type {type(thing).__name__}"


def _id(item: Any, number: int) -> str:
    if isinstance(item, str | Path):
        return str(item)
    return (item.name if isinstance(item, Source) else "") or f"image {number}"


def unique(names: Sequence[str]) -> list[str]:
    """Names made different: the second "a" is "a (2)"."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result


def _named(path: str | Path, multi_label: bool, layout: Layout) -> ListedImages:
    """All images of a folder or a manifest; an image alone is a list of one."""
    here = Path(path)
    is_table = here.suffix.lower() in TABLES
    if "://" in str(path) or (not is_table and (not here.is_dir() or is_zarr(here))):
        return listed([path])
    if here.is_dir() and not (here / "manifest.csv").is_file() and not any(one.is_dir() for one in here.iterdir()):
        files = [str(here / name) for name in image_files(here)]
        if not files:
            raise DataError(f"folder {here} holds no images ({' '.join(IMAGE_SUFFIXES)}): name the files themselves")
        return listed(files)
    read = read_manifest(path, require_labels=False, multi_label=multi_label, layout=layout)
    texts = _known_texts(read)
    examples = [replace(one, label=None) for one in read.examples]
    return ListedImages(read.files, examples, mpps=read.mpps, masks=read.masks, texts=texts, notes=read.notes)


def _known_texts(dataset: ImageDataset) -> Any:
    """Labels of a data set as names of classes; None if it knows none."""
    if all(one.label is None for one in dataset.examples):
        return None
    return [_texts(one.label, dataset.classes) for one in dataset.examples]


def _texts(label: Label | None, classes: Sequence[str]) -> Any:
    if label is None or isinstance(label, float):
        return label
    return classes[label] if isinstance(label, int) else [classes[one] for one in label]


def _tabled(table: Any) -> ListedImages:
    """Rows of a table (a DataFrame of pandas or polars) with the columns of a manifest."""
    names = [str(name) for name in table.columns]
    if "path" not in names:
        raise DataError(
            f"the table has no column 'path', its columns are {', '.join(names)}: rename the one that names the image "
            f"files; {', '.join(COLUMNS[1:])} are taken, too"
        )
    columns = {name: list(table[name]) for name in COLUMNS if name in names}
    paths = columns["path"]
    for row, path in enumerate(paths):
        if not isinstance(path, str | Path):
            raise DataError(f"path of row {row} is {path!r}: name an image file, or take the row out")
    ids = unique([str(path) for path in paths])
    examples = [
        Example(name, None, _split(split, row))
        for row, (name, split) in enumerate(zip(ids, columns.get("split", [None] * len(ids)), strict=True))
    ]
    rows = ListedImages(
        paths,
        examples,
        mpps=tuple(None if is_missing(one) else float(one) for one in columns.get("mpp", ())),
        masks=tuple(None if is_missing(one) else str(one) for one in columns.get("mask", ())),
        texts=columns.get("label"),
    )
    return rows.grouped(columns["group"]) if "group" in columns else rows


def _split(value: Any, row: int) -> str | None:
    if is_missing(value):
        return None
    if str(value).lower() not in SPLIT_NAMES:
        raise DataError(f"split of row {row} is {value!r}: use train, validation or test, or leave it empty")
    return SPLIT_NAMES[str(value).lower()]


def labelled_images(given: Any, y: Any, data: DataSettings, known: Labels | None = None) -> tuple[ListedImages, Labels]:
    """Images with their labels, and these.

    Arguments:
        given: the images, as `listed` takes them.
        y: their labels, as `Labels.of` takes them; those of the table, manifest or folder if None.
        data: settings: how a manifest is read.
        known: labels of which only the known classes may occur; any may if None.

    Raises:
        ArgumentTypeError, DataError: images or labels are at fault.
    """
    images = listed(given, data.multi_label, Layout.of(data.columns, data.images))
    y = images.texts if y is None else y
    if y is None:
        raise DataError(
            "requires y to be passed, but the target y is None: give a label an image, a table or manifest with a "
            "column label, or a folder of class folders"
        )
    ids = dict(enumerate(one.id for one in images.examples))
    classes = None if known is None else known.classes
    labels = Labels.of(y, classes, lambda number: ids.get(number, f"image {number}"))
    if known is not None and labels.several != known.several:
        raise DataError("labels must be of one kind throughout: one an image, or several an image")
    return images.labelled(labels), labels
