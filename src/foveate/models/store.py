"""Model folder: saved and loaded in the layout of the Hugging Face hub (config.json, model.safetensors, README.md)."""

import json
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from foveate._version import __version__
from foveate.atomic import whole_file, writing
from foveate.config.files import check_code
from foveate.config.serial import from_plain, to_plain
from foveate.config.settings import ModelSettings
from foveate.errors import ConfigError, MissingExtra, RunError
from foveate.models.base import Model
from foveate.models.build import build_model
from foveate.models.ensemble import Ensemble, fold_folders
from foveate.models.probabilities import UNDECIDED, Decision

SHIPPED = Path(__file__).parents[1] / "shipped"
"""Where the models that come with foveate lie."""

FORMAT_VERSION = 1
"""Raised when an older foveate could not read the folder."""
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
REQUIRED = {"format_version", "settings", "classes", "channels"}
SWITCHES = {"multi_label", "own_features"}
"""True or False; False where absent, as in folders of older versions."""
KNOWN = REQUIRED | SWITCHES | {"foveate", "card", "decision", "members"}


def shipped_models() -> tuple[str, ...]:
    """Names of the models that come with foveate, sorted; `load_model` takes them, and every verb that takes a RUN."""
    return tuple(sorted(config.parent.name for config in SHIPPED.glob(f"*/{CONFIG}")))


def shipped_model(name: str) -> Path | None:
    """Folder of a model that comes with foveate; None if there is none of that name.

    Arguments:
        name: letters, digits, ".", "_" and "-".

    Example:
        >>> shipped_model("../../etc") is None
        True
    """
    known = re.fullmatch(r"\w[\w.-]*", name) and (SHIPPED / name / CONFIG).is_file()
    return SHIPPED / name if known else None


def save_model(model: Model, folder: str | Path, card: dict[str, Any] | None = None) -> Path:
    """Write a model into a folder, made if missing; every file appears whole or not at all.

    Arguments:
        model: any model.
        folder: where; other files in it are left alone.
        card: what else is worth knowing, kept in config.json and told by the model card: "metrics" (a mapping from
            names to numbers), "data" (a sentence), "license" (an identifier), or anything JSON can hold.

    Returns:
        The folder.

    Raises:
        RunError: if the folder cannot be written.
        ConfigError: if it is an ensemble of models with a feature network of their maker's own.

    Example:
        >>> import tempfile
        >>> model = build_model(ModelSettings(patch=(24, 30)), classes=("cat", "dog"), channels=3)
        >>> folder = save_model(model, tempfile.mkdtemp())
        >>> sorted(file.name for file in folder.iterdir())
        ['README.md', 'config.json', 'model.safetensors']
    """
    folder = Path(folder)
    config = {
        "format_version": FORMAT_VERSION,
        "foveate": __version__,
        "settings": to_plain(model.settings),
        "classes": list(model.classes),
        "channels": model.channels,
        "multi_label": model.multi_label,
        **({"own_features": True} if model.own_features else {}),
        **({} if model.decision == UNDECIDED else {"decision": to_plain(model.decision)}),
        **_members(model),
        **({"card": to_plain(card)} if card else {}),
    }
    # Copies: layers of a user's own may share one tensor under two names, which the file format refuses.
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    try:
        # One block: all three are written before the first takes its place, and config.json, which says that there is
        # a model, comes last.
        with (
            whole_file(folder / CONFIG) as config_file,
            whole_file(folder / CARD) as card_file,
            whole_file(folder / WEIGHTS) as weights_file,
        ):
            save_file(tensors, weights_file, metadata={"format": "pt"})
            with writing(folder / CARD):
                card_file.write_text(model_card(model, card or {}), encoding="utf-8")
            with writing(folder / CONFIG):
                config_file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write a model to {folder}: {error.strerror or error}") from error
    return folder


