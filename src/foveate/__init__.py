"""Train and run image classifiers on images too large for a network, by attention sampling.

`Classifier` is where to begin; what lies below it, in one go:

    >>> import numpy as np
    >>> import torch
    >>> from foveate import Batch, Box, DataSettings, Draw, Model, ModelSettings, Output, RunSettings, Source
    >>> from foveate import build_model, evaluate, load_model, open_dataset, open_image, predict_paths, preset, train

An image of any size is opened, not read; a model is built of settings, and looks at images one by one or in batches:

    >>> image = open_image(np.zeros((200, 300, 3), np.uint8))
    >>> isinstance(image, Source), image.read(Box(10, 20, 3, 4)).shape
    (True, (3, 4, 3))
    >>> model = build_model(ModelSettings(patch=(24, 30), patches=4), ("cat", "dog"), channels=3)
    >>> isinstance(model, Model), next(predict_paths(model.eval(), ["no-such-file.png"])).stage
    (True, 'open')
    >>> batch = Batch(torch.zeros(1, 3, 50, 75), torch.ones(1, 50, 75, dtype=torch.bool), (image,), (0,), ((50, 75),))
    >>> output = model(batch)
    >>> isinstance(output, Output), isinstance(output.draw, Draw), output.logits.shape
    (True, True, torch.Size([1, 2]))

A run is determined by its settings, and kept in a folder; its model is judged on images that it was not trained on:

    >>> from tempfile import TemporaryDirectory
    >>> from foveate.training.progress import SilentProgress
    >>> data = DataSettings("megapixel-mnist", canvas=(150, 180), train_images=8, test_images=4, channels=3)
    >>> run = preset("smoke", **{"data": data, "model.patch": (40, 40), "training.max_steps": 1})
    >>> isinstance(run, RunSettings)
    True
    >>> with TemporaryDirectory() as folder:
    ...     steps = train(run, folder, progress=SilentProgress()).steps
    ...     trained = load_model(folder)
    >>> images = open_dataset(run.data)
    >>> test = [number for number, example in enumerate(images.examples) if example.split == "test"]
    >>> steps, evaluate(trained, images, test).n
    (1, 4)
"""

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
