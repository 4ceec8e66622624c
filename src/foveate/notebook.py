"""Drawings for notebooks: a prediction with its picture, map and patches, and curves of a training, as HTML and SVG.

Each is one piece of HTML that needs nothing beside it, no script and no IPython: what a notebook asks `_repr_html_`
for. Text takes the notebook's colours, dark or light.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Float32

    from foveate.types import Box, Size

SIDE = 420
"""Longest side of the picture of an image, in pixels."""

MOST = 8
"""Classes that are shown, the most probable ones."""

FAINT = 0.05
"""Share of the highest attention below which a cell is transparent."""


@dataclass(frozen=True)
class Sketch:
    """Sketch of an image as a model saw it: a small picture, and the attention map that lies over it.

    Attributes:
        picture: JPEG file.
        size: (height, width) of the image, in level-0 pixels.
        attention: (rows, columns) probability of each cell, 0 where it may not look; None of a model without.
        extent: (top, left, bottom, right) of the map, in level-0 pixels.
    """

    picture: bytes = field(repr=False)
    size: "Size"
    attention: "Float[np.ndarray, 'row column'] | None" = field(default=None, repr=False, compare=False)
    extent: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


def prediction_html(
    name: str,
    predicted: str,
    probabilities: Mapping[str, float],
    boxes: "Sequence[Box]",
    facts: str,
    sketch: Sketch | None,
) -> str:
    """Prediction as HTML: picture with map and numbered patches, and bars of the probabilities.

    Arguments:
        name: of the image.
        predicted: the answer.
        probabilities: class → probability.
        boxes: patches that were read, in level-0 pixels.
        facts: what else is worth a line.
        sketch: what the image looks like; None where that is not known any more.

    Example:
        >>> "cat" in prediction_html("a.png", "cat", {"cat": 0.75, "dog": 0.25}, [], "4 patches", None)
        True
    """
    picture = "" if sketch is None else _picture(sketch, boxes, name)
    shown = sorted(probabilities, key=lambda one: -probabilities[one])[:MOST]
    bars = "".join(_bar(one, probabilities[one], one in predicted.split("|")) for one in shown)
    more = len(probabilities) - len(shown)
    rest = f'<div style="opacity:.7">and {more} more classes</div>' if more > 0 else ""
    return (
        '<div class="foveate" style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start;max-width:100%">'
        f'{picture}<div style="min-width:180px;max-width:100%">'
        f'<div style="font-weight:600;overflow-wrap:anywhere">{escape(name or "image in memory")}</div>'
        f'<div style="margin:4px 0 8px">predicted <b>{escape(predicted) or "no label"}</b></div>{bars}{rest}'
        f'<div style="opacity:.7;margin-top:8px">{escape(facts)}</div></div></div>'
    )


def _bar(name: str, probability: float, chosen: bool) -> str:
    weight = "600" if chosen else "400"
    return (
        f'<div style="display:grid;grid-template-columns:minmax(60px,auto) 100px 48px;gap:8px;font-weight:{weight}">'
        f'<span style="overflow-wrap:anywhere">{escape(name)}</span>'
        '<span style="border:1px solid currentColor;opacity:.8;height:.8em;align-self:center">'
        f'<span style="display:block;height:100%;background:#d95f02;width:{100 * probability:.1f}%"></span></span>'
        f'<span style="text-align:right">{probability:.3f}</span></div>'
    )


def _picture(sketch: Sketch, boxes: "Sequence[Box]", name: str) -> str:
    height, width = sketch.size
    line = max(height, width) / 250
    layers = [_image(sketch.picture, "jpeg", (0, 0, height, width))]
    if sketch.attention is not None:
        layers.append(_image(heat_png(sketch.attention), "png", sketch.extent, "image-rendering:pixelated"))
    for number, box in enumerate(boxes, start=1):
        place = f'x="{box.left}" y="{box.top}" width="{box.width}" height="{box.height}" fill="none"'
        layers.append(f'<rect {place} stroke="#000" stroke-width="{2 * line:g}"/>')
        layers.append(f'<rect {place} stroke="#fff" stroke-width="{line:g}"/>')
        layers.append(
            f'<text x="{box.left + 2 * line:g}" y="{box.top + 9 * line:g}" font-size="{9 * line:g}" fill="#fff" '
            f'stroke="#000" stroke-width="{line:g}" paint-order="stroke">{number}</text>'
        )
    shown = min(1.0, SIDE / max(height, width)) if max(height, width) > SIDE else SIDE / max(height, width)
    label = escape(f"{name or 'image'}: attention and {len(boxes)} patches", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}" '
        f'style="width:{width * shown:.0f}px;max-width:100%;height:auto;background:#000">{"".join(layers)}</svg>'
    )


def _image(data: bytes, kind: str, extent: tuple[float, float, float, float], style: str = "") -> str:
    top, left, bottom, right = extent
    return (
        f'<image href="data:image/{kind};base64,{base64.b64encode(data).decode()}" x="{left:g}" y="{top:g}" '
        f'width="{right - left:g}" height="{bottom - top:g}" preserveAspectRatio="none" style="{style}"/>'
    )


def heat_png(attention: "Float[np.ndarray, 'row column']") -> bytes:
    r"""Heatmap as a PNG file: from transparent where attention is low, over orange, to yellow where it is highest.

    Arguments:
        attention: (rows, columns), 0 or more.

    Example:
        >>> import numpy as np
        >>> heat_png(np.eye(3))[:4]
        b'\x89PNG'
    """
    import numpy as np
    from PIL import Image

    share = attention.astype(np.float64) / max(float(attention.max()), 1e-30)
    colours = np.zeros((*share.shape, 4), np.uint8)
    colours[..., 0], colours[..., 1] = 255, 80 + np.rint(150 * share)
    colours[..., 3] = np.where(share < FAINT, 0, np.rint(40 + 120 * share))
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "PNG")
    return stream.getvalue()


def picture_jpeg(view: "Float32[np.ndarray, 'height width channel']", unit: bool = True) -> bytes:
    """Picture of a view as a JPEG file: grey or RGB as they are, else stretched from the 1st to the 99th percentile.

    Arguments:
        view: pixels in the unit range, or of any.
        unit: whether they are in the unit range.
    """
    import numpy as np
    from PIL import Image

    bands = np.nan_to_num(view[:, :, :3] if view.shape[2] >= 3 else view[:, :, :1], posinf=1, neginf=0)
    if not unit or view.shape[2] not in (1, 3, 4):
        low, high = np.percentile(bands.reshape(-1, bands.shape[2]), (1, 99), axis=0)
        bands = (bands - low) / np.maximum(high - low, 1e-6)
    pixels = np.floor(255 * bands.clip(0, 1) + 0.5).astype(np.uint8)
    stream = io.BytesIO()
    colours = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    Image.fromarray(colours).save(stream, "JPEG", quality=85)
    return stream.getvalue()


@dataclass(frozen=True)
class History:
    """History of a training, epoch by epoch; a list of records that draws its curves in a notebook.

    Attributes:
        epochs: records as in metrics.jsonl: "epoch", "training_error", "validation_error", "training_loss" and more.
        chance: validation error of one answer for all; None where it is not known.

    Example:
        >>> history = History.of([{"epoch": 1, "training_error": 0.5}, {"epoch": 2, "training_error": 0.25}])
        >>> len(history), history["training_error"], history[-1]["epoch"]
        (2, [0.5, 0.25], 2)
    """

    epochs: tuple[dict[str, Any], ...] = ()
    chance: float | None = None

    @classmethod
    def of(cls, records: Iterable[dict[str, Any]], chance: float | None = None) -> "History":
        """History of records, in order."""
        return cls(tuple(records), chance)

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, which: int | str) -> Any:
        """One epoch's record by its place, or one column by its name."""
        if isinstance(which, str):
            return [record.get(which) for record in self.epochs]
        return self.epochs[which]

    def _repr_html_(self) -> str:
        """Curves of errors and losses, in SVG."""
        if not self.epochs:
            return "<div>no epoch has ended yet</div>"
        last = self.epochs[-1]
        told = [f"{len(self.epochs)} epochs", f"{last.get('seconds', 0):.0f} s"]
        errors = [one for one in self["validation_error"] if one is not None]
        if errors:
            told.append(f"best validation error {min(errors):.3f}")
        if self.chance is not None:
            told.append(f"one answer for all {self.chance:.3f}")
        line = None if self.chance is None else (self.chance, "one answer for all")
        return (
            f'<div class="foveate"><div style="margin-bottom:4px">{escape(" · ".join(told))}</div>'
            '<div style="display:flex;flex-wrap:wrap;gap:16px">'
            + _curves("error", self["epoch"], {name: self[f"{name}_error"] for name in COLOURS}, line)
            + _curves("loss", self["epoch"], {name: self[f"{name}_loss"] for name in COLOURS}, None)
            + "</div></div>"
        )


