"""From settings and training images to a model that is ready to be trained on them."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from foveate.errors import ConfigError
from foveate.models import Intake, Model, build_model, view_of
from foveate.networks.normalise import BandStatistics
from foveate.seeds import derive_seed
from foveate.training.config import RunSettings
from foveate.training.objective import class_weights, positive_weights
from foveate.training.processes import agreed
from foveate.training.survey import band_statistics, typical_image
from foveate.types import ImageDataset

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["build_for", "loss_weights"]


def build_for(
    settings: RunSettings,
    dataset: ImageDataset,
    indices: Sequence[int],
    accelerator: "Accelerator",
    features: nn.Module | None = None,
    pretrained: bool = True,
) -> Model:
    """Build the model of a run: its channels and its bands' statistics are those of the training images.

    Every process calls this; the first one looks at the images for all.

    Arguments:
        settings: of the run.
        dataset: the images.
        indices: example numbers of the training images, sorted by id.
        accelerator: of this process.
        features: a feature network of the caller's own, in place of the one that the settings name.
        pretrained: False fetches no pretrained weights, for those of a state take their place.

    Returns:
        The model on the CPU, the same in every process.

    Raises:
        ConfigError: a setting makes no sense.
        ImageError: an image cannot be read, or no number of channels fits them all.
    """
    model = settings.model
    if settings.training.anneal.prior.moves and model.prior.contrast == 0:
        raise ConfigError(
            "training.anneal.prior moves the strength of a prior, but model.prior.contrast 0 has none: set it to e.g. "
            "2, or leave out training.anneal.prior"
        )
    channels, size = agreed(accelerator, partial(typical_image, dataset, indices, model.input))
    bands: BandStatistics | None = None
    if model.input.normalise == "bands":
        intake = Intake(model.input, channels)
        bands = agreed(accelerator, partial(band_statistics, dataset, indices, intake, view_of(model)))
    seed = derive_seed(settings.seed, "model")
    return build_model(
        model,
        dataset.classes,
        channels,
        seed=seed,
        image_size=size,
        multi_label=dataset.multi_label,
        bands=bands,
        features=features,
        pretrained=pretrained,
    )


def loss_weights(settings: RunSettings, dataset: ImageDataset, indices: Sequence[int]) -> Tensor | None:
    """(classes,) class weights of the training images' losses, of the positives with several labels; or None."""
    if settings.training.class_weights == "none":
        return None
    labels = [dataset.examples[index].label for index in indices]
    weigh = positive_weights if dataset.multi_label else class_weights
    return weigh(labels, len(dataset.classes))