def load_model(
    name_or_folder: str | Path, features: nn.Module | None = None, allow_code: Collection[str] = ()
) -> Model:
    """Load a model, in evaluation mode and on the CPU; no pretrained weights are fetched, and nothing is executed.

    Arguments:
        name_or_folder: a model folder, or a run folder that contains `model/`, or the folder of a cross-validation,
            whose folds are an `Ensemble`; else the name of a model shipped with foveate; else a hub id with a slash,
            optionally with a revision after an @.
        features: layers like those the model was built with, where it was built with layers of your own; they take on
            the saved weights.
        allow_code: functions "package.module:function" that the folder may have imported and called, to build its
            feature network.

    Returns:
        The model, its tensors equal to the saved ones to the bit.

    Raises:
        RunError: if there is no such model, or its files are missing, damaged, of another format or do not match.
        ConfigError: if it names a function that is not allowed.
        MissingExtra: if a hub id is given and huggingface-hub is not installed, or the model's feature network needs a
            package that is not.

    Example:
        >>> load_model("no-such-run")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        foveate.errors.RunError: no folder and no shipped model is called no-such-run: give the folder of a run or ...
    """
    folder = find_model(name_or_folder)
    if not (folder / CONFIG).is_file():
        folds = fold_folders(folder)
        return Ensemble([load_model(one, features, allow_code) for one in folds], [one.name for one in folds])
    config = _read_config(folder / CONFIG)
    if config.get("own_features", False) and features is None:
        raise RunError(
            f"{folder} holds a model with a feature network of its maker's own: load it in Python with "
            "load_model(folder, features=the same layers)"
        )
    try:
        model: Model
        if "members" in config:
            members = [_built(config | one, folder, None, allow_code) for one in config["members"]]
            model = Ensemble(members, [str(one["name"]) for one in config["members"]])
        else:
            model = _built(config, folder, features, allow_code)
        model.decision = _decision(config, folder)
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / CONFIG} does not describe a model: {error}") from error
    _load_tensors(model, folder / WEIGHTS)
    return model.eval()


def _built(config: dict[str, Any], folder: Path, features: nn.Module | None, allow_code: Collection[str]) -> Model:
    try:
        settings = from_plain(ModelSettings, config["settings"], "settings")
    except (ConfigError, TypeError) as error:
        raise RunError(f"{folder / CONFIG} does not describe a model: {error}") from error
    if features is None:
        check_code(settings, allow_code, folder / CONFIG)
    try:
        model = build_model(
            settings,
            config["classes"],
            config["channels"],
            multi_label=config.get("multi_label", False),
            features=features,
            pretrained=False,
        )
    except (ConfigError, TypeError) as error:
        raise RunError(f"{folder / CONFIG} does not describe a model: {error}") from error
    model.decision = _decision(config, folder)
    return model


def _decision(config: dict[str, Any], folder: Path) -> Decision:
    try:
        decision = from_plain(Decision, config.get("decision", {}), "decision")
    except ConfigError as error:
        raise RunError(f"{folder / CONFIG} has no decision rule that can be used: {error}") from error
    if not decision.fits(config["classes"], config.get("multi_label", False)):
        raise RunError(f"{folder / CONFIG} has a decision rule for other classes: foveate calibrate makes a new one")
    return decision


def _members(model: Model) -> dict[str, Any]:
    """What config.json says of the members of an ensemble; nothing of another model."""
    if not isinstance(model, Ensemble):
        return {}
    if model.own_features:
        raise ConfigError(
            "an ensemble of models with feature networks of their maker's own is not saved as one: keep their folders"
        )
    return {
        "members": [
            {"name": name, "settings": to_plain(one.settings), "decision": to_plain(one.decision)}
            for name, one in zip(model.names, model.models, strict=True)
        ]
    }


