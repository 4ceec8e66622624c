"""`foveate data megapixel-mnist`: canvases of handwritten digits as image files."""

import argparse
from pathlib import Path

from foveate.cli.data.actions import progress_line
from foveate.config.settings import DataSettings

SUMMARY = "write canvases of handwritten digits as image files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `foveate data megapixel-mnist`."""
    default = DataSettings()
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--size", type=int, nargs=2, default=default.canvas, metavar=("HEIGHT", "WIDTH"), help="pixels (1500 1500)"
    )
    parser.add_argument(
        "--channels", type=int, choices=(1, 3), default=default.channels, help="1 is grey (the default), 3 is RGB"
    )
    parser.add_argument("--train", type=int, default=default.train_images, metavar="N", help="training images (5000)")
    parser.add_argument("--test", type=int, default=default.test_images, metavar="N", help="test images (1000)")
    parser.add_argument("--noise", type=int, default=default.noise, metavar="N", help="noise strokes an image (50)")
    parser.add_argument(
        "--noise-under-digits", action="store_true", help="paste strokes under digits, not over them as the original"
    )
    parser.add_argument(
        "--strokes",
        choices=("bank", "fresh", "varied"),
        default=default.strokes,
        help="bank: 50 a split, as published (the default); fresh: every image its own; varied: of many kinds",
    )
    parser.add_argument(
        "--digits", default=default.digits, help="bundled (the default), mnist (downloaded once), or an .npz file"
    )
    parser.add_argument("--seed", type=int, default=default.generator_seed, help="determines every pixel (0)")
    parser.add_argument(
        "--format", choices=("png", "canvas"), default="png", help="png, or canvas: small .npz files foveate can read"
    )
    parser.add_argument("--resume", action="store_true", help="go on where an earlier call with these options stopped")


def run(arguments: argparse.Namespace) -> int:
    """Make the canvases, write them, and say how to train on them."""
    from foveate.datasets.megapixel_mnist.dataset import megapixel_mnist, write_canvases

    settings = DataSettings(
        source="megapixel-mnist",
        digits=arguments.digits,
        canvas=(arguments.size[0], arguments.size[1]),
        channels=arguments.channels,
        train_images=arguments.train,
        test_images=arguments.test,
        noise=arguments.noise,
        noise_over_digits=not arguments.noise_under_digits,
        strokes=arguments.strokes,
        generator_seed=arguments.seed,
    )
    named = ("digits", "canvas", "channels", "train_images", "test_images", "noise", "noise_over_digits", "strokes")
    recipe = {name: getattr(settings, name) for name in (*named, "generator_seed")}
    data = megapixel_mnist(settings)
    manifest = write_canvases(
        data, arguments.out, recipe, arguments.format, arguments.resume, progress_line("images written")
    )
    print(f"{len(data)} images; train on them with --data {manifest}")
    return 0
