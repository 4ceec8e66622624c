"""`foveate data check`: what is wrong with a manifest, before a run of hours finds it."""

import argparse

from foveate.cli.data.actions import progress_line
from foveate.cli.parser import add_layout
from foveate.errors import ConfigError

SUMMARY = "look for what is wrong with a manifest"

EPILOG = """examples:
  foveate data check slides.csv
  foveate data check findings.csv --multi-label --json > report.json
  foveate data check slides.csv --deep                       every tile of every slide, which takes as long as it takes

Problems are listed and the exit code is 2: bad rows, missing and unreadable files, images of which nothing means
anything or whose masks leave nothing, images that are there twice, groups that cross splits. Hints are about what may
be meant: they do not change the exit code.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `foveate data check`."""
    parser.add_argument("manifest", help="CSV file, or folder with one folder per class")
    parser.add_argument("--quick", action="store_true", help="read headers only: finds no cut-off files and no copies")
    parser.add_argument("--deep", action="store_true", help="read all tiles of all levels: finds broken ones anywhere")
    parser.add_argument("--multi-label", action="store_true", help="labels are several, separated by |, or none")
    add_layout(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Check, and print the report."""
    from foveate.datasets.manifest.check import check_manifest
    from foveate.datasets.manifest.rows import Layout

    if arguments.quick and arguments.deep:
        raise ConfigError("--quick reads headers only and --deep all tiles: give one of the two")
    report = check_manifest(
        arguments.manifest,
        not arguments.quick,
        progress_line("images checked"),
        arguments.multi_label,
        arguments.deep,
        Layout.of(arguments.columns, arguments.images),
    )
    if arguments.json:
        import json

        print(json.dumps(report.plain(), indent=2))
    else:
        print(report.text())
    return 2 if report.problems else 0
