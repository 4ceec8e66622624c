"""HTML pages: one per image with its attention heatmap and patches, and an index; each needs nothing beside it.

What a page says is put together here; how it is said, and what is left out where there is nothing to say, stands in the
Jinja2 templates in `template/`, which escape whatever they are given.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from foveate._version import __version__
from foveate.explain.explanation import Explanation
from foveate.explain.picture import Scale, coarse_map, jpeg, png, small_jpegs
from foveate.types import Box

IMAGE_BYTES, PATCH_BYTES, MOST_CELLS = 900_000, 500_000, 512
"""Most bytes of the image and of all patches together, and cells of the map's longest side, on a page below 3 MB."""


@dataclass(frozen=True)
class Entry:
    """Index entry: a line of index.html.

    Attributes:
        folder: name of the image's folder.
        path: what the image is called.
        predicted: the answer.
        probability: of the answer; with several labels, of the most probable class; None of a number.
        warnings: what is wrong with its attention map.
        truth: names of the classes that it shows; None where nobody knows.
        right: whether the answer is the truth; None as the truth.
    """

    folder: str
    path: str
    predicted: str
    probability: float | None
    warnings: tuple[str, ...]
    truth: Sequence[str] | None = None
    right: bool | None = None


def write_index(path: Path, entries: Sequence[Entry], failures: Sequence[tuple[str, str]] = ()) -> None:
    """Index page over all images, in the order they were given in; those that failed below the others.

    Arguments:
        path: file to write, beside the images' folders.
        entries: one per image.
        failures: what each of the others is called, and why it failed, in a line.
    """
    _write(path, "index.html", {"entries": entries, "failures": failures})


def write_page(
    path: Path,
    seen: Explanation,
    picture: UInt8[np.ndarray, "height width 3"],
    patches: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    scale: Scale | None,
    settings: Mapping[str, str],
    receipt: str,
) -> None:
    """Page of one image: its answer, its heatmap, its patches and what each of them added.

    Arguments:
        path: file to write.
        seen: what it tells.
        picture: the whole image, small.
        patches: what each of the patches looks like.
        scale: of the heatmap's colours; None where there is no map.
        settings: what else is worth knowing, name → text.
        receipt: what it cost, in a line.
    """
    adds = [[float(f"{value:.5g}") for value in row] for row in seen.shown_contributions.tolist()]
    data = {
        "draw": [patch.draw for patch in seen.patches],
        "contributions": adds,
        "largest": max((abs(value) for row in adds for value in row), default=0.0),
        "sums": _sums(seen),
    }
    fields = {
        "seen": seen,
        "name": Path(seen.path).name or "image",
        "answer": _answer(seen),
        "draws": len({patch.draw for patch in seen.patches}),
        "image": data_uri(jpeg(picture, IMAGE_BYTES), "jpeg"),
        "heatmap": None if scale is None else _heatmap(seen, scale),
        "cards": _cards(seen, small_jpegs(patches, PATCH_BYTES)),
        "regions": [_place(box, seen) for box in seen.regions],
        "other_boxes": [(seed, _place(box, seen)) for seed, other in seen.others for box in other.boxes],
        "probabilities": _probabilities(seen),
        "left_out": len(seen.classes) - len(seen.shown_classes),
        "agree": sum(other.predicted == seen.prediction.predicted for _, other in seen.others),
    }
    _write(path, "page.html", fields | {"settings": settings, "receipt": receipt, "data": data})


def number(value: float) -> str:
    """Number in three significant digits, with a real minus.

    Example:
        >>> number(-0.012345), number(1234.0), number(0)
        ('−0.0123', '1.23e+03', '0')
    """
    return f"{value:.3g}".replace("-", "−")


@cache
def environment(package: str = "foveate.explain") -> Environment:
    """Templates of a package's folder `template`, which may build upon those of this one."""
    loader = ChoiceLoader([PackageLoader(one, "template") for one in dict.fromkeys((package, "foveate.explain"))])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals["version"] = __version__
    # style sheet and script are no templates, whatever braces they have, and go in as they are
    made.globals["asset"] = lambda name: loader.get_source(made, name)[0]
    made.filters["number"] = number
    return made


