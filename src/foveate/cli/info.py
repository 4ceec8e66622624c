"""`foveate info PATH …`: what images are, and what a prediction would read of them."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from foveate.cli.parser import add_code, add_layout
from foveate.cli.predict import ALL_FAILED, DONE, SOME_FAILED, say
from foveate.errors import DataError

if TYPE_CHECKING:
    from foveate.predict import Row

SUMMARY = "say what images are, and what a prediction would read of them"

EPILOG = """\
examples:
  foveate info slide.svs                                   format, size, levels, microns per pixel, how it is read
  foveate info slide.svs --model runs/mine                 and the view, patches and bytes of a prediction
  foveate info https://host/scene.tif s3://bucket/a.zarr   only headers are transferred
  foveate info images/ --json                              one JSON object per image, one a line

No pixel is read. An image that cannot be read has `error` in its object, or a line on standard error; the others go on,
and the exit code is 3; it is 2 if none could be read.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `foveate info` takes."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="images, folders, manifests (.csv) or addresses")
    parser.add_argument("--json", action="store_true", help="print one JSON object per path, one a line")
    add_layout(parser)
    parser.add_argument("--model", metavar="RUN", help="say what a prediction with this run or model would read")
    add_code(parser)


def run(arguments: argparse.Namespace) -> int:
    """Say of every path what it is, and by the exit code whether all could be read."""
    from foveate.models import load_model
    from foveate.predict.forecast import describe_rows

    model = None
    if arguments.model is not None:
        model = load_model(arguments.model, allow_code=arguments.allow_code)
    good = bad = 0
    for told in describe_rows(_rows(arguments), model):
        good, bad = (good, bad + 1) if "error" in told else (good + 1, bad)
        if arguments.json:
            print(json.dumps(told, ensure_ascii=False, allow_nan=False), flush=True)
        else:
            _print(told)
    return DONE if not bad else SOME_FAILED if good else ALL_FAILED


def _rows(arguments: argparse.Namespace) -> "Iterator[Row]":
    """The images of all paths; a folder or manifest that is none is an image that fails."""
    from functools import partial

    from foveate.datasets.manifest.rows import Layout
    from foveate.predict import Row, find_rows

    layout = Layout.of(arguments.columns, arguments.images)
    for path in arguments.paths:
        try:
            yield from find_rows([path], layout, say)
        except (DataError, OSError) as error:
            yield Row(path, partial(_refuse, error))


def _refuse(error: Exception) -> Any:
    raise error


def _print(told: dict[str, Any]) -> None:
    """For people: a table on a terminal, lines in a pipe."""
    error = told.get("error")
    if error is not None:
        where = "" if told["path"] in error else f"{told['path']}: "
        print(f"foveate: error: {where}{error}", file=sys.stderr)
    if "size" not in told:
        return
    facts = list(_facts(told))
    if not sys.stdout.isatty():
        print(told["path"], *(f"  {label:8}{value}" for label, value in facts), sep="\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "", box=None, pad_edge=False, show_header=False, title=Text(told["path"]), title_justify="left")
    for label, value in facts:
        table.add_row(Text(label, "dim"), Text(value))
    Console().print(table)


def _facts(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    height, width = told["size"]
    yield "is", told["format"]
    channels = f"{told['channels']} channel{'s' if told['channels'] > 1 else ''} of {told['dtype']}"
    yield "size", f"{height}×{width} pixels (height×width), {channels}, {height * width / 1e6:.4g} megapixels"
    if told["bands"]:
        yield "bands", ", ".join(told["bands"])
    yield "scale", _scale(told["pixel"])
    for number, level in enumerate(told["levels"]):
        factor = " and ".join(f"{one:.10g}" for one in dict.fromkeys(level["factor"]))
        yield f"level {number}", f"{level['size'][0]}×{level['size'][1]}, factor {factor}"
    if told["nodata"] is not None:
        yield "nodata", f"{told['nodata']}"
    if told["masked"]:
        yield "mask", f"{told['masked']}: some pixels may be no data"
    if told["values"]:
        pairs = ", ".join(f"× {scale:g} + {offset:g}" for scale, offset in dict.fromkeys(map(tuple, told["values"])))
        yield "values", f"as stored; they mean {pairs}"
    if told["georeference"] is not None:
        yield "place", _place(told["georeference"])
    if told["unused"]:
        yield "unused", ", ".join(told["unused"])
    yield "read", told["reading"]
    if told["bytes"] is not None:
        yield "file", _megabytes(told["bytes"])
    if "prediction" in told:
        yield "predict", _prediction(told["prediction"])


def _scale(pixel: list[float] | None) -> str:
    if pixel is None:
        return "not known"
    height, width = (f"{side:.6g}" for side in pixel)
    return f"{height} microns per pixel" if height == width else f"{height}×{width} microns per pixel (height×width)"


def _place(told: dict[str, Any]) -> str:
    crs, count = told["crs"], len(told["points"])
    system = f"{crs[:60]}{'…' if len(crs) > 60 else ''}" if crs else "no reference system"
    return f"{system}, " + (f"{count} ground control points" if count else f"transform {tuple(told['transform'])}")


def _prediction(told: dict[str, Any]) -> str:
    parts = []
    if told["view"] is not None:
        parts.append(f"a view of {told['view'][0]}×{told['view'][1]} from level {told['view_level']}")
    if told["patches"]:
        parts.append(f"{told['patches']} patches of {told['patch'][0]}×{told['patch'][1]}")
    amount = []
    if told["tiles"] is not None:
        levels = f"level{'s' * (len(told['levels']) > 1)} {' and '.join(map(str, told['levels']))}"
        amount = [f"about {told['tiles']} tiles (of {told['tiles_of']} at {levels})"]
    amount += [] if told["bytes"] is None else [f"about {_megabytes(told['bytes'])}"]
    return " and ".join(parts) + (": " if amount else "") + ", ".join(amount)


def _megabytes(amount: int) -> str:
    return f"{amount / 1e6:.3g} MB" if amount < 1e9 else f"{amount / 1e9:.4g} GB"
