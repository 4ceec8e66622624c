"""Train and run image classifiers on images too large for a network, by attention sampling."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foveate.datasets import open_dataset
    from foveate.errors import FoveateError
    from foveate.images import Source, open_image
    from foveate.images.gather import gather
    from foveate.models import Model, build_model, load_model, save_model
    from foveate.predict import predict_paths
    from foveate.sampling.draw import draw
    from foveate.sampling.expectation import expectation
    from foveate.settings import DataSettings, ModelSettings
    from foveate.training.config import RunSettings, preset
    from foveate.training.evaluation import evaluate
    from foveate.training.loop import train
    from foveate.types import Batch, Box, Draw, Output, Prediction

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Box",
    "DataSettings",
    "Draw",
    "FoveateError",
    "Model",
    "ModelSettings",
    "Output",
    "Prediction",
    "RunSettings",
    "Source",
    "build_model",
    "draw",
    "evaluate",
    "expectation",
    "gather",
    "load_model",
    "open_dataset",
    "open_image",
    "predict_paths",
    "preset",
    "save_model",
    "train",
]

_HOMES = {
    "datasets": ("open_dataset",),
    "errors": ("FoveateError",),
    "images": ("Source", "open_image"),
    "images.gather": ("gather",),
    "models": ("Model", "build_model", "load_model", "save_model"),
    "predict": ("predict_paths",),
    "sampling.draw": ("draw",),
    "sampling.expectation": ("expectation",),
    "settings": ("DataSettings", "ModelSettings"),
    "training.config": ("RunSettings", "preset"),
    "training.evaluation": ("evaluate",),
    "training.loop": ("train",),
    "types": ("Batch", "Box", "Draw", "Output", "Prediction"),
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for (PEP 562): `import foveate` is instant and loads no torch."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"foveate.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'foveate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
