"""`foveate data circuit-boards`: boards of the tiles and defects of DeepPCB as image files."""

import argparse
from pathlib import Path

from foveate.cli.data.actions import progress_line
from foveate.config.settings import DataSettings

SUMMARY = "write circuit boards of any size, half of them with one real defect, as image files"

EPILOG = """examples:
  foveate data circuit-boards DeepPCB.zip --out boards --size 1280 1280 --train 2000 --test 500
  foveate data circuit-boards DeepPCB/PCBData --out boards

The pictures are those of DeepPCB (Tang et al. 2019; for research), which is not fetched: tiles of 640×640 without a
defect, side by side, and in half of the boards one defect at its place. Classes: none, open, short, mousebite, spur,
copper, pin-hole. No tile is in two splits. objects.csv says where the defect is.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `foveate data circuit-boards`."""
    default = DataSettings()
    parser.add_argument("source", metavar="SRC", help="DeepPCB as published: the folder PCBData, or a zip file of it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--size", type=int, nargs=2, default=default.board, metavar=("HEIGHT", "WIDTH"), help="pixels (2560 2560)"
    )
    parser.add_argument(
        "--train",
        type=int,
        default=default.train_images,
        metavar="N",
        help="training images, validation included (5000)",
    )
    parser.add_argument("--test", type=int, default=default.test_images, metavar="N", help="test images (1000)")
    parser.add_argument(
        "--validation",
        type=float,
        default=default.validation,
        metavar="SHARE",
        help="share of the training images, and of the tiles, held out to choose the model (0.1)",
    )
    parser.add_argument("--seed", type=int, default=default.generator_seed, help="determines every pixel (0)")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier call with these options stopped")


def run(arguments: argparse.Namespace) -> int:
    """Lay out the boards, write them, and say how to train on them."""
    from foveate.datasets.published.circuit_boards import circuit_boards, write_boards

    settings = DataSettings(
        source="circuit-boards",
        published=arguments.source,
        board=(arguments.size[0], arguments.size[1]),
        train_images=arguments.train,
        test_images=arguments.test,
        validation=arguments.validation,
        generator_seed=arguments.seed,
    )
    named = ("board", "train_images", "test_images", "validation", "generator_seed")
    recipe: dict[str, object] = {
        "data": settings.source,
        "source": str(Path(arguments.source).expanduser().resolve()),
        **{name: getattr(settings, name) for name in named},
    }
    data = circuit_boards(settings)
    manifest = write_boards(data, arguments.out, recipe, arguments.resume, progress_line("images written"))
    print(f"{len(data)} images; train on them with --data {manifest}")
    return 0
