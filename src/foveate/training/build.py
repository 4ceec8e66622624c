"""Model building for a run: what the training images are like (channels, size, band statistics, class weights)."""

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from foveate.config.settings import DataSettings, InputSettings, ViewSettings
from foveate.config.training import RunSettings
from foveate.datasets.types import ImageDataset
from foveate.errors import ConfigError, ImageError
from foveate.images import Source
from foveate.images.tensors import make_view
from foveate.images.wrappers.standardise import finite_moments
from foveate.models import Intake, Model, build_model, view_of, wanted_channels
from foveate.networks import FeatureNetwork
from foveate.networks.normalise import BandStatistics
from foveate.pipeline.distributed import agreed
from foveate.pipeline.loader import Loader, shares
from foveate.pipeline.source_cache import SourceCache
from foveate.seeds import derive_seed
from foveate.training.objective import class_weights, positive_weights
from foveate.types import Size

if TYPE_CHECKING:
    from accelerate import Accelerator

HEADERS = 256
"""Images whose headers are looked at to find out what kinds there are."""

MEASURED = 256
"""Images whose pixels are measured for the bands' statistics."""

THUMBNAIL = ViewSettings(longest_side=256)
"""What is measured where a model has no view."""

UNKEPT = DataSettings(cache="off")
"""Data of which nothing is kept."""

LOOKED_AT = 96
"""Images whose patches are measured for the projection of features."""

CONSTANT = 1e-6
"""Deviation over mean below which a band is constant: float32 views resolve no less."""


def typical_image(dataset: ImageDataset, indices: Sequence[int], settings: InputSettings) -> tuple[int, Size]:
    """Survey of images: channels that a model of them needs, and their median size; reads no pixel.

    Arguments:
        dataset: the images.
        indices: example numbers, sorted by id; at most `HEADERS` of them, evenly spaced, are looked at.
        settings: what is made of the pixels.

    Raises:
        ImageError: an image cannot be opened or made what the model wants, or no number of channels fits them all.
    """
    step = max(1, len(indices) // 9)
    few = [dataset.open(index) for index in indices[::step]]
    sizes = sorted((source.size for source in few), key=max)
    spread = sorted({len(indices) * number // HEADERS for number in range(HEADERS)})
    known = dict(zip(indices[::step], few, strict=True))
    sources = [known[index] if index in known else dataset.open(index) for index in (indices[i] for i in spread)]
    channels = wanted_channels(sources, settings)
    for source in sources:
        Intake(settings, channels)(source)  # refuses bands that are not there, before a run is begun
    return channels, sizes[len(sizes) // 2]


def band_statistics(
    dataset: ImageDataset,
    indices: Sequence[int],
    intake: Intake,
    view: ViewSettings | None,
    data: DataSettings = UNKEPT,
) -> BandStatistics:
    r"""Band statistics: mean and standard deviation of every band of the training images' views, in the unit range.

    .. math:: \mu_c = \frac1n \sum_p x_{pc}, \qquad \sigma_c^2 = \frac1n \sum_p (x_{pc} - \mu_c)^2

    over the finite view pixels p of up to `MEASURED` images, which a hash of their ids chooses: neither the order of
    the manifest nor the number of processes changes them. A band that is constant has the deviation 1.

    Arguments:
        dataset: the images.
        indices: example numbers of the training images.
        intake: gives an image as the model wants it.
        view: the model's view; thumbnails of longest side 256 if None.
        data: what is kept of images that are looked at here.

    Raises:
        ImageError: an image cannot be read, or a band has no finite pixel.
    """
    ids = [dataset.examples[index].id for index in indices]
    order = sorted(range(len(ids)), key=lambda place: (derive_seed("bands", ids[place]), ids[place]))
    moments, opened = np.zeros((3, intake.channels)), SourceCache.of_settings(dataset, intake, data)
    for place in order[:MEASURED]:
        moments = _joined(moments, _moments(opened.open(indices[place]), view or THUMBNAIL))
    count, mean, squares = moments
    if not count.all():
        raise ImageError(
            f"band {int(np.argmin(count))} has no finite pixel in {min(len(order), MEASURED)} training images: "
            "choose others with model.input.bands, or set model.input.normalise to none"
        )
    deviation = np.sqrt(squares / count)
    varies = deviation > CONSTANT * np.abs(mean)
    return BandStatistics(tuple(mean.tolist()), tuple(np.where(varies, deviation, 1.0).tolist()))


def _moments(source: Source, view: ViewSettings) -> np.ndarray:
    """(3, C) of one image: number of finite pixels, their mean, and their summed squared distances from it."""
    pixels = make_view(source, view).numpy().reshape(source.channels, -1).astype(np.float64)
    return np.stack(finite_moments(pixels, axis=1))


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The moments of two sets of pixels together (Chan, Golub & LeVeque, 1979), which loses no digits."""
    count = first[0] + second[0]
    safe = np.maximum(count, 1)
    step = second[1] - first[1]
    mean = first[1] + step * second[0] / safe
    return np.stack([count, mean, first[2] + second[2] + step**2 * first[0] * second[0] / safe])


def build_for(
    settings: RunSettings,
    dataset: ImageDataset,
    indices: Sequence[int],
    accelerator: "Accelerator",
    features: nn.Module | None = None,
    pretrained: bool = True,
) -> Model:
    """Model of a run: its channels and its bands' statistics are those of the training images.

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
        bands = agreed(accelerator, partial(band_statistics, dataset, indices, intake, view_of(model), settings.data))
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


def measure_features(model: Model, loader: Loader, indices: Sequence[int]) -> None:
    """Mean and deviation of a feature network's own features, as the projection of them wants to know.

    They are those of the patches that the model reads of up to `LOOKED_AT` images, as it is now.

    Arguments:
        model: changed in place; nothing is done to one without a projection.
        loader: of its images.
        indices: example numbers of the training images, sorted by id.

    Raises:
        ImageError: an image cannot be read.
    """
    network = getattr(model, "features", None)
    if not isinstance(network, FeatureNetwork) or network.projection is None or not indices:
        return
    few = sorted({indices[len(indices) * number // LOOKED_AT] for number in range(LOOKED_AT)})
    seen: list[Tensor] = []
    with contextlib.closing(loader.evaluation(shares(few, 8))) as batches, model.evaluating():
        hook = network.layers.register_forward_hook(lambda _, __, features: seen.append(features.float().cpu()))
        try:
            for batch in batches:
                model(batch.to(model.device))
        finally:
            hook.remove()
    deviation, mean = torch.std_mean(torch.cat(seen), 0, correction=0)
    network.projection.mean.copy_(mean)
    network.projection.deviation.copy_(torch.where(deviation > CONSTANT, deviation, 1.0))


def loss_weights(settings: RunSettings, dataset: ImageDataset, indices: Sequence[int]) -> Tensor | None:
    """(classes,) class weights of the training images' losses, of the positives with several labels; or None."""
    if settings.training.class_weights == "none":
        return None
    labels = [dataset.examples[index].label for index in indices]
    weigh = positive_weights if dataset.multi_label else class_weights
    return weigh(labels, len(dataset.classes))
