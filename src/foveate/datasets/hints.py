"""What may be meant otherwise in a manifest, and which setting to change then."""

from collections.abc import Iterator, Mapping

from foveate.datasets.report import Finding, kind_name
from foveate.datasets.table import SPLIT_NAMES

__all__ = ["count_findings", "pixel_hints"]

FEW_IMAGES = 5
"""A class or a split of fewer images deserves a word."""


def count_findings(counts: Mapping[tuple[str, str], int], images: Mapping[str, int]) -> Iterator[tuple[bool, Finding]]:
    """Find classes and splits that have too few images, or labels that are missing altogether.

    Arguments:
        counts: (split or "", class or "") → images.
        images: split or "" → images.

    Yields:
        Whether it is a problem (else a hint), and what it is.

    Example:
        >>> [finding.message for _, finding in count_findings({("train", "a"): 70, ("test", "b"): 30}, {})]
        ["class 'b' has no image to train on, write some into the split train"]
    """
    if counts and not any(label for _, label in counts):
        yield False, Finding("label", _NO_LABEL)
    trains = any(split in ("", "train") for split, _ in counts)
    few = dict[str, int]()
    for label in dict.fromkeys(label for _, label in counts if label):
        if trains and not counts.get(("", label), 0) + counts.get(("train", label), 0):
            message = f"class {label!r} has no image to train on, write some into the split train"
            yield True, Finding("class", message)
        else:
            few[label] = sum(count for (_, name), count in counts.items() if name == label)
    few = {label: count for label, count in few.items() if count < FEW_IMAGES}
    if trains and few:
        named = ", ".join(f"{label} {count}" for label, count in list(few.items())[:8]) + (
            ", …" if len(few) > 8 else ""
        )
        yield (
            False,
            Finding(
                "class",
                f"classes with fewer than {FEW_IMAGES} images are hard to learn and to test ({named}): add images",
            ),
        )
    for split in dict.fromkeys(SPLIT_NAMES.values()):
        if 0 < images.get(split, 0) < FEW_IMAGES:
            count = images[split]
            size = f"split {split} has {count} image{'' if count == 1 else 's'}"
            yield False, Finding("split", f"{size}: {_FEW_IN[split]}")


_NO_LABEL = "no image has a label: to train, write classes in a column label, or sort images into one folder per class"

_FEW_IN = {
    "train": "too few to learn from",
    "validation": "what is chosen by so few is chosen by chance",
    "test": "an error measured on so few says little",
}


def pixel_hints(kinds: Mapping[tuple[int, str], int]) -> Iterator[Finding]:
    """Say what becomes of mixed and unusual pixels, and which setting changes it.

    Arguments:
        kinds: (channels, type of a value) → images.

    Yields:
        The hints.

    Example:
        >>> [hint.message for hint in pixel_hints({(3, "uint8"): 9})]
        []
    """
    channels = {channels for channels, _ in kinds}
    types = {dtype for _, dtype in kinds}
    named = ", ".join(f"{kind_name(*kind)}: {count}" for kind, count in sorted(kinds.items()))
    if channels == {1, 3}:
        yield Finding(
            "pixels",
            f"grey and RGB images are mixed ({named}), and grey ones are taken as RGB: set model.input.colour grey to "
            "take all as grey",
        )
    elif len(channels) > 1 and channels <= {1, 3, 4}:
        yield Finding(
            "pixels",
            f"images with and without an alpha channel are mixed ({named}): set model.input.colour rgb to take all as "
            "RGB",
        )
    elif len(channels) > 1:
        least = min(channels)
        bands = " ".join(str(band) for band in range(min(least, 3)))
        yield Finding(
            "pixels",
            f"images of {_list(channels)} bands are mixed ({named}): set model.input.bands to those all have, e.g. "
            f"{bands}",
        )
    if any(dtype.startswith(("float", "int")) for dtype in types):
        yield Finding(
            "pixels",
            f"pixels are taken to lie between 0 and 1 where they are floating-point ({named}): where they do not, set "
            "model.input.normalise bands",
        )
    elif "uint16" in types:
        yield Finding(
            "pixels",
            f"16-bit pixels are divided by 65535 ({named}): where the values use fewer bits, set model.input.normalise "
            "bands",
        )
    elif len(types) > 1 or max(channels, default=0) > 4:
        yield Finding("pixels", f"bands may differ in range ({named}): set model.input.normalise bands if they do")


def _list(numbers: set[int]) -> str:
    *others, last = sorted(numbers)
    return f"{', '.join(map(str, others))} and {last}"
