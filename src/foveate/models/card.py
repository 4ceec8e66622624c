"""The README of a model folder: what it is, what it expects, how to use it."""

from typing import Any

import yaml

from foveate._version import __version__
from foveate.config.serial import to_plain
from foveate.models.base import Model

__all__ = ["model_card"]


def model_card(model: Model, card: dict[str, Any]) -> str:
    """Write the model card: a YAML header the hub understands, then plain words.

    Arguments:
        model: the model.
        card: "metrics", "data", "license" and what else was handed to `save_model`.

    Returns:
        Markdown.
    """
    header = {
        "library_name": "foveate",
        "license": card.get("license", "other"),
        "pipeline_tag": "image-classification",
        "tags": ["foveate", model.settings.name, "model_hub_mixin", "pytorch_model_hub_mixin"],
    }
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {model.settings.name} for {len(model.classes)} classes",
        _summary(model),
        "## What it expects",
        "\n".join(f"- {line}" for line in _expectations(model)),
        "## How to use it",
        _usage(model),
    ]
    if "data" in card:
        sections += ["## Data", str(card["data"])]
    if card.get("metrics"):
        rows = [f"| {name} | {_figure(value)} |" for name, value in to_plain(card["metrics"]).items()]
        sections += ["## Figures", "\n".join(["| figure | value |", "|---|---|", *rows])]
    sections.append(f"Written by foveate {__version__}.")
    return "\n\n".join(sections) + "\n"


def _usage(model: Model) -> str:
    own = ", features=network" if model.own_features else ""
    comment = "this folder, and layers as those it was trained with" if own else "this folder"
    code = (
        f'```python\nfrom foveate import load_model\n\nmodel = load_model("PATH"{own})  # {comment}\n'
        'print(model.predict("image.png"))\n```'
    )
    return code if own else f"{code}\n\nor, from a shell, `foveate predict PATH image.png`."


def _summary(model: Model) -> str:
    height, width = model.settings.patch
    if not model.reads_patches:
        how = "looks at the whole image at low resolution"
    elif model.view is None:
        down, along = model.settings.mil.stride or height, model.settings.mil.stride or width
        how = (
            f"reads patches of {height}×{width} pixels all over the image at full resolution, one every {down} pixels "
            f"down and {along} along"
        )
    else:
        how = (
            f"looks at the image at low resolution and reads {model.patches} patches of {height}×{width} pixels "
            f'at full resolution (drawn with method "{model.method}")'
        )
    return f"A classifier of large images with {model.parameter_count:,} trained parameters. It {how}."


def _expectations(model: Model) -> list[str]:
    wanted = model.settings.input
    values = "pixel values in their type's full range (0 to 255 for 8 bits), or floats from 0 to 1"
    if wanted.normalise == "bands":
        values = "pixel values in the range of the training images, whose mean and deviation per band it knows"
    how_many = "any number of these classes" if model.multi_label else "one of these classes"
    return [f"{_images(model)}{_seen(model)}", values, f"{how_many}: {', '.join(model.classes)}"]


def _images(model: Model) -> str:
    wanted = model.settings.input
    if wanted.bands:
        return f"images of any size with bands {', '.join(map(str, wanted.bands))}, counted from 0"
    if wanted.colour != "auto":
        return f"images of any size, grey or RGB, which it sees in {wanted.colour.replace('rgb', 'RGB')}"
    return f"images of any size with {model.channels} channel(s)"


def _seen(model: Model) -> str:
    if model.view is None:
        return ""
    ((key, value),) = ((key, value) for key, value in to_plain(model.view).items() if value is not None)
    return {
        "longest_side": f", whose view is at most {value} pixels on its longest side",
        "scale": f", whose view is {value} times their size",
        "mpp": f", whose microns per pixel are known; the view has {value}",
    }[key]


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
