"""Training verb, `foveate train`: a model from a preset or a configuration file, resumable at any step."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from foveate.cli.parser import Parser, add_code
from foveate.config.files import PRESETS, check_code, load_settings, merge_settings, preset
from foveate.config.training import RunSettings
from foveate.errors import ConfigError, FoveateError, Interrupted, RunError

SUMMARY = "train a model from a preset or a configuration file"

USAGE = (
    "foveate train PRESET | --config FILE [--data MANIFEST] [--out RUN] [--resume] [--stage find] [--folds K] "
    "[--on-error skip] [--KEY VALUE …]"
)

DESCRIPTION = f"""Train a model, validate it every epoch and keep the best.

presets: {", ".join(PRESETS)}

Every setting below is also a key of the YAML file that --config takes and that RUN/config.yaml holds;
its default is what it is where neither PRESET nor FILE sets it.
A run stopped with Ctrl-C, or killed, goes on where it was with --resume; one stopped by an image that cannot be read
goes on with --resume --on-error skip, or when its row is no longer in the manifest.

  foveate train manifest --data images.csv --out runs/mine --training.epochs 50 --model.patch 64 64
  foveate train --resume --out runs/mine
  accelerate launch --multi_gpu --num_processes 2 -m foveate train manifest --data images.csv   (on CPUs, too)