def find_model(name_or_folder: str | Path) -> Path:
    """Folder of a model: that of its config.json, or one of folds; downloaded, if need be. As `load_model` finds it."""
    name = str(name_or_folder)
    path = Path(name).expanduser()
    if path.is_dir():
        for folder in (path, path / "model"):
            if (folder / CONFIG).is_file():
                return folder
        if fold_folders(path):
            return path
        raise RunError(
            f"{path} is not a run or model folder, it has neither {CONFIG} nor model/{CONFIG}: "
            "give the folder that foveate train wrote"
        )
    if path.exists():
        raise RunError(f"{path} is a file, not a run or model folder: give the folder it lies in")
    shipped = shipped_model(name)
    if shipped is not None:
        return shipped
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?", name) and not path.parent.is_dir():
        return _download(name)
    names = shipped_models()
    ours = f"a shipped model ({', '.join(names)}), " if names else ""
    raise RunError(
        f"no folder and no shipped model is called {name}: give the folder of a run or of a model, {ours}"
        "or a hub id with a slash"
    )


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra(
            f"{name} is no folder here; to look for it on the hub: pip install 'huggingface-hub>=0.27'"
        ) from error
    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS, CARD]))
    except Exception as error:  # the hub's errors have many classes and one meaning here
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"{name} is no folder here and could not be had from the hub ({first}): check the name and the network"
        ) from error


def saved_card(folder: Path) -> dict[str, Any]:
    """What `save_model` was handed beside the model in a folder; nothing where it is one of folds."""
    return dict(_read_config(folder / CONFIG).get("card", {})) if (folder / CONFIG).is_file() else {}


def saved_decision(folder: Path) -> Decision:
    """Decision rule of a model folder, read without the model; of a folder of folds, one that decides nothing."""
    return _decision(_read_config(folder / CONFIG), folder) if (folder / CONFIG).is_file() else Decision()


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RunError(f"{path} is missing: give a folder that foveate wrote")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON ({error}): save the model again") from error
    if not isinstance(config, dict) or "format_version" not in config:
        raise RunError(f"{path} has no format_version, so foveate did not write it: give a folder that foveate wrote")
    if config["format_version"] != FORMAT_VERSION:
        raise RunError(
            f"{path} has format_version {config['format_version']}, this foveate {__version__} reads "
            f"{FORMAT_VERSION}: update your clone and pip install . again in it"
        )
    if missing := sorted(REQUIRED - config.keys()):
        raise RunError(f"{path} lacks {', '.join(missing)}: save the model again")
    if unknown := sorted(config.keys() - KNOWN):
        raise RunError(f"{path} has unknown key(s) {', '.join(unknown)}: remove them, or save the model again")
    for key in SWITCHES & config.keys():
        if not isinstance(config[key], bool):
            raise RunError(f"{path} must say true or false of {key}, got {config[key]!r}: save the model again")
    return config


def _load_tensors(model: Model, path: Path) -> None:
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing: copy the whole model folder") from error
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}): copy or save the model again") from error
    wanted = model.state_dict()
    wrong = sorted(
        name
        for name in wanted.keys() | tensors.keys()
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape
    )
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise RunError(
            f"{path} does not match the {CONFIG} beside it in {', '.join(wrong[:3])}{more}: "
            "both must come from one save"
        )
    model.load_state_dict(tensors)


def model_card(model: Model, card: dict[str, Any], exported: str | None = None) -> str:
    """Model card, the README of a model folder, of `card.md`: a YAML header the hub understands, then plain words.

    Arguments:
        model: the model.
        card: "metrics", "data", "license" and what else was handed to `save_model`.
        exported: "onnx" or "torch" if it lies beside graphs of that kind instead of a model folder's files.

    Returns:
        Markdown.
    """
    header = {
        "library_name": "foveate",
        "license": card.get("license", "other"),
        "pipeline_tag": "image-classification",
        "tags": ["foveate", model.settings.name, "model_hub_mixin", "pytorch_model_hub_mixin"],
    }
    told = {"model": model, "card": card, "metrics": to_plain(card.get("metrics")), "exported": exported}
    return _card_template().render(told, header=yaml.safe_dump(header, sort_keys=False), version=__version__)


@cache
def _card_template() -> Template:
    """Compiled once: training saves a model after each of its best epochs."""
    made = Environment(
        loader=PackageLoader("foveate.models", ""), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    return made.get_template("card.md")