COLOURS = {"training": "#1b9e77", "validation": "#d95f02"}
"""Curve → colour; told apart by dashes as well."""

WIDTH, HEIGHT, MARGIN, ABOVE = 320, 214, 34, 20
"""Of a diagram, and what its axis takes to the left and its legend above, in pixels."""


def _curves(
    title: str, epochs: Sequence[int], columns: Mapping[str, Sequence[float | None]], level: tuple[float, str] | None
) -> str:
    """One diagram: a curve for every column that has values."""
    values = [one for column in columns.values() for one in column if one is not None]
    if not values:
        return ""
    highest = max([*values, *([] if level is None else [level[0]])]) * 1.05 or 1.0
    first, last = min(epochs), max(epochs)

    def place(epoch: float, value: float) -> str:
        along = 0.5 if last == first else (epoch - first) / (last - first)
        return (
            f"{MARGIN + along * (WIDTH - MARGIN - 8):.1f},{(HEIGHT - 20 - ABOVE) * (1 - value / highest) + ABOVE:.1f}"
        )

    parts = []
    for number, (name, column) in enumerate(columns.items()):
        known = [(epoch, value) for epoch, value in zip(epochs, column, strict=True) if value is not None]
        if not known:
            continue
        points = " ".join(place(epoch, value) for epoch, value in known)
        dash = "" if name == "validation" else ' stroke-dasharray="4 3"'
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"{dash}/>')
        x, y = place(*known[-1]).split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{COLOURS[name]}"/>')
        parts.append(f'<text x="{MARGIN + 50 + 70 * number}" y="12" fill="{COLOURS[name]}">{name}</text>')
    if level is not None:
        y, x2 = place(first, level[0]).split(",")[1], WIDTH - 8
        parts.append(
            f'<line x1="{MARGIN}" y1="{y}" x2="{x2}" y2="{y}" stroke="currentColor" stroke-dasharray="2 3"/>'
            f'<text x="{x2}" y="{float(y) - 3:.1f}" text-anchor="end">{escape(level[1])}</text>'
        )
    bottom = HEIGHT - 20
    axes = (
        f'<path d="M{MARGIN} {ABOVE}V{bottom}H{WIDTH - 4}" fill="none" stroke="currentColor"/>'
        f'<text x="{MARGIN - 4}" y="{ABOVE + 8}" text-anchor="end">{highest:.2g}</text>'
        f'<text x="{MARGIN - 4}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{MARGIN}" y="{HEIGHT - 5}">{first}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 5}" text-anchor="end">{last}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 5}" text-anchor="middle">epoch</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title} by epoch" fill="currentColor" font-size="11" '
        f'style="width:{WIDTH}px;max-width:100%;height:auto">'
        f"<title>{title} by epoch</title>{axes}{''.join(parts)}"
        f'<text x="{MARGIN}" y="12" font-weight="600">{title}</text></svg>'
    )