def _write(path: Path, name: str, fields: Mapping[str, Any]) -> None:
    # names of files need not be UTF-8: what of them is not becomes a question mark
    path.write_text(environment().get_template(name).render(fields), encoding="utf-8", errors="replace")


def _answer(seen: Explanation) -> str:
    values, predicted = seen.prediction.probabilities, seen.prediction.predicted
    if seen.numeric:
        return predicted
    if not seen.multi_label:
        return f"{predicted}, probability {values[predicted]:.3f}"
    told = ", ".join(f"{name} ({values[name]:.3f})" for name in seen.answers if name)
    return told or "no class of probability ½ or more"


def _heatmap(seen: Explanation, scale: Scale) -> dict[str, Any]:
    """The map in colours, and where it lies; of more cells than a page can hold, the largest of each block."""
    assert seen.attention is not None
    assert seen.cell_mask is not None
    assert seen.affine is not None
    block = -(-max(seen.attention.shape) // MOST_CELLS)
    attention, mask = coarse_map(seen.attention, seen.cell_mask, block)
    a, _, c, _, e, f = seen.affine
    (height, width), (rows, columns) = seen.size, (side * block for side in attention.shape)
    place = (100 * c / width, 100 * f / height, 100 * a * columns / width, 100 * e * rows / height)
    return {
        "scale": scale,
        "picture": data_uri(png(scale.colour(attention, mask)), "png"),
        "place": "left:{:.9g}%;top:{:.9g}%;width:{:.9g}%;height:{:.9g}%".format(*place),
    }


def _place(box: Box, seen: Explanation) -> str:
    """Centre and size in percent of the stage; CSS keeps small ones visible."""
    height, width = seen.size
    down, along = 100 * (box.top + box.height / 2) / height, 100 * (box.left + box.width / 2) / width
    wide, high = 100 * box.width / width, 100 * box.height / height
    return f"left:{along:.7g}%;top:{down:.7g}%;width:{wide:.7g}%;height:{high:.7g}%"


def _probabilities(seen: Explanation) -> list[dict[str, Any]]:
    """Rows of the table of answers: the shown classes, with the spread over the draws where there are several."""
    rows: list[dict[str, Any]] = []
    for k in seen.shown_classes:
        name, each = seen.classes[k], seen.probabilities[:, k]
        mean = seen.prediction.probabilities.get(name, seen.prediction.value)
        row = {"name": name, "mean": mean, "low": each.min(), "high": each.max()}
        deviation = each.std(ddof=1) if len(each) > 1 else 0.0
        rows.append(row | {"deviation": deviation, "chosen": name in seen.answers, "first": k == seen.shown_class})
    return rows


def _cards(seen: Explanation, pictures: Sequence[bytes]) -> list[dict[str, Any]]:
    """Patches that were read, each with its picture, its place and what it added to the answer."""
    adds = seen.shown_contributions[:, seen.shown_classes.index(seen.shown_class)].tolist()
    return [
        {"patch": patch, "place": _place(patch.box, seen), "picture": data_uri(picture, "jpeg"), "adds": value}
        for patch, picture, value in zip(seen.patches, pictures, adds, strict=True)
    ]


def _sums(seen: Explanation) -> list[list[str]]:
    """By draw and shown class, how bias and contributions make the logit."""
    if seen.bias is None or seen.rest is None:
        return []
    parts, draws = seen.shown_contributions, np.array([patch.draw for patch in seen.patches])
    bias, above = seen.shown_share(seen.bias[None])[0], " above the mean class" * seen.relative
    told = []
    for draw, (rest, logits) in enumerate(zip(*map(seen.shown_share, (seen.rest, seen.logits)), strict=True)):
        row = []
        for k, listed in enumerate(parts[draws == draw].sum(0)):
            unlisted = f" + unlisted patches {number(rest[k])}" if np.abs(seen.rest).max() > 0 else ""
            made = f"bias {number(bias[k])} + patches {number(listed)}{unlisted}"
            row.append(f"{made} = {'number' if seen.numeric else 'logit'} {number(logits[k])}{above}")
        told.append(row)
    return told


def data_uri(content: bytes, kind: str) -> str:
    """Address that holds a picture itself, so that a page needs nothing beside it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
