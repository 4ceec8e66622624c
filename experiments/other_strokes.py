"""Error of a digit model on canvases whose noise strokes it cannot have learnt by heart, by kind of stroke.

    python experiments/other_strokes.py [megapixel-mnist] --digits bundled --strokes own pens [--images 1000] [--under]

Every canvas has strokes of its own, and digits of the test half. "own" are Megapixel MNIST's (`data.strokes: fresh`).
Three other generators are drawn by Pillow and share no code with it: "arcs", by which variants of a training may be
compared; and two by which the result is judged and nothing is ever trained or chosen: "lines", what the paper says in
words, two thin straight strokes at random angles; and "pens", which are harder: straight, bent and zig-zag strokes
anywhere in their square, thin and thick, bright and dim.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from foveate.config.settings import DataSettings
from foveate.datasets import MegapixelMnist, megapixel_mnist
from foveate.evaluation.evaluate import Evaluation, evaluate
from foveate.models import DrawOptions, load_model
from foveate.pipeline.loader import split_indices

SIDE, FINE = 28, 4
"""Height and width of a pattern; the pixels a side that one of its pixels is averaged from."""

Points = npt.NDArray[np.float64]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="megapixel-mnist", help="a run, a model folder or a shipped name")
    parser.add_argument("--digits", nargs="+", default=["bundled"], help="bundled, mnist or .npz files")
    parser.add_argument("--strokes", nargs="+", choices=("own", *KINDS), default=["own"], help="kinds of strokes")
    parser.add_argument("--under", action="store_true", help="strokes under the digits")
    parser.add_argument("--images", type=int, default=1000, help="canvases of each kind (1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the canvases, which no training may use (1)")
    arguments = parser.parse_args()
    for digits in arguments.digits:
        for strokes in arguments.strokes:
            settings = DataSettings(
                digits=digits,
                test_images=arguments.images,
                noise_over_digits=not arguments.under,
                generator_seed=arguments.seed,
            )
            result = measured(arguments.model, settings, strokes)
            low, high = result.interval
            covered = result.coverage.covered_per_image if result.coverage is not None else float("nan")
            where = "under" if arguments.under else "over"
            print(
                f"{digits}, {strokes} strokes {where} the digits: error {result.error:.3f} ({low:.3f}-{high:.3f}) "
                f"of {result.n}, {covered:.2f} of 5 digits covered",
                flush=True,
            )


def measured(model: str, settings: DataSettings, strokes: str) -> Evaluation:
    """Evaluation of a model on the test canvases of settings, with strokes of a kind, different on every canvas.

    Arguments:
        model: a run, a model folder or a shipped name.
        settings: of the canvases; `strokes` and `train_images` do not count.
        strokes: "own", or a name in `KINDS`.
    """
    settings = replace(settings, source="megapixel-mnist", strokes="fresh", train_images=1)
    data = megapixel_mnist(settings)
    if strokes != "own":
        data = with_strokes(data, KINDS[strokes], settings.noise, settings.generator_seed)
    return evaluate(load_model(model), data, split_indices(data, "test"), DrawOptions(seed=settings.generator_seed))


def with_strokes(
    data: MegapixelMnist, draw: Callable[[np.random.Generator], npt.NDArray[np.uint8]], noise: int, seed: int
) -> MegapixelMnist:
    """The same canvases with other strokes, which lie at the same places and are different on every canvas.

    Arguments:
        data: canvases that draw their strokes when they are opened.
        draw: makes a pattern.
        noise: patterns on a canvas.
        seed: of the patterns.
    """
    generator = np.random.default_rng(seed)
    strokes = np.stack([draw(generator) for _ in range(len(data) * noise)])
    index = np.arange(len(data.stamps), len(data.stamps) + len(strokes), dtype=np.int32).reshape(len(data), noise)
    return replace(
        data,
        stamps=np.concatenate([data.stamps, strokes]),
        stamp_labels=np.concatenate([data.stamp_labels, np.full(len(strokes), -1, np.int8)]),
        stamp_index=np.concatenate([data.stamp_index, index], axis=1),
        stroke_seed=None,
    )


def lines(generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Two straight strokes at random angles, a pixel wide, through the square from side to side."""
    image = Image.new("L", (SIDE, SIDE))
    for _ in range(2):
        start, end = _ends(generator, 80.0, 80.0)
        ends = [(float(start[1]), float(start[0])), (float(end[1]), float(end[0]))]
        ImageDraw.Draw(image).line(ends, fill=int(generator.integers(204, 256)), width=1)
    return np.array(image)