"""


_SHORT = {
    "--data": "--data.manifest",
    "--columns": "--data.columns",
    "--images": "--data.images",
    "--on-error": "--training.on_error",
}
"""Options that have a short name."""


def main(arguments: list[str]) -> int:
    """Training, as the words after `train` ask for it; the exit code is 0."""
    options, settings = read_arguments(arguments)
    first = os.environ.get("RANK", "0") == "0"
    try:
        return _train(settings, options, first)
    except FoveateError as error:
        if first:
            raise
        sys.exit(128 + error.signal if isinstance(error, Interrupted) else 2)  # the first process says it


def read_arguments(arguments: list[str]) -> tuple[dict[str, Any], RunSettings]:
    """Options of the verb, and the settings of the run, as the command line asks for them.

    Arguments:
        arguments: the words after `train`.

    Returns:
        "out" (a path), "resume", "stage" and "folds"; and the settings, defaults < preset < file < flags.

    Raises:
        ConfigError: something is unknown, missing or of the wrong type.
        RunError: a run to resume is none, or one of several folds.
    """
    from foveate.config.flags import spell_flags

    parser = _parser()
    words = [_SHORT.get(name, name) + equals + value for name, equals, value in (w.partition("=") for w in arguments)]
    options = vars(parser.parse_arguments(spell_flags(words, parser.options())))
    words_of = ("settings", "preset", "config", "resume", "allow_code")
    changes, name, file, resume, allowed = (options.pop(key) for key in words_of)
    if name is None and file is None and not (resume and options["out"]):
        raise ConfigError(f"what to train is missing: give a preset ({', '.join(PRESETS)}) or --config FILE")
    out = options["out"] = Path(options["out"] or Path("runs") / (name or Path(file).stem))
    if options["folds"] is not None and options["stage"] != "all":
        raise ConfigError("--stage find ends before there is anything to cross-validate: leave it out, or --folds")
    if resume and options["folds"] is None and (out / "fold-1").is_dir():
        raise RunError(f"{out} holds the folds of a cross-validation: add --folds K, with the K it was begun with")
    for place in ("manifest", "published", "images", "cache_folder"):
        path = changes.get("data", {}).get(place)
        if path is not None:  # a run is resumed and evaluated from wherever the user is
            changes["data"][place] = str(Path(path).resolve())
    settings = merge_settings(_base(name, file, out), changes)
    typed = changes.get("model", {})
    sections = (typed.get("features", {}), typed.get("attention", {}), typed)
    meant = [*(one.get("name") for one in sections), typed.get("method")]
    check_code(settings.model, [*allowed, *meant], file or out)
    return {**options, "resume": resume}, settings


def _base(name: str | None, file: str | None, out: Path) -> RunSettings:
    if name is None and file is None:
        from foveate.training.run_folder import run_settings

        return run_settings(next((run for run in (out, out / "fold-1") if (run / "config.yaml").is_file()), out))
    settings = RunSettings() if name is None else preset(name)
    return settings if file is None else load_settings(file, settings)


def _parser() -> Parser:
    from foveate.config.flags import add_settings

    parser = Parser("foveate train", usage=USAGE, description=DESCRIPTION)
    parser.add_argument("preset", nargs="?", metavar="PRESET", help="settings to start from")
    parser.add_argument("--config", type=str, metavar="FILE", help="YAML file of settings, over those of the preset")
    parser.add_argument("--out", type=str, metavar="RUN", help="folder of the run; runs/PRESET unless told otherwise")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN; start where there is none")
    parser.add_argument("--folds", type=int, metavar="K", help="cross-validate: K runs in RUN/fold-1 … and folds.json")
    parser.add_argument(
        "--stage",
        choices=("find", "all"),
        default="all",
        help="find: end with the first answer, evidence read off the view; --resume goes on from there",
    )
    add_code(parser)
    add_settings(parser)
    return parser


def _train(settings: RunSettings, options: dict[str, Any], first: bool) -> int:
    out, resume = options["out"], options["resume"]
    if options["folds"] is not None:
        from foveate.training.folds import train_folds

        summary = train_folds(settings, out, options["folds"], resume=resume)
        if first:
            _tell_cache(settings)
            found = f"{summary['mean']:.4f} ± {summary['standard_error']:.4f}"
            numeric = settings.model.head.numeric
            measure = "mean absolute error" if numeric else "test error"
            print(f"{measure} {found} over {summary['k']} folds, in {out / 'folds.json'}")
            print(pooled_line(summary["pooled"]))
            calibrate = "" if numeric else f" · foveate calibrate {out}"
            print(f"the {summary['k']} models as one: foveate predict {out} PATH{calibrate}")
        return 0
    from foveate.training.loop import train

    result = train(settings, out, resume=resume, stage=options["stage"])
    if first:
        error = result.validation_error
        what = "the latest model" if error is None else f"best validation error {error:.4f}"
        _tell_cache(settings)
        print(
            f"{what} in {result.model_folder} · {result.steps} step{'s' * (result.steps != 1)} · {result.seconds:.0f} s"
        )
        print("\n".join([*_kept(settings, result.model_folder), *(result.verdict.lines() if result.verdict else ())]))
        run = shlex.quote(str(out))
        print(f"next: foveate evaluate {run} · foveate report {run} · foveate explain {run} PATH --out seen")
    return 0


def _kept(settings: RunSettings, model_folder: Path) -> list[str]:
    """That the first answer is the model, where it was to be only the beginning of another."""
    name = settings.model.name
    if json.loads((model_folder / "config.json").read_text(encoding="utf-8"))["settings"]["name"] == name:
        return []
    return [f"it is evidence alone, which reads no patches: {name} has not been better, or has not had the time"]


def pooled_line(figures: dict[str, Any]) -> str:
    """What all folds say together, in a line."""
    if "r_squared" in figures:  # of numbers
        parts = [f"{figures['n']} images pooled"]
        for key, name in (("mean_absolute_error", "mean absolute error"), ("r_squared", "R²")):
            if figures[key] is not None:
                low, high = figures[f"{key}_interval"]
                parts.append(f"{name} {figures[key]:.4g} ({low:.4g} to {high:.4g})")
        return " · ".join(parts)
    low, high = figures["interval"]
    told = f"{figures['n']} images pooled: error {figures['error']:.3f} ({low:.3f} to {high:.3f})"
    if figures["auc"] is not None:
        low, high = figures["auc_interval"]
        told += f" · AUC {figures['auc']:.3f} ({low:.3f} to {high:.3f})"
    known = {name: value for name, value in figures["recalls"].items() if value is not None}
    told += f" · recall {', '.join(f'{name} {value:.2f}' for name, value in known.items())}"
    return f"{told} · the answer is the same for all images" if figures["constant"] else told


def _tell_cache(settings: RunSettings) -> None:
    """Say what the disk cache takes, and where, if there is anything."""
    from foveate.pipeline.source_cache import open_disk_cache

    disk = open_disk_cache(settings.data)
    size = 0 if disk is None else disk.size()
    if disk is not None and size > 0:
        amount = f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e9:.1f} GB"
        print(f"cache: {amount} of decoded images and views in {disk.folder}: delete it freely")
