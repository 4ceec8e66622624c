"""Classifiers of large images behind one contract, and the folders that hold them."""

from foveate.models.base import Model, prediction_seed
from foveate.models.batch import make_batch
from foveate.models.build import build_model, resolve, view_of
from foveate.models.cnn import CNN
from foveate.models.deep_mil import DeepMil
from foveate.models.preprocess import Intake, wanted_channels
from foveate.models.sampling import AttentionSampling, PatchModel, Uniform
from foveate.models.store import load_model, save_model, shipped_models
from foveate.models.types import DrawOptions, Look

__all__ = [
    "CNN",
    "AttentionSampling",
    "DeepMil",
    "DrawOptions",
    "Intake",
    "Look",
    "Model",
    "PatchModel",
    "Uniform",
    "build_model",
    "load_model",
    "make_batch",
    "prediction_seed",
    "resolve",
    "save_model",
    "shipped_models",
    "view_of",
    "wanted_channels",
]
