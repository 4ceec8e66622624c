"""`foveate data colon-cancer`: the published images of colon cancer as a manifest."""

import argparse
from pathlib import Path

from foveate.cli.data.actions import progress_line

SUMMARY = "make a manifest of the published images of colon cancer"

EPILOG = """examples:
  foveate data colon-cancer CRCHistoPhenotypes_2016_04_28.zip --out colon

An image is "epithelial" if an epithelial nucleus is marked in it, else "none". Images come out of the zip file as they
were published; those of an unpacked folder stay where they are.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `foveate data colon-cancer`."""
    parser.add_argument("source", metavar="SRC", type=Path, help="the published zip file, or the folder it unpacks to")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier call with these options stopped")


def run(arguments: argparse.Namespace) -> int:
    """Write the manifest, and the images if they are in a zip file."""
    from foveate.datasets import colon_cancer
    from foveate.datasets.manifest.write import write_images, write_listing

    data = colon_cancer(arguments.source)
    recipe: dict[str, object] = {"data": "colon-cancer", "source": str(arguments.source.expanduser().resolve())}
    names = [f"{example.id}.bmp" for example in data.examples]
    if data.place.is_dir():
        files = [str(data.place / example.id / name) for example, name in zip(data.examples, names, strict=True)]
        manifest = write_listing(data, arguments.out, recipe, files, arguments.resume)
    else:

        def write(index: int, file: Path) -> None:
            file.write_bytes(data.image_bytes(index))

        progress = progress_line("images written")
        manifest = write_images(data, arguments.out, recipe, names, write, arguments.resume, progress)
    print(f"{len(data)} images; train on them with --data {manifest}")
    return 0
