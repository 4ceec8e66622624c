"""`foveate data init`: a commented configuration for images as they are, and a manifest of those in a folder."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.atomic import replace_file
from foveate.cli.data.actions import progress_line
from foveate.cli.parser import add_layout
from foveate.errors import ConfigError, DataError, RunError

if TYPE_CHECKING:
    from foveate.datasets.manifest.survey import Survey

SUMMARY = "look at images and labels, and write a configuration for them, each value with its reason"

PRESETS = ("pathology", "remote-sensing", "photographs")

EPILOG = """examples:
  foveate data init photos/                              photos/ok/…, photos/scratched/…: config.yaml and manifest.csv
  foveate data init slides.csv --out slides.yaml --memory 16 --minutes 240
  foveate data init parts.csv --object 30                the smallest defect measures thirty pixels
  foveate train --config config.yaml --out runs/first    what comes next

Headers and a few thumbnails are read. An image that cannot be read is named, and training will go on without it. A
folder of images without labels gets a manifest to write them into.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `foveate data init`."""
    parser.add_argument(
        "images_or_manifest", metavar="FOLDER | CSV", help="images in a folder per class, or a manifest"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("config.yaml"), metavar="FILE", help="what to write (config.yaml)"
    )
    parser.add_argument(
        "--preset", choices=PRESETS, help="what the images are of (default: told by how they are stored)"
    )
    parser.add_argument("--memory", type=float, default=8.0, metavar="GB", help="memory that training may take (8)")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="N", help="time that training may take (60)")
    parser.add_argument(
        "--object", type=int, metavar="PIXELS", help="size of the smallest thing that tells the classes apart"
    )
    add_layout(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look, choose, write, and say how to go on."""
    from foveate.datasets.manifest.rows import Layout
    from foveate.datasets.manifest.survey import survey

    out: Path = arguments.out
    _check(arguments)
    layout = Layout.of(arguments.columns, arguments.images)
    found, labelled = survey(arguments.images_or_manifest, layout, progress_line("images looked at"))
    listed = found.table.source
    if listed.is_dir():
        listed = _write_manifest(found, out, labelled)
    if not labelled:
        raise DataError(
            f"none of {found.images:,} images has a label: write the class of each into the column label of {listed}, "
            f"or sort the images into one folder per class; then foveate data init {shlex.quote(str(listed))}"
        )
    if not found.multi_label and len(found.classes) < 2:
        raise DataError(f"every image of {listed} has the label {found.classes[0]!r}: a classifier needs two classes")
    _write(found, listed, arguments)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for name in ("memory", "minutes", "object"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name} must be positive, got {value:g}: leave it out, or give a number above 0")
    if arguments.out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(
            f"--out is a YAML file, got {arguments.out}: call it e.g. {arguments.out.with_suffix('.yaml')}"
        )
    if arguments.out.exists():
        raise RunError(f"{arguments.out} exists, and may have been edited: remove it, or choose another --out")


def _write_manifest(found: "Survey", out: Path, labelled: bool) -> Path:
    """Manifest of a folder, beside the configuration; in the folder itself it would take its place."""
    from foveate.datasets.manifest.dataset import read_table
    from foveate.datasets.manifest.write import write_manifest

    manifest = out.parent / ("manifest.csv" if out.stem == "config" else f"{out.stem}.csv")
    if manifest.parent.resolve() == found.table.folder.resolve() and manifest.name == "manifest.csv":
        manifest = manifest.with_name("images.csv")
    if manifest.is_file():  # of an earlier call, perhaps with labels by now
        before = read_table(manifest, require_labels=False)
        files = [{Path(one.file(row.path)).resolve() for row in one.rows} for one in (before, found.table)]
        if files[0] == files[1]:
            print(f"{manifest}: it is there already, with the same images, and stays")
            return manifest
    out.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(found.table, found.table.rows, manifest)
    what = f"{found.images:,} images of {len(found.classes)} classes" if labelled else f"{found.images:,} images"
    print(f"{manifest}: {what}, a row each")
    return manifest


def _write(found: "Survey", manifest: Path, arguments: argparse.Namespace) -> None:
    from foveate.config.files import commented_yaml
    from foveate.threads import available_cores
    from foveate.training.advice import Means, advise

    out: Path = arguments.out
    means = Means(arguments.memory, arguments.minutes, available_cores(), arguments.object)
    advice = advise(found, means, arguments.preset)
    again = f"foveate train --config {shlex.quote(str(out))} --out runs/{out.stem if out.stem != 'config' else 'first'}"
    place: list[tuple[str, object, str]] = [("data.manifest", str(manifest.resolve()), "the images and their labels")]
    if arguments.columns:
        place.append(("data.columns", arguments.columns, "what its columns are, as you said"))
    if arguments.images:
        place.append(("data.images", str(Path(arguments.images).resolve()), "what its paths are relative to"))
    told = f"taken for {advice.kind}: {advice.why}"
    head = [again, "", *found.facts, f"{told} (--preset {' | '.join(PRESETS)})"]
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, commented_yaml(head, [*place, *advice.choices]).encode())
    others = " or ".join(name for name in PRESETS if name != advice.kind)
    instead = "" if arguments.preset else f"; if they are not, --preset {others}"
    print("\n".join([*found.facts, f"{told}{instead}"]))
    print(f"{out}: {len(advice.choices)} values, each with its reason; next:")
    print(f"  foveate doctor --config {shlex.quote(str(out))}")
    print(f"  {again}")
