"""`foveate view RUN PATH …`: a local page with deep zoom over images and what a model saw in them."""

import argparse
import os
import sys
import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foveate.cli.parser import add_looking, check_looking
from foveate.cli.predict import say
from foveate.errors import DataError, FoveateError

if TYPE_CHECKING:
    from foveate.predict import Row

SUMMARY = "show images of any size on a local page, with what a trained model saw in them"

EPILOG = """\
examples:
  foveate view runs/mine slide.svs                         one slide; the page opens in the browser
  foveate view runs/mine slides/ --samples 4               a folder, to choose from
  foveate view runs/mine slide.svs --port 0 --no-browser   at any free port; the address is printed

The page is at 127.0.0.1, for this machine alone, and loads nothing from elsewhere. An image is looked at when it is
chosen, as foveate predict would with the same options; its tiles are made when they are shown, from the nearest level
that the file has. Only what is named here can be seen. On another machine: ssh -L 8000:localhost:8000 THERE, run it
there, and open http://localhost:8000 here. Ctrl-C ends it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `foveate view` takes."""
    add_looking(parser)
    parser.add_argument("--port", type=int, default=8000, help="where to listen; 0: any that is free (default: 8000)")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open no browser")


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    check_looking(arguments)
    from foveate.datasets.manifest.rows import Layout
    from foveate.models import DrawOptions, load_model
    from foveate.predict import choose_device, find_rows
    from foveate.view import Gallery, ViewServer

    device = choose_device(arguments.device)
    rows = find_rows(arguments.paths, Layout.of(arguments.columns, arguments.images), say)
    _check_some(rows)
    model = load_model(arguments.run, allow_code=arguments.allow_code).to(device)
    gallery = Gallery(model, rows, DrawOptions(arguments.samples, arguments.method, arguments.seed))
    with ViewServer(gallery, arguments.port) as server:
        print(f"{len(rows)} image{'s' * (len(rows) != 1)}: open {server.address} (Ctrl-C ends it)", flush=True)
        if not arguments.no_browser and _has_screen():
            webbrowser.open(server.address)
        server.serve_forever()
    return 0


def _check_some(rows: "Sequence[Row]") -> None:
    """Refuse to start if no image at all can be opened; those that cannot among others are told on the page."""
    failed: Exception | None = None
    for row in rows:
        try:
            _ = row.open().header
        except (FoveateError, OSError) as error:
            failed = failed or error
        else:
            return
    if isinstance(failed, FoveateError) and len(rows) == 1:
        raise failed
    raise DataError(f"none of {len(rows)} images can be opened; the first: {failed}")


def _has_screen() -> bool:
    """Whether a browser would open in a window, and not in this terminal."""
    return sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
