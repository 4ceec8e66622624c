"""`foveate data speed-limits`: published road scenes as a manifest, smaller if need be."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.cli.data.actions import progress_line
from foveate.errors import ConfigError

if TYPE_CHECKING:
    from foveate.datasets import SignScenes

SUMMARY = "make a manifest of published road scenes with speed limits, reduced in size if need be"

EPILOG = """examples:
  foveate data speed-limits german GTSDB --out scenes --reduce 2
  foveate data speed-limits swedish --download --out signs

swedish: Swedish Traffic Signs, Set1/ and Set2/ with annotations.txt; classes EMPTY, 50, 70 and 80.
german:  the German Traffic Sign Detection Benchmark, gt.txt and images/; classes none, 20-30, 50, 60-80 and 100-120.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `foveate data speed-limits`."""
    parser.add_argument("country", choices=("swedish", "german"), help="which of the two published data sets")
    parser.add_argument("source", metavar="SRC", type=Path, nargs="?", help="folder of the files as published")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--download", action="store_true", help="fetch what SRC lacks first (swedish only); SRC is else DIR-published"
    )
    parser.add_argument(
        "--reduce",
        type=int,
        default=1,
        metavar="N",
        help="average squares of N×N pixels; 1 leaves the images alone (1)",
    )
    parser.add_argument("--resume", action="store_true", help="go on where an earlier call with these options stopped")


def run(arguments: argparse.Namespace) -> int:
    """Fetch what is asked for, then write the manifest, and the images if they are to be smaller."""
    if arguments.reduce < 1:
        raise ConfigError(f"--reduce must be at least 1, got {arguments.reduce}: 2 halves both sides")
    source = _source(arguments)
    if arguments.download:
        from foveate.datasets.published.download import download_swedish_signs

        download_swedish_signs(source, progress_line)
    data = _read(arguments.country, source)
    manifest = _write(data, arguments, source)
    print(f"{len(data)} images, {data.left_out} left out; train on them with --data {manifest}")
    return 0


def _source(arguments: argparse.Namespace) -> Path:
    if arguments.download and arguments.country == "german":
        raise ConfigError(
            "--download fetches the Swedish scenes only: get FullIJCNN2013.zip from "
            "https://benchmark.ini.rub.de/gtsdb_dataset.html, unpack it and give its folder"
        )
    if arguments.source is None and not arguments.download:
        raise ConfigError("no scenes to read: give the folder of the published files, or --download for the Swedish")
    source: Path = arguments.source or arguments.out.with_name(f"{arguments.out.name}-published")
    return source.expanduser()


def _read(country: str, source: Path) -> "SignScenes":
    """Read the scenes; warnings become lines on standard error."""
    from foveate.datasets import german_speed_limits, swedish_traffic_signs

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        data = (swedish_traffic_signs if country == "swedish" else german_speed_limits)(source)
    for warning in caught:
        print(f"foveate: warning: {warning.message}", file=sys.stderr)
    return data


def _write(data: "SignScenes", arguments: argparse.Namespace, source: Path) -> Path:
    from foveate.datasets.manifest.write import write_images, write_listing
    from foveate.datasets.published.scenes import check_reducible, reduced_png

    recipe: dict[str, object] = {
        "data": f"{arguments.country} speed limits",
        "source": str(source.resolve()),
        "reduce": arguments.reduce,
    }
    out: Path = arguments.out
    if arguments.reduce == 1:
        return write_listing(data, out, recipe, data.files, arguments.resume)
    check_reducible(data, arguments.reduce)
    names = [
        f"{Path(example.id).with_suffix('') if '.' in example.id else example.id}.png" for example in data.examples
    ]
    progress = progress_line("images written")

    def write(index: int, file: Path) -> None:
        file.write_bytes(reduced_png(data.open(index), arguments.reduce))

    return write_images(data, out, recipe, names, write, arguments.resume, progress, arguments.reduce)
