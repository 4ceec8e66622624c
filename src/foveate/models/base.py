"""The contract of all models: what training, evaluation, comparison and explanation may ask of one."""

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from foveate.errors import ConfigError, ImageError
from foveate.images import Source, open_image
from foveate.models.batch import make_batch
from foveate.sampling.geometry import Grid
from foveate.seeds import derive_seed
from foveate.settings import Method, ModelSettings, ViewSettings
from foveate.types import Batch, Box, Output, Prediction, Size

__all__ = ["Model", "average_samples", "prediction_seed"]


def prediction_seed(seed: int, name: str) -> int:
    """Seed of the draws of one image when predicting.

    It depends on the file's name without its folders, so that moving a data set, or naming it by another path,
    leaves its predictions as they are. `Model.predict` and the bulk predictor both use it.

    Arguments:
        seed: what the user chose.
        name: path, address or name of the image; "" for an array.

    Returns:
        An integer in [0, 2⁶³), for `Batch.seeds`.

    Example:
        >>> prediction_seed(0, "a/slide.svs") == prediction_seed(0, "/data/b/slide.svs")
        True
    """
    return derive_seed(seed, "predict", PurePosixPath(name.replace("\\", "/")).name)


class Model(nn.Module, ABC):
    """A classifier of large images: a low-resolution view first, then full-resolution patches if it reads any.

    Callers know no model by name. What they may ask:

    Attributes:
        settings: everything that was set, resolved; enough to build it again.
        classes: names of the classes, in the order of the logits.
        channels: channels of the images it takes.
        method: how cells are drawn; "top" for reproducible prediction without draws.
        patches: patches read per image and draw; 0 if it reads none.
        grid: where the cells of its attention map lie in the view and in the image; None if it has no map.
    """

    settings: ModelSettings
    classes: tuple[str, ...]
    channels: int
    method: Method
    patches: int
    grid: Grid | None

    def __init__(self, settings: ModelSettings, classes: Sequence[str], channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.classes = tuple(classes)
        self.channels = channels
        self.method = settings.method
        self.patches = settings.patches if self.reads_patches else 0
        self.grid = None

    @property
    @abstractmethod
    def reads_patches(self) -> bool:
        """Whether it reads full-resolution patches."""

    @abstractmethod
    def forward(self, batch: Batch, samples: int = 1) -> Output:
        """Classify a batch.

        Arguments:
            batch: views and mask on the model's device, sources and seeds.
            samples: independent draws per image; the probabilities are averaged over them.

        Returns:
            Logits, and where it looked; see `foveate.types.Output`.
        """

    @property
    def view(self) -> ViewSettings:
        """The low-resolution view it wants."""
        return self.settings.view

    @property
    def patch(self) -> Size | None:
        """(height, width) of its patches in full-resolution pixels; None if it reads none."""
        return self.settings.patch if self.reads_patches else None

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def check_channels(self, source: Source) -> None:
        """Refuse an image that does not have the model's number of channels.

        Raises:
            ImageError: naming both numbers.
        """
        if source.channels != self.channels:
            remedy = {
                (3, 1): "save it as RGB",
                (1, 3): "save it in grey",
                (3, 4): "save it without its alpha channel",
            }.get((self.channels, source.channels), "choose its bands, or train a model on such images")
            raise ImageError(
                f"the model wants {self.channels} channel(s), {source.name or 'the array'} has {source.channels}: "
                f"{remedy}"
            )

    def predict(
        self,
        image: str | Path | Source | np.ndarray,
        samples: int = 1,
        method: Method | None = None,
        seed: int = 0,
    ) -> Prediction:
        """Classify one image, opened lazily.

        The same code path as training, in evaluation mode; the draws depend on `seed` and the file's name alone.

        Arguments:
            image: a path, an array (H, W) or (H, W, C), or an opened image.
            samples: independent draws whose probabilities are averaged.
            method: how cells are drawn; None as the model was set, "top" for the most attended cells.
            seed: of the draws.

        Returns:
            The class, all probabilities, and the receipt: patches and bytes read, seconds.

        Raises:
            ImageError: if the image is missing, broken or has the wrong number of channels.
            ConfigError: if samples is less than 1.

        Example:
            >>> import numpy as np
            >>> from foveate.models import build_model
            >>> model = build_model(ModelSettings(patch=(24, 30), patches=4), classes=("cat", "dog"), channels=3)
            >>> prediction = model.predict(np.zeros((200, 300, 3), np.uint8))
            >>> prediction.patches, sorted(prediction.probabilities)
            (4, ['cat', 'dog'])
        """
        if samples < 1:
            raise ConfigError(f"samples must be at least 1, got {samples}: 1 is one draw, 4 averages four")
        start = time.perf_counter()
        source = image if isinstance(image, Source) else open_image(image)
        self.check_channels(source)
        before = source.bytes_read
        with self.evaluating(method), torch.inference_mode():
            batch = make_batch([source], self.view, [prediction_seed(seed, source.name)], ids=[source.name])
            output = self(batch.to(self.device), samples)
            values = output.logits[0].double().softmax(0).tolist()
        boxes = _read_boxes(output)
        best = max(range(len(values)), key=values.__getitem__)
        return Prediction(
            path=source.name,
            predicted=self.classes[best],
            probabilities=dict(zip(self.classes, values, strict=True)),
            patches=len(boxes),
            bytes_read=source.bytes_read - before,
            seconds=time.perf_counter() - start,
            boxes=boxes,
        )

    @contextlib.contextmanager
    def evaluating(self, method: Method | None = None) -> Iterator[None]:
        """Evaluation mode without gradients, and everything as it was afterwards.

        Arguments:
            method: how cells are drawn meanwhile; None as the model was set.
        """
        was_training, was_method = self.training, self.method
        self.eval()
        self.method = method or was_method
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)
            self.method = was_method


def average_samples(logits: Float[Tensor, "rows class"], samples: int) -> Float[Tensor, "batch class"]:
    r"""Log of the mean probabilities over the samples of each image.

    .. math:: \log \frac1s \sum_t \mathrm{softmax}(z_t)

    Arguments:
        logits: (B·s, classes), the samples of an image side by side.
        samples: s; at 1 the logits come back as they are.

    Returns:
        (B, classes) logits whose softmax is the mean of the softmaxes.
    """
    if samples == 1:
        return logits
    each = logits.log_softmax(1).reshape(-1, samples, logits.shape[1])
    return each.logsumexp(1) - math.log(samples)


def _read_boxes(output: Output) -> tuple[Box, ...]:
    if output.boxes is None or output.draw is None:
        return ()
    return tuple(Box(*row) for row in output.boxes[output.draw.valid.to(output.boxes.device)].tolist())
