"""`foveate export RUN --out DIR`: a trained model as ONNX graphs or torch.export programs, or on the hub."""

import argparse
import json
from pathlib import Path
from typing import Any

from foveate.cli.parser import add_method, add_model
from foveate.errors import ConfigError

SUMMARY = "write a trained model as ONNX or torch.export graphs that need no foveate, or push it to a hub"

EPILOG = """\
examples:
  foveate export runs/mine --out exported                       view.onnx, patch.onnx, head.onnx, preprocess.json
  python exported/predict.py exported image.png                 with onnxruntime, NumPy and Pillow alone
  foveate export runs/mine --out exported.zip                   the same in one file
  foveate export runs/mine --out exported --method top          the most attended patches in the place of draws
  foveate export runs/mine --out exported --format torch        view.pt2 ... for torch.export.load
  foveate export runs/mine --push owner/name --license mit      to the hub: config.json, model.safetensors, README.md

What each graph takes and gives, and how a seed becomes draws, is told in docs/export.md; preprocess.json says it of
this model. Each graph is run once beside the model's own numbers, and the largest difference is printed. Graphs take
any number of images and views of any size; where a layer allows one size alone, name it with --view-size.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `foveate export` takes."""
    add_model(parser, "run")
    parser.add_argument("--out", type=Path, metavar="DIR|ZIP", help="folder or .zip file to write")
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx", help="of the graphs (default: onnx)")
    add_method(parser)
    parser.add_argument(
        "--view-size", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help="of all views (default: any size)"
    )
    parser.add_argument("--push", metavar="OWNER/NAME", help="repository on the hub to push the model folder to")
    parser.add_argument("--license", metavar="NAME", help="for --push: licence of the weights, e.g. mit, cc-by-nc-4.0")
    parser.add_argument("--private", action="store_true", help="for --push: make the repository, if new, a private one")


def run(arguments: argparse.Namespace) -> int:
    """Write the graphs, push the model, and say what is where."""
    if arguments.out is None and arguments.push is None:
        raise ConfigError("nothing to do: give --out DIR for graphs, or --push OWNER/NAME for the hub")
    if arguments.view_size is not None and min(arguments.view_size) < 1:
        raise ConfigError(f"--view-size must be at least 1 1, got {arguments.view_size}: give rows and columns")
    for flag, given in (("--license", arguments.license is not None), ("--private", arguments.private)):
        if given and arguments.push is None:
            raise ConfigError(f"{flag} is for --push: add --push OWNER/NAME, or leave it out")
    from foveate.models import load_model
    from foveate.models.probabilities import refuse_numbers

    model = load_model(arguments.run, allow_code=arguments.allow_code)
    refuse_numbers(model.kind, "foveate export is")
    card = _card(arguments.run)
    if arguments.license is not None:
        card["license"] = arguments.license
    if arguments.out is not None:
        from foveate.export import export_model

        size = None if arguments.view_size is None else (arguments.view_size[0], arguments.view_size[1])
        done = export_model(model, arguments.out, arguments.format, arguments.method, size, card)
        names = ", ".join(f"{name}.{'onnx' if arguments.format == 'onnx' else 'pt2'}" for name in done.graphs)
        views = "views of any size" if size is None else f"views of {size[0]}×{size[1]}"
        print(f"{done.path}: {names} ({views}), at most {done.difference:.1e} from the model's own numbers")
        if arguments.format == "onnx" and done.path.suffix != ".zip":
            print(f"try it: python {done.path / 'predict.py'} {done.path} IMAGE")
    if arguments.push is not None:
        from foveate.export.write import push_to_hub

        address = push_to_hub(model, arguments.push, license=arguments.license, card=card, private=arguments.private)
        print(f"{address}: load it with load_model({arguments.push!r}) or foveate predict {arguments.push} IMAGE")
    return 0


def _card(run: str) -> dict[str, Any]:
    """What the run's own card tells, and what `foveate evaluate` has found since."""
    from foveate.models.store import find_model, saved_card

    card = saved_card(find_model(run))
    file = Path(run) / "metrics.json"
    if file.is_file():
        figures = json.loads(file.read_text(encoding="utf-8"))
        split, (low, high) = figures.get("split", "test"), figures["interval"]
        told = {f"{split} error": f"{figures['error']:.3f} ({low:.3f}–{high:.3f}), {figures['n']} images"}
        if figures.get("auc") is not None:
            told[f"{split} AUC"] = f"{figures['auc']:.3f}"
        card["metrics"] = {**card.get("metrics", {}), **told}
    return card
