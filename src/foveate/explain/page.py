"""One HTML file per image that says what the model saw: no network, no build step, nothing beside it."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from foveate.explain.answers import other_answers, patch_cards, probability_table, shown_contributions, sums
from foveate.explain.explanation import Explanation
from foveate.explain.fragments import box_buttons, controls, data_uri, legend, list_items, map_image
from foveate.explain.picture import Scale, jpeg, png
from foveate.types import Size

__all__ = ["template", "write_page"]

IMAGE_BYTES, PATCH_BYTES, MOST_CELLS = 900_000, 500_000, 512
"""Most bytes of the image and of all patches together, and cells of the map's longest side, on a page below 3 MB."""

MAPPED = (
    "The model gave every cell of a grid over the image a probability, its <em>attention</em>, from the image at low "
    "resolution. It drew cells by it and read the patches behind them at full resolution. A drawn patch counts with "
    "its attention times its <em>weight</em>, which makes up for the cells that were not drawn."
)
READ_ALL = (
    "The model read every patch of a grid at full resolution, gave each a probability, its <em>attention</em>, and "
    "took the mean of their features by it."
)
ANYWHERE = "The model read patches by chance, each as likely as any other, and took the mean of their features."
ADDS = (
    "What a patch <em>adds</em> to a class is its share of the class's logit, in nats: with the bias, all patches of a "
    "draw sum to the logit, and the logits make the probabilities. "
)
COMPARED = "Only differences between classes count, so what a patch adds to all of them on average is left out here. "
PROVES = "Attention says where a model looked and contributions what it made of that; neither proves it right."
BLIND = "The probabilities are all that this model tells of an image."


def template(name: str) -> str:
    """A file of the page, as it is shipped."""
    return files("foveate.explain").joinpath("template", name).read_text(encoding="utf-8")


def write_page(
    path: Path,
    seen: Explanation,
    picture: UInt8[np.ndarray, "height width 3"],
    patches: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    settings: Mapping[str, str],
    receipt: str,
) -> None:
    """Write the page of one image.

    Arguments:
        path: file to write.
        seen: what it tells.
        picture: the whole image, small.
        patches: what each of the patches looks like.
        settings: what else is worth knowing, name → text.
        receipt: what it cost, in a line.
    """
    from foveate._version import __version__

    height, width = seen.size
    parts = [[float(f"{value:.5g}") for value in row] for row in shown_contributions(seen)]
    data = {
        "draw": [patch.draw for patch in seen.patches],
        "contributions": parts,
        "largest": max((abs(value) for row in parts for value in row), default=0.0),
        "sums": sums(seen),
    }
    fields = {
        "title": escape(f"{Path(seen.path).name or 'image'}: {_answer(seen)}"),
        "style": template("page.css"),
        "script": template("page.js"),
        "path": escape(seen.path or "an image in memory"),
        "answer": escape(_answer(seen)),
        "seen": "Where it looked" if seen.patches else "The image",
        "facts": escape(_facts(seen)),
        "warnings": _warnings(seen.warnings),
        "note": f'<p class="note">{escape(seen.note)}</p>' if seen.note else "",
        "controls": controls(seen),
        "aspect": f"{width} / {height}",
        "shape": f"{width / height:.6g}",
        "image": data_uri(jpeg(picture, IMAGE_BYTES), "jpeg"),
        "map": _map(seen),
        "boxes": box_buttons(seen),
        "legend": _legend(seen),
        "probabilities": probability_table(seen),
        "others": other_answers(seen),
        "patches": patch_cards(seen, _small(patches)),
        "receipt": escape(receipt),
        "guide": f'<p class="guide">{_guide(seen)}</p>',
        "settings": "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in settings.items()),
        "version": escape(__version__),
        "data": json.dumps(data).replace("<", "\\u003c"),
    }
    path.write_text(Template(template("page.html")).substitute(fields), encoding="utf-8", errors="replace")


def _answer(seen: Explanation) -> str:
    predicted = seen.prediction.predicted
    if seen.multi_label:
        names = [name for name in predicted.split("|") if name]
        told = ", ".join(f"{name} ({seen.prediction.probabilities[name]:.3f})" for name in names)
        return told or "no class of probability ½ or more"
    return f"{predicted}, probability {seen.prediction.probabilities[predicted]:.3f}"


def _facts(seen: Explanation) -> str:
    parts = [f"{seen.size[1]:,} × {seen.size[0]:,} pixels (width × height)"]
    if seen.attention is not None:
        parts.append(f"attention map of {seen.attention.shape[0]} × {seen.attention.shape[1]} cells")
    if seen.patches:
        parts.append(f"{seen.prediction.patches:,} patches read")
    return " · ".join(parts)


def _guide(seen: Explanation) -> str:
    if not seen.patches:
        return BLIND
    how = ANYWHERE if seen.attention is None else MAPPED if seen.drawn else READ_ALL
    return f"{how} {ADDS}{COMPARED * seen.relative}{PROVES}"


def _warnings(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return (
        '<section class="warnings" aria-labelledby="warnings-title"><h2 id="warnings-title">Look twice</h2>'
        f"<ul>{list_items(lines)}</ul></section>"
    )


def _legend(seen: Explanation) -> str:
    if seen.attention is None or seen.cell_mask is None:
        return ""
    scale = Scale.of(seen.attention, seen.cell_mask)
    return legend(scale, float(seen.attention.max()), 1 / int(seen.cell_mask.sum()))


def _map(seen: Explanation) -> str:
    """The map in colours; of more cells than a page can hold, the largest of each block."""
    if seen.attention is None or seen.cell_mask is None:
        return ""
    scale = Scale.of(seen.attention, seen.cell_mask)
    attention, mask = seen.attention, seen.cell_mask
    block = -(-max(attention.shape) // MOST_CELLS)
    if block > 1:
        attention = _blocks(np.where(mask, attention, 0), block).max((1, 3))
        mask = np.asarray(_blocks(mask, block).any((1, 3)))
    cells: Size = (attention.shape[0] * block, attention.shape[1] * block)
    return map_image(seen, png(scale.colour(attention, mask)), cells)


def _blocks(values: Shaped[np.ndarray, "row column"], block: int) -> Shaped[np.ndarray, "rows block columns block"]:
    rows, columns = (-(-side // block) for side in values.shape)
    missing = [(0, rows * block - values.shape[0]), (0, columns * block - values.shape[1])]
    return np.pad(values, missing).reshape(rows, block, columns, block)


def _small(patches: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[bytes]:
    """Patches as JPEG files that fit on the page together."""
    made: dict[bytes, bytes] = {}
    for side in (256, 160, 112, 80, 56):
        made = {}
        for pixels in patches:
            key = pixels.tobytes()
            if key not in made:
                picture = Image.fromarray(pixels)
                picture.thumbnail((side, side))
                made[key] = jpeg(np.asarray(picture), PATCH_BYTES)
        if sum(len(made[pixels.tobytes()]) for pixels in patches) <= PATCH_BYTES:
            break
    return [made[pixels.tobytes()] for pixels in patches]
