"""What the verbs that look at images with a trained model take alike: predict, explain and view."""

import argparse
from typing import get_args

from foveate.errors import ConfigError
from foveate.settings import Method

__all__ = ["add_looking", "check_looking"]


def add_looking(parser: argparse.ArgumentParser) -> argparse.Action:
    """Declare which model looks at which images, and how it draws.

    Returns:
        The argument that names the images.
    """
    parser.add_argument("run", metavar="RUN", help="a run or model folder, a shipped model's name, or a hub id")
    paths = parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="images, folders of images, or manifests (.csv)"
    )
    parser.add_argument("--method", choices=get_args(Method), help="how patches are drawn (default: as in training)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="draws to average (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draws (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: auto)")
    return paths


def check_looking(arguments: argparse.Namespace) -> None:
    """Refuse what no model can do.

    Raises:
        ConfigError: fewer than one draw is to be averaged.
    """
    if arguments.samples < 1:
        raise ConfigError(f"--samples must be at least 1, got {arguments.samples}: 1 is one draw, 4 averages four")
