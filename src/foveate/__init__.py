"""Train and run image classifiers on images too large for a network, by attention sampling."""

from importlib import import_module
from typing import TYPE_CHECKING

from foveate._version import __version__ as __version__

if TYPE_CHECKING:
    from foveate.classifier import Classifier
    from foveate.config.files import preset
    from foveate.config.settings import DataSettings, ModelSettings
    from foveate.config.training import RunSettings
    from foveate.datasets import open_dataset
    from foveate.errors import FoveateError
    from foveate.evaluation.evaluate import evaluate
    from foveate.hooks import register
    from foveate.images import Source, open_image
    from foveate.images.tensors import gather
    from foveate.models import Model, build_model, load_model, save_model
    from foveate.models.types import Batch, Output, Prediction
    from foveate.predict import predict_paths
    from foveate.sampling.draw import draw
    from foveate.sampling.estimator import expectation
    from foveate.training.loop import train
    from foveate.types import Box, Draw

__all__ = [
    "Batch",
    "Box",
    "Classifier",
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
    "register",
    "save_model",
    "train",
]

_HOMES = {
    "classifier": ("Classifier",),
    "config.files": ("preset",),
    "config.settings": ("DataSettings", "ModelSettings"),
    "config.training": ("RunSettings",),
    "datasets": ("open_dataset",),
    "errors": ("FoveateError",),
    "evaluation.evaluate": ("evaluate",),
    "hooks": ("register",),
    "images": ("Source", "open_image"),
    "images.tensors": ("gather",),
    "models": ("Model", "build_model", "load_model", "save_model"),
    "models.types": ("Batch", "Output", "Prediction"),
    "predict": ("predict_paths",),
    "sampling.draw": ("draw",),
    "sampling.estimator": ("expectation",),
    "training.loop": ("train",),
    "types": ("Box", "Draw"),
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
