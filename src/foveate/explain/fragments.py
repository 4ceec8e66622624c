"""The picture on the page of one image, as HTML: its layers, its buttons, its colour bar."""

import base64
from collections.abc import Iterable
from html import escape

from foveate.explain.explanation import Explanation, SeenPatch
from foveate.explain.picture import Scale
from foveate.types import Box, Size

__all__ = [
    "box_buttons",
    "controls",
    "data_uri",
    "legend",
    "list_items",
    "map_image",
    "number",
    "patch_label",
]


def data_uri(content: bytes, kind: str) -> str:
    """A picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def number(value: float) -> str:
    """A number in three significant digits, with a real minus.

    Example:
        >>> number(-0.012345), number(1234.0), number(0)
        ('−0.0123', '1.23e+03', '0')
    """
    return f"{value:.3g}".replace("-", "−")


def list_items(lines: Iterable[str]) -> str:
    """Lines of text as items of a list."""
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def map_image(seen: Explanation, picture: bytes, cells: Size) -> str:
    """The attention map where it lies over the image.

    Arguments:
        seen: with an attention map.
        picture: of the map, a PNG file.
        cells: (rows, columns) that the picture covers, which may be more than the map has.
    """
    assert seen.affine is not None
    a, _, c, _, e, f = seen.affine
    height, width = seen.size
    place = (100 * c / width, 100 * f / height, 100 * a * cells[1] / width, 100 * e * cells[0] / height)
    style = "left:{:.9g}%;top:{:.9g}%;width:{:.9g}%;height:{:.9g}%".format(*place)
    alt = 'id="map" alt="Attention map, laid over the image"'
    return f'<img class="map" {alt} style="{style}" src="{data_uri(picture, "png")}">'


def box_buttons(seen: Explanation) -> str:
    """A button over the image for every patch, and a dashed frame for every patch of another seed."""
    parts = [
        f'<button class="box" type="button" data-patch="{i}" aria-pressed="false" aria-label="{patch_label(i, patch)}" '
        f'style="{_place(patch.box, seen.size)}"></button>'
        for i, patch in enumerate(seen.patches)
    ]
    parts += [
        f'<span class="box other" data-other="{seed}" style="{_place(box, seen.size)}" hidden></span>'
        for seed, prediction in seen.others
        for box in prediction.boxes
    ]
    return "\n".join(parts)


def controls(seen: Explanation) -> str:
    """What can be set above the picture."""
    parts = []
    if seen.attention is not None:
        parts.append(
            '<label for="opacity">Attention map <input type="range" id="opacity" min="0" max="100" step="5" value="50">'
            '</label><output id="opacity-value" for="opacity">50 %</output>'
        )
    if seen.patches:
        parts.append('<label><input type="checkbox" id="show-boxes" checked> Patches</label>')
    draws = sorted({patch.draw for patch in seen.patches})
    if len(draws) > 1 or (draws and any(other.boxes for _, other in seen.others)):
        options = [(str(draw), f"draw {draw + 1} of {len(draws)}") for draw in draws]
        options += [("all", "all draws")] if len(draws) > 1 else []
        options += [(f"seed-{seed}", f"what if seed {seed}") for seed, _ in seen.others]
        listed = "".join(f'<option value="{value}">{text}</option>' for value, text in options)
        parts.append(f'<label for="draw">Show <select id="draw">{listed}</select></label>')
    return "\n".join(parts)


def legend(scale: Scale, attention: float, uniform: float) -> str:
    """The colour bar with its numbers.

    Arguments:
        scale: what the colours stand for.
        attention: largest of the map.
        uniform: what every cell would have if all had the same.
    """
    middle = (scale.low + scale.high) / 2
    ticks = (f"≤ {number(scale.low)}", number(middle), f"≥ {number(scale.high)}")
    return (
        f'<div class="legend"><div class="bar" role="img" aria-label="Colours from {number(scale.low)} to '
        f'{number(scale.high)}" style="background:linear-gradient(to right,{",".join(scale.stops())})"></div>'
        f'<div class="ticks">{"".join(f"<span>{tick}</span>" for tick in ticks)}</div>'
        "<p>Attention of a cell, a probability: those of all cells sum to 1. Colours go from the 1st to the 99.5th "
        f"percentile; the largest is {number(attention)}, and each would be {number(uniform)} if all were alike.</p>"
        "</div>"
    )


def patch_label(i: int, patch: SeenPatch) -> str:
    """What a patch is called by those who do not see it."""
    return f"Patch {i + 1}, attention {number(patch.attention)}, at row {patch.box.top}, column {patch.box.left}"


def _place(box: Box, size: Size) -> str:
    """Centre and size in percent of the stage; CSS keeps small ones visible."""
    height, width = size
    down, along = 100 * (box.top + box.height / 2) / height, 100 * (box.left + box.width / 2) / width
    wide, high = 100 * box.width / width, 100 * box.height / height
    return f"left:{along:.7g}%;top:{down:.7g}%;width:{wide:.7g}%;height:{high:.7g}%"
