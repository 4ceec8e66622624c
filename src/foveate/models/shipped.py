"""The small trained models that come with foveate, each a model folder in `foveate/shipped`."""

import re
from pathlib import Path

__all__ = ["shipped_model", "shipped_models"]

SHIPPED = Path(__file__).parents[1] / "shipped"
"""Where they lie."""

CONFIG = "config.json"
"""What makes a folder there a model."""


def shipped_models() -> tuple[str, ...]:
    """Names of the models that come with foveate, sorted; `load_model` takes them, and every verb that takes a RUN."""
    return tuple(sorted(config.parent.name for config in SHIPPED.glob(f"*/{CONFIG}")))


def shipped_model(name: str) -> Path | None:
    """The folder of a model that comes with foveate; None if there is none of that name.

    Arguments:
        name: letters, digits, ".", "_" and "-".

    Example:
        >>> shipped_model("../../etc") is None
        True
    """
    known = re.fullmatch(r"\w[\w.-]*", name) and (SHIPPED / name / CONFIG).is_file()
    return SHIPPED / name if known else None
