"""The README of a model folder: what it is, what it expects, how to use it."""

from typing import Any

import yaml

from foveate import __version__
from foveate.models.base import Model
from foveate.serial import to_plain

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
        '```python\nfrom foveate import load_model\n\nmodel = load_model("PATH")  # this folder\n'
        'print(model.predict("image.png"))\n```',
        "or, from a shell, `foveate predict PATH image.png`.",
    ]
    if "data" in card:
        sections += ["## Data", str(card["data"])]
    if card.get("metrics"):
        rows = [f"| {name} | {_figure(value)} |" for name, value in to_plain(card["metrics"]).items()]
        sections += ["## Figures", "\n".join(["| figure | value |", "|---|---|", *rows])]
    sections.append(f"Written by foveate {__version__}.")
    return "\n\n".join(sections) + "\n"


def _summary(model: Model) -> str:
    if not model.reads_patches:
        how = "looks at the whole image at low resolution"
    else:
        height, width = model.settings.patch
        how = (
            f"looks at the image at low resolution and reads {model.patches} patches of {height}×{width} pixels "
            f'at full resolution (drawn with method "{model.method}")'
        )
    return f"A classifier of large images with {model.parameter_count:,} parameters. It {how}."


def _expectations(model: Model) -> list[str]:
    view = {key: value for key, value in to_plain(model.view).items() if value is not None}
    ((key, value),) = view.items()
    seen = {
        "longest_side": f"whose view is at most {value} pixels on its longest side",
        "scale": f"whose view is {value} times their size",
        "mpp": f"whose microns per pixel are known; the view has {value}",
    }[key]
    return [
        f"images of any size with {model.channels} channel(s), {seen}",
        "pixel values in their type's full range (0 to 255 for 8 bits), or floats from 0 to 1",
        f"one of these classes: {', '.join(model.classes)}",
    ]


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
