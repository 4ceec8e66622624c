"""Model building for a run: what the training images are like (channels, size, band statistics, class weights)."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from foveate.config.settings import AttentionSettings, DataSettings, InputSettings, ModelSettings, ViewSettings
from foveate.config.training import RunSettings
from foveate.datasets.types import ImageDataset
from foveate.errors import ConfigError, ImageError
from foveate.images import Source
from foveate.images.tensors import view_size
from foveate.models import Intake, Model, build_model, view_of, view_scale, wanted_channels
from foveate.models.evidence import guess_background
from foveate.networks import FeatureNetwork
from foveate.networks.evidence import has_backbone
from foveate.networks.normalise import BandStatistics
from foveate.networks.runtime import WORTH, missing_packages
from foveate.pipeline.distributed import agreed
from foveate.pipeline.inference import answered
from foveate.pipeline.loader import Failed, Loader, readable, shares
from foveate.pipeline.source_cache import SourceCache
from foveate.seeds import derive_seed
from foveate.training.checkpoint import load_state
from foveate.training.numbers import check_labels, measure_labels
from foveate.training.objective import class_weights, positive_weights
from foveate.training.run_folder import as_begun, run_settings
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


def typical_image(
    dataset: ImageDataset, indices: Sequence[int], settings: InputSettings, failed: Failed | None = None
) -> tuple[int, Size, str]:
    """Survey of images: channels that a model of them needs, their median size, and why they are to be normalised.

    No pixel is read. The reason is "" for 8-bit grey and RGB, else what of the images has no known range.

    Arguments:
        dataset: the images.
        indices: example numbers, sorted by id; at most `HEADERS` of them, evenly spaced, are looked at.
        settings: what is made of the pixels.
        failed: as in `foveate.pipeline.loader.LoadOptions`.

    Raises:
        ImageError: an image cannot be opened or made what the model wants, or no number of channels fits them all.
    """
    few = indices[:: max(1, len(indices) // 9)]
    spread = [indices[i] for i in sorted({len(indices) * number // HEADERS for number in range(HEADERS)})]
    looked = {index: readable(partial(dataset.open, index), index, failed) for index in dict.fromkeys([*few, *spread])}
    sources = {index: source for index, source in looked.items() if source is not None}
    if not sources:
        raise ImageError(f"none of {len(looked)} images that were looked at could be read: check their paths")
    channels = wanted_channels((sources[index] for index in spread if index in sources), settings)
    for index, source in sources.items():  # refuses bands that are not there, before a run is begun
        readable(partial(Intake(settings, channels), source), index, failed)
    sizes = sorted((sources[index].size for index in few if index in sources), key=max)
    sizes = sizes or [source.size for source in sources.values()]
    return channels, sizes[len(sizes) // 2], _of_no_known_range(sources.values(), channels)


def _of_no_known_range(sources: Iterable[Source], channels: int) -> str:
    """What images are that are not all 8-bit grey or RGB: their types, or their bands; "" if they are."""
    types = sorted({source.dtype.name for source in sources} - {"bool", "uint8"})
    if types:
        return " and ".join(types)
    return "" if channels in (1, 3) else f"of {channels} bands"


def band_statistics(
    dataset: ImageDataset,
    indices: Sequence[int],
    intake: Intake,
    view: ViewSettings | None,
    data: DataSettings = UNKEPT,
    failed: Failed | None = None,
) -> BandStatistics:
    r"""Band statistics: mean and standard deviation of every band of the training images' views, in the unit range.

    .. math:: \mu_c = \frac1n \sum_p x_{pc}, \qquad \sigma_c^2 = \frac1n \sum_p (x_{pc} - \mu_c)^2

    over the finite view pixels p, each by its share of data, of up to `MEASURED` images, which a hash of their ids
    chooses: neither the order of the manifest nor the number of processes changes them. A band that is constant has the
    deviation 1.

    Arguments:
        dataset: the images.
        indices: example numbers of the training images.
        intake: gives an image as the model wants it.
        view: the model's view; thumbnails of longest side 256 if None.
        data: what is kept of images that are looked at here.
        failed: as in `foveate.pipeline.loader.LoadOptions`.

    Raises:
        ImageError: an image cannot be read, or a band has no finite pixel.
    """
    ids = [dataset.examples[index].id for index in indices]
    order = sorted(range(len(ids)), key=lambda place: (derive_seed("bands", ids[place]), ids[place]))
    moments, opened = np.zeros((3, intake.channels)), SourceCache.of_settings(dataset, intake, data)
    for index in (indices[place] for place in order[:MEASURED]):
        own = readable(partial(_moments, opened, index, view or THUMBNAIL), index, failed)
        moments = moments if own is None else _joined(moments, own)
    count, mean, squares = moments
    if not count.all():
        raise ImageError(
            f"band {int(np.argmin(count))} has no finite pixel in {min(len(order), MEASURED)} training images: "
            "choose others with model.input.bands, or set model.input.normalise to none"
        )
    deviation = np.sqrt(squares / count)
    varies = deviation > CONSTANT * np.abs(mean)
    return BandStatistics(tuple(mean.tolist()), tuple(np.where(varies, deviation, 1.0).tolist()))


def _moments(opened: SourceCache, index: int, view: ViewSettings) -> np.ndarray:
    """(3, C) of one image: how much of it is data and finite, the mean, and the summed squared distances from it."""
    source = opened.open(index)
    return source.moments(view_size(view, source))


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The moments of two sets of pixels together (Chan, Golub & LeVeque, 1979), which loses no digits."""
    count = first[0] + second[0]
    safe = np.where(count > 0, count, 1)
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
    failed: Failed | None = None,
    say: Callable[[str], None] | None = None,
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
        failed: as in `foveate.pipeline.loader.LoadOptions`.
        say: told, in a line, what was chosen for the images' pixels where the settings leave it open.

    Returns:
        The model on the CPU, the same in every process.

    Raises:
        ConfigError: a setting makes no sense.
        DataError: labels are to be numbers, and are none, or all one.
        ImageError: an image cannot be read, or no number of channels fits them all.
    """
    model = settings.model
    check_labels(settings, dataset, indices)
    if settings.training.anneal.prior.moves and model.prior.contrast == 0:
        raise ConfigError(
            "training.anneal.prior moves the strength of a prior, but model.prior.contrast 0 has none: set it to e.g. "
            "2, or leave out training.anneal.prior"
        )
    channels, size, unknown = agreed(accelerator, partial(typical_image, dataset, indices, model.input, failed))
    if model.input.normalise == "auto":
        model = replace(model, input=replace(model.input, normalise="bands" if unknown else "none"))
        if unknown and say is not None:
            say(
                f"note: images are {unknown}: each band is normalised by its mean and deviation over the training "
                "images (model.input.normalise bands)"
            )
    model = replace(model, attention=_with_runtime(model, len(indices), size, accelerator.device.type, say))
    if model.name == "gmic" and model.evidence.background is None:
        model = replace(model, evidence=replace(model.evidence, background=background_of(settings, dataset)))
    bands: BandStatistics | None = None
    if model.input.normalise == "bands":
        intake = Intake(model.input, channels)
        looked = dataset, indices, intake, view_of(model), settings.data, failed
        bands = agreed(accelerator, partial(band_statistics, *looked))
    seed = derive_seed(settings.seed, "model")
    built = build_model(
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
    measure_labels(built, dataset, indices)
    return built


def background_of(settings: RunSettings, dataset: ImageDataset) -> str | None:
    """Background class that the settings name or, if they leave it open, that is called like one."""
    named = settings.data.background
    if dataset.multi_label or named is None:
        return None
    return guess_background(dataset.classes) if named == "auto" else named


def _with_runtime(
    model: ModelSettings, images: int, size: Size, device: str, say: Callable[[str], None] | None
) -> AttentionSettings:
    """Attention settings whose runtime is settled: by how many pixels of views there are to be seen."""
    attention, view = model.attention, view_of(model)
    if attention.runtime != "auto":
        return attention
    scale = None if view is None or not (has_backbone(attention) and attention.frozen) else view_scale(view, size)
    worth = scale is not None and device == "cpu" and images * size[0] * size[1] * scale**2 >= WORTH
    if worth and missing_packages() and say is not None:
        say("note: pip install 'foveate[onnx]' halves the time in which the views are seen (docs/performance.md)")
    return replace(attention, runtime="onnxruntime" if worth and not missing_packages() else "torch")


def as_it_began(settings: RunSettings, folder: Path) -> RunSettings:
    """Settings that a run in a folder goes on with: what they leave open is as it was when it began.

    Its state says so, and not its images, some of which may be gone or others by now.

    Arguments:
        settings: of the run.
        folder: of the run, which has a state.
    """
    settings = as_begun(settings, run_settings(folder))
    state = load_state(folder / "state") if settings.model.input.normalise == "auto" else None
    if state is None:
        return settings
    normalised = any(name.startswith("model.normalise.") for name in state.tensors)
    began = replace(settings.model.input, normalise="bands" if normalised else "none")
    return replace(settings, model=replace(settings.model, input=began))


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
    plan = shares(few, 8)
    with contextlib.closing(loader.evaluation(plan)) as batches, model.evaluating():
        hook = network.layers.register_forward_hook(lambda _, __, features: seen.append(features.float().cpu()))
        try:
            for share, batch in zip(plan, batches, strict=True):
                list(answered(loader, share, batch, lambda some: model(some.to(model.device))))
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


_MODELS = {
    "attention-sampling": "attention sampling",
    "uniform": "uniform sampling",
    "cnn": "CNN",
    "deep-mil": "Deep MIL",
    "multi-scale": "attention sampling of several scales",
    "zoom": "attention sampling level by level",
}


def described(model: ModelSettings) -> str:
    """Model in words, as a run says it: which, how many patches of what size, from what view."""
    view, name = model.view, _MODELS.get(model.name, model.name)
    seen = f"of at most {view.longest_side} pixels a side"
    if view.longest_side is None:
        seen = f"at {view.scale:g} of full size" if view.mpp is None else f"at {view.mpp:g} microns a pixel"
    patch = f"of {model.patch[0]}×{model.patch[1]} pixels"
    if model.name in ("cnn", "evidence"):
        return f"{name} on a view {seen}"
    if model.name in ("deep-mil", "ips"):
        return f"{name}, {'all' if model.name == 'deep-mil' else f'the best {model.patches} of all'} patches {patch}"
    return f"{name}, {model.patches} patches {patch} from a view {seen}"
