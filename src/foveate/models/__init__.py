"""Classifiers of large images behind one contract, and the folders that hold them.

- `types.py`: batch, output, prediction, receipt, draw options
- `base.py`: the contract: predict, look, forward; `look.py`: from opened images to what a model says of them
- `build.py`, `store.py`: from settings to a model; model folders, shipped models, model cards
- `preprocess.py`: from any image to what a model takes, to a batch, and from boxes to features of patches
- `sampling.py`: attention sampling; `uniform.py`: its uniform baseline; `evidence.py`: what the view alone says;
  `deep_mil.py` and `cnn.py`, the other baselines
- `ips.py`: the best of all patches; `heads.py`: how patches become one vector
- `top_k.py`, `gmic.py`: rivals that choose patches by attention, or by saliency maps
- `ensemble.py`: several models as one; `settle.py`: draws until an answer is settled
- `probabilities.py`: softmax, sigmoid, cross-entropy, decisions; `receipts.py`: what it all cost

Training, evaluation and prediction know no model by name. Nothing here knows data sets.
"""

from foveate.models.base import Model
from foveate.models.build import build_model, resolve, view_of, view_scale
from foveate.models.cnn import CNN
from foveate.models.deep_mil import DeepMil
from foveate.models.ensemble import Ensemble
from foveate.models.evidence import Evidence
from foveate.models.preprocess import Intake, make_batch, wanted_channels
from foveate.models.probabilities import Decision
from foveate.models.sampling import AttentionSampling, PatchModel
from foveate.models.store import load_model, save_model, shipped_models
from foveate.models.types import BuildOptions, DrawOptions, Look
from foveate.models.uniform import Uniform
from foveate.seeds import prediction_seed

__all__ = [
    "CNN",
    "AttentionSampling",
    "BuildOptions",
    "Decision",
    "DeepMil",
    "DrawOptions",
    "Ensemble",
    "Evidence",
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
    "view_scale",
    "wanted_channels",
]