def pens(generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One or two pen strokes: straight, bent (a quadratic Bézier curve) or zig-zag, of any width and brightness."""
    pattern = np.zeros((SIDE, SIDE))
    for _ in range(generator.integers(1, 3)):
        kind = generator.integers(3)
        start, end = _ends(generator, 10.0, 34.0)
        across = np.array([end[1] - start[1], start[0] - end[0]]) / np.hypot(*(end - start))
        if kind == 0:
            points = np.stack([start, end])
        elif kind == 1:
            t = np.linspace(0, 1, 24)[:, None]
            middle = (start + end) / 2 + across * generator.uniform(-16, 16)
            points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        else:
            corners = int(generator.integers(3, 7))
            along = np.linspace(0, 1, corners)[:, None]
            sign = np.where(np.arange(corners) % 2 == 0, 1.0, -1.0)[:, None]
            points = start + along * (end - start) + sign * across * generator.uniform(2, 6)
        line = _line(points, generator.uniform(1.0, 2.5)) * generator.uniform(0.5, 1.0)
        pattern = np.maximum(pattern, line)
    return np.rint(255 * pattern).astype(np.uint8)


def arcs(generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One arc of a circle with a bar across it, or two bars that cross, thin and bright."""
    angle = generator.uniform(0, 2 * np.pi) + np.linspace(0, generator.uniform(0.5, 2.0), 24)
    radius = generator.uniform(8, 24)
    centre = generator.uniform(4, 24, 2) - radius * np.array([np.sin(angle[12]), np.cos(angle[12])])
    arc = centre + radius * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    bars = [np.stack(_ends(generator, 14.0, 40.0)) for _ in range(2)]
    lines = [arc, bars[0]] if generator.random() < 0.5 else bars
    width, bright = generator.uniform(1.0, 1.8), generator.uniform(0.75, 1.0)
    pattern = np.maximum(_line(lines[0], width), _line(lines[1], width))
    return np.rint(255 * bright * pattern).astype(np.uint8)


KINDS: dict[str, Callable[[np.random.Generator], npt.NDArray[np.uint8]]] = {"arcs": arcs, "lines": lines, "pens": pens}
"""Generators of patterns other than Megapixel MNIST's own."""


def _ends(generator: np.random.Generator, shortest: float, longest: float) -> tuple[Points, Points]:
    """Two ends of a stroke about anywhere in the square, which it may leave."""
    centre, angle = generator.uniform(6, SIDE - 6, 2), generator.uniform(0, np.pi)
    half = generator.uniform(shortest, longest) / 2 * np.array([np.sin(angle), np.cos(angle)])
    return centre - half, centre + half


def _line(points: Points, width: float) -> npt.NDArray[np.float64]:
    """A line through points (row, column) of a width in pixels, 1 where it covers a pixel wholly."""
    image = Image.new("L", (SIDE * FINE, SIDE * FINE))
    corners = [(float(column) * FINE, float(row) * FINE) for row, column in points]
    ImageDraw.Draw(image).line(corners, fill=255, width=max(1, round(width * FINE)), joint="curve")
    pixels = np.asarray(image, dtype=np.float64) / 255
    averaged: npt.NDArray[np.float64] = pixels.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))
    return averaged


if __name__ == "__main__":
    main()
