"""`foveate explain RUN PATH … --out DIR`: what the model saw, image by image."""

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.cli.parser import Instead, add_looking, add_resume, check_looking
from foveate.cli.predict import conclude, predict_rest, say
from foveate.errors import ConfigError

if TYPE_CHECKING:
    from foveate.explain import Explainer
    from foveate.models import Look
    from foveate.pipeline.inference import Processes
    from foveate.predict import Journal, Row

SUMMARY = "show where a trained model looked in images, what it saw there, and what that was worth"

EPILOG = """\
examples:
  foveate explain runs/demo digits/images/test-00000.png --out seen     one image
  foveate explain runs/mine slides.csv --out seen --samples 8           the spread over eight draws
  foveate explain runs/mine slide.svs --out seen --what-if 5            what five other seeds would have drawn and said
  foveate explain runs/mine --evolution --out seen                      how the attention moved in training

DIR gets index.html, predictions.csv (that of foveate predict with the same options) and a folder per image:
explanation.html, a page that needs nothing else; overlay.png; patches/; patches.geojson for QuPath, in level-0 pixels;
attention.tif and attention.npz, the map at its own resolution with the affine map from cells to level-0 pixels, and
heatmap.geojson, the same as detections for QuPath; and explanation.json. Where an image has a place on earth,
attention.tif is a GeoTIFF and patches-wgs84.geojson is in
degrees. Images that cannot be read go to errors.csv, and the exit code is 3; it is 2 if none could be read. Several
processes (torchrun, accelerate launch) share the images; a call that was stopped goes on with --resume.

With --evolution DIR gets evolution.png, a row per image and a column per epoch, and evolution.gif, a frame per epoch:
the maps that a run trained with --training.watch kept of its validation images, every --training.watch_every epochs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `foveate explain` takes."""
    paths = add_looking(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder to write to")
    parser.add_argument("--what-if", type=int, default=0, metavar="K", help="try K other seeds as well (default: 0)")
    add_resume(parser)
    parser.add_argument(
        "--evolution", action=Instead, of=paths, help="draw how the attention moved while RUN was trained; no PATH then"
    )


def run(arguments: argparse.Namespace) -> int:
    """Predict and explain, say what is wrong with the attention, and what failed."""
    _check(arguments)
    if arguments.evolution:
        return _draw_evolution(arguments)
    from foveate.explain.page import Entry
    from foveate.pipeline.inference import join_processes
    from foveate.predict import PredictionFile, ReceiptTally, more_columns, receipt_line

    processes = join_processes()
    explainer, journal, seen = processes.together(partial(_task, arguments, processes))
    if not predict_rest(explainer.model, journal, explainer.options, arguments, processes, seen, "explaining"):
        return 0
    costs, out = ReceiptTally(), arguments.out / "predictions.csv"
    explainer.entries.clear()  # of this process and this call
    with PredictionFile(out, explainer.model.classes, more_columns(explainer.model)) as file:
        for row, outcome, entry in journal.outcomes():
            costs(row, outcome)
            file(row, outcome)
            if entry is not None:
                explainer.entries.append(Entry(**entry | {"warnings": tuple(entry["warnings"])}))
    summary = file.summary
    index = explainer.finish([(failure.path, failure.message) for failure in summary.failures])
    journal.discard()
    code = conclude(summary, out)
    for line in _warnings(explainer):
        print(line)
    print(receipt_line(costs.total()))
    print(f"{summary.done} explanation{'s' * (summary.done != 1)}: open {index}")
    return code


def _task(
    arguments: argparse.Namespace, processes: "Processes"
) -> "tuple[Explainer, Journal, Callable[[Row, Look], None]]":
    """Who explains, where it is written down, and what to call with each look."""
    from foveate.datasets.manifest.rows import Layout
    from foveate.explain import Explainer, folder_names
    from foveate.models import DrawOptions, load_model
    from foveate.predict import Journal, check_output, choose_device, dependencies, find_rows
    from foveate.threads import set_reading_threads

    table = check_output(arguments.out / "predictions.csv")
    device = choose_device(arguments.device, processes.local)
    set_reading_threads(arguments.threads)
    layout = Layout.of(arguments.columns, arguments.images)
    rows = find_rows(arguments.paths, layout, say if processes.first else None)
    model = load_model(arguments.run, allow_code=arguments.allow_code).to(device)
    options = DrawOptions(arguments.samples, arguments.method, arguments.seed)
    explainer = Explainer(model, arguments.out, options, what_if=arguments.what_if, run=arguments.run)
    names = dict(zip(rows, folder_names([row.path for row in rows]), strict=True))

    def is_kept(row: "Row", entry: dict[str, Any] | None) -> bool:
        ours = entry is not None and entry["folder"] == names[row]
        return ours and (arguments.out / names[row] / "explanation.json").is_file()

    about = dependencies(model, options, what_if=arguments.what_if)
    journal = Journal(table, rows, about, lambda _: asdict(explainer.entries[-1]), is_kept)
    return explainer, journal, lambda row, look: explainer(row.path, look, names[row], row.labels)


def _check(arguments: argparse.Namespace) -> None:
    check_looking(arguments)
    if arguments.evolution and arguments.paths:
        raise ConfigError(
            f"--evolution shows the images that {arguments.run} watched, got {arguments.paths[0]}: leave out PATH"
        )
    asked = (arguments.samples, arguments.method, arguments.seed, arguments.what_if)
    if arguments.evolution and asked != (1, None, 0, 0):
        raise ConfigError("--evolution shows maps as they were kept: leave out --samples, --method, --seed, --what-if")
    if arguments.what_if < 0:
        raise ConfigError(f"--what-if must be at least 0, got {arguments.what_if}: 0 tries no other seed")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ConfigError(f"--out {arguments.out} is a file: explanations go to a folder, name another")


def _draw_evolution(arguments: argparse.Namespace) -> int:
    """The maps that a run kept, as a picture and as an animation."""
    from foveate.datasets import open_dataset
    from foveate.explain import animate_evolution, draw_evolution
    from foveate.training.run_folder import run_settings

    run = Path(arguments.run)
    settings = run_settings(run)
    run = run if (run / "config.yaml").is_file() else run.parent
    dataset = open_dataset(settings.data, settings.seed, numbers=settings.model.head.numeric)
    picture, animation = arguments.out / "evolution.png", arguments.out / "evolution.gif"
    draw_evolution(run, dataset, picture)
    animate_evolution(run, dataset, animation)
    print(f"how the attention moved: {picture} and, epoch by epoch, {animation}")
    return 0


def _warnings(explainer: "Explainer") -> Iterator[str]:
    """What is wrong with the attention, image by image; said once where it is the same with many, but for numbers."""
    found: dict[str, list[str]] = {}
    for entry in explainer.entries:
        for warning in entry.warnings:
            found.setdefault(re.sub(r"\d[\d.,]*", "", warning), []).append(f"{entry.path}: {warning}")
    for lines in found.values():
        more = f" (and {len(lines) - 1} more like it)" if len(lines) > 1 else ""
        yield f"warning: {lines[0]}{more}"
