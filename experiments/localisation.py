"""Where trained models look, side by side with what is there, and how well their maps find it.

Draws a few test images with their known objects beside the attention map of every run, as the paper's figures do, and
prints a table of scores with 95 % intervals (docs/explain.md says what they are) over the test images that all have in
common. Runs of the same NAME, such as the folds of a cross-validation, are taken together: each image is judged by the
run that was tested on it.

    python experiments/localisation.py ATS-10=runs/ats Deep-MIL=runs/mil --out maps.png
    python experiments/localisation.py ATS=runs/ats/fold-1 ATS=runs/ats/fold-2 MIL=runs/mil/fold-1 MIL=runs/mil/fold-2
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveate.config.settings import DataSettings
from foveate.datasets import open_dataset
from foveate.datasets.types import ImageDataset
from foveate.explain import Explanation, MapScores, explain, known_objects, score_maps
from foveate.explain.figures import show_boxes, show_image, show_map, small_picture
from foveate.explain.localisation import Average, Localisation, average_scores
from foveate.images import Source
from foveate.models import DrawOptions, Model, load_model
from foveate.pipeline.loader import split_indices
from foveate.training.folds import read_splits
from foveate.training.run_folder import run_settings
from foveate.types import Box

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = {
    "mass": "attention on objects",
    "chance": "by chance",
    "pointing": "pointing game",
    "average_precision": "average precision",
    "draws_that_hit": "patches that hit",
    "objects_hit": "objects hit",
}
"""Scores and what the table calls them."""

SIDE, TITLE, DPI = 2.4, 0.3, 120
"""Longer side of a panel and height of a line of text in inches, and pixels per inch."""

TRUTH = "#00d0ff"
"""Colour of what is known to be there; the maps have none like it."""


@dataclass(frozen=True)
class Trained:
    """A run, and the images it is judged on.

    Attributes:
        model: of the run.
        dataset: its images.
        indices: image id → example number, of one split.
    """

    model: Model
    dataset: ImageDataset
    indices: Mapping[str, int]


Contest = Mapping[str, Sequence[Trained]]
"""Name → the runs of that name."""


def main(words: Sequence[str] | None = None) -> None:
    """Draw the figure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="run folders, and what to call them")
    parser.add_argument("--out", type=Path, metavar="FILE", help="picture to write")
    parser.add_argument(
        "--images", type=int, default=4, help="images to draw, spread over those in common (default: 4)"
    )
    parser.add_argument("--ids", nargs="*", default=[], help="images to draw instead")
    parser.add_argument("--split", default="test", help="which images (default: test)")
    parser.add_argument("--samples", type=int, default=1, help="draws per image (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    arguments = parser.parse_args(words)
    contest = open_runs(arguments.runs, arguments.split)
    ids = common_ids(contest)
    if not ids:
        parser.error(f"no image with an object is in the {arguments.split} split of every name: give runs on the same")
    strange = sorted(set(arguments.ids) - set(ids))
    if strange:
        parser.error(f"{strange[0]} is not among the {len(ids)} images in common: choose --ids from {', '.join(ids)}")
    print(table({name: judge(runs, ids, arguments.samples, arguments.seed) for name, runs in contest.items()}))
    if arguments.out is not None:
        places = np.unique(np.linspace(0, len(ids) - 1, min(arguments.images, len(ids))).round().astype(int))
        shown = arguments.ids or [ids[place] for place in places]
        draw(contest, shown, arguments.out, arguments.samples, arguments.seed)


def open_runs(words: Sequence[str], split: str) -> Contest:
    """Load runs, and open their images; each data set once."""
    opened: dict[tuple[DataSettings, int], ImageDataset] = {}
    contest: dict[str, list[Trained]] = {}
    for word in words:
        named, _, place = word.rpartition("=")
        folder = Path(place)
        settings = run_settings(folder)
        key = (settings.data, settings.seed)
        if key not in opened:
            opened[key] = open_dataset(*key)
        dataset = read_splits(folder, opened[key])
        indices = {dataset.examples[index].id: index for index in split_indices(dataset, split)}
        contest.setdefault(named or folder.name, []).append(Trained(load_model(str(folder)), dataset, indices))
    return contest


def common_ids(contest: Contest) -> list[str]:
    """Images that every name has a run for, and in which there is something to find; sorted."""
    common = set.intersection(*(set().union(*(run.indices for run in runs)) for runs in contest.values()))
    first = next(iter(contest.values()))
    return [name for name in sorted(common) if objects_of(first, name)]


def judge(runs: Sequence[Trained], ids: Sequence[str], samples: int, seed: int) -> Localisation:
    """The scores of runs on images, each judged by the run that has it."""
    scores: list[MapScores] = []
    groups: list[str | None] = []
    for run in runs:
        indices = [run.indices[name] for name in ids if tested(runs, name) is run]
        for index, found in score_maps(run.model, run.dataset, indices, samples, seed):
            scores.append(found)
            groups.append(run.dataset.examples[index].group)
    return average_scores(scores, groups)


def tested(runs: Sequence[Trained], name: str) -> Trained:
    """The run that an image is judged by."""
    return next(run for run in runs if name in run.indices)


def objects_of(runs: Sequence[Trained], name: str) -> tuple[Box, ...]:
    """What is known to be in an image."""
    run = tested(runs, name)
    return known_objects(run.dataset, run.indices[name])


def draw(contest: Contest, ids: Sequence[str], path: Path, samples: int, seed: int) -> None:
    """Draw images with what every name saw in them."""

    def look(runs: Sequence[Trained], name: str) -> Explanation:
        run = tested(runs, name)
        return explain(
            run.model, run.model.look(run.dataset.open(run.indices[name]), DrawOptions(samples, seed=seed)), name
        )

    first = next(iter(contest.values()))
    sources = [tested(first, name).dataset.open(tested(first, name).indices[name]) for name in ids]
    seen = {called: [look(runs, name) for name in ids] for called, runs in contest.items()}
    draw_side_by_side(path, sources, [objects_of(first, name) for name in ids], seen)


def draw_side_by_side(
    path: Path | str,
    sources: Sequence[Source],
    objects: Sequence[Sequence[Box]],
    seen: Mapping[str, Sequence[Explanation]],
) -> None:
    """Draw a row per image: the image with what is known to be there, then the attention map of each model.

    Objects of one pixel are drawn as dots, larger ones as frames. Each map has a scale of its own, from 0 to its
    largest probability; the frames over it are the patches of the model's first draw, if it draws. A model without a
    map has its patches over the image. After the figures of Katharopoulos & Fleuret, "Processing Megapixel Images with
    Deep Attention-Sampling Models" (ICML 2019), section 4.

    Arguments:
        path: the picture to write; its ending chooses the format.
        sources: the images, one per row.
        objects: what is there, image by image, in level-0 pixels.
        seen: name of each model → what it saw, image by image.

    Raises:
        ImageError: an image cannot be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 1 + len(seen)
    heights = [SIDE * min(1.0, source.size[0] / source.size[1]) + TITLE for source in sources]
    figure = Figure(figsize=(SIDE * columns, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(sources), columns, squeeze=False, height_ratios=heights)
    for row, (source, known) in enumerate(zip(sources, objects, strict=True)):
        picture = small_picture(source)
        show_image(panels[row, 0], picture, source.size, source.name.rpartition("/")[2])
        points = [box for box in known if box.size == (1, 1)]
        middles = np.array([(box.left + box.width / 2, box.top + box.height / 2) for box in points]).reshape(-1, 2)
        panels[row, 0].plot(*middles.T, linestyle="none", marker="o", markersize=1.5, color=TRUTH)
        show_boxes(panels[row, 0], [box for box in known if box.size != (1, 1)], TRUTH)
        for panel, (name, told) in zip(panels[row, 1:], seen.items(), strict=True):
            title = name if row == 0 else ""
            show_image(panel, picture, source.size, title)
            _show_seen(panel, told[row], title)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def _show_seen(panel: "Axes", seen: Explanation, title: str) -> None:
    extent = seen.extent
    if seen.attention is not None and extent is not None:
        show_map(panel, seen.attention, extent, seen.size, title)
    if seen.drawn:
        show_boxes(panel, [patch.box for patch in seen.patches if patch.draw == 0])


def table(judged: Mapping[str, Localisation]) -> str:
    """Scores as Markdown: means, and their 95 % intervals in brackets."""
    heads = ["", "images", "objects per image", *COLUMNS.values()]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for name, one in judged.items():
        cells = [name, str(one.images), f"{one.objects_per_image:.1f}"]
        cells += [cell(one.scores[score]) for score in COLUMNS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(score: Average | None) -> str:
    """A score in a table.

    Example:
        >>> cell(Average(0.5, (0.25, 0.75), 8)), cell(None)
        ('0.500 (0.250–0.750)', '–')
    """
    return "–" if score is None else f"{score.mean:.3f} ({score.interval[0]:.3f}–{score.interval[1]:.3f})"


if __name__ == "__main__":
    main()
