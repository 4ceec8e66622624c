"""Model contract: the base class, and what training, evaluation, comparison and explanation may ask of one."""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foveate.config.settings import Method, ModelSettings, ViewSettings
from foveate.errors import ConfigError
from foveate.images import Source, open_image
from foveate.models.heads import build_head
from foveate.models.kept import KeptFeatures
from foveate.models.look import finish_looks, see, sketched, start_looks
from foveate.models.patch_reading import PatchReading, parts_of_training
from foveate.models.preprocess import Intake, extents
from foveate.models.probabilities import UNDECIDED, Decision, LabelKind, kind_of, refuse_numbers
from foveate.models.receipts import Stages
from foveate.models.types import ONE_DRAW, PLAIN, Batch, BuildOptions, DrawOptions, Look, Output, Prediction, Started
from foveate.networks import FeatureNetwork, build_features
from foveate.networks.evidence import CellFeatures
from foveate.networks.normalise import BandNormalisation
from foveate.sampling.geometry import Grid
from foveate.types import Size


class Model(nn.Module, ABC):
    """A classifier of large images: a low-resolution view first, then full-resolution patches if it reads any.

    Callers know no model by name. What they may ask:

    Arguments:
        settings: resolved settings.
        classes: names of the classes.
        channels: channels of the images it takes.
        options: what else it is made with.

    Attributes:
        settings: everything that was set, resolved; enough to build it again.
        classes: names of the classes, in the order of the logits.
        channels: channels of the images it takes.
        method: how cells are drawn; "top" for reproducible prediction without draws.
        patches: patches drawn per image and sample; 0 if it draws none.
        training_patches: the same in training, where it may be annealed.
        parts: parts of a training batch that are read one by one, each while the network works on the one before: they
            change how sums are rounded. None for 4 on a GPU and 1 on a CPU.
        grid: where the cells of its attention map lie in the view and in the image; None if it has no map.
        multi_label: whether an image may have any number of labels, none included.
        intake: makes of any image what the model wants, or refuses it.
        own_features: whether its feature network was handed over as a module, which its settings cannot name.
        features: the feature network; absent where there is none to read patches or views.
        normalise: what is done to pixels before any network sees them; None if nothing is.
        head: from features to logits.
    """

    settings: ModelSettings
    classes: tuple[str, ...]
    channels: int
    method: Method
    patches: int
    grid: Grid | None
    decision: Decision = UNDECIDED
    """Temperature of its probabilities, and how an answer is made of them; kept in its folder."""
    wants_view: ClassVar[bool] = True
    """Whether it looks at a low-resolution view first."""
    features: FeatureNetwork
    normalise: BandNormalisation | None
    parts: int | None = None
    unexported: ClassVar[str] = ""
    """Why no graph computes what it does; "" where one does."""

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, options: BuildOptions = PLAIN
    ) -> None:
        super().__init__()
        self.settings = settings
        self.classes, self.channels = tuple(classes), channels
        self.method, self.grid = settings.method, None
        self.patches = settings.patches if self.reads_patches else 0
        self.training_patches = self.patches
        self.multi_label = options.multi_label
        self.own_features = options.features is not None
        self.normalise = BandNormalisation(channels, options.bands) if settings.input.normalise == "bands" else None
        self.intake = Intake(settings.input, channels, None if self.normalise is None else self.normalise.means)
        self.head = build_head(settings.head, self._networks(options), self.classes)

    def _networks(self, options: BuildOptions) -> int:
        """Make the feature network; returns its dimension."""
        standardised = self.settings.input.normalise != "none"
        given = (self.channels, self.patch, options.features, options.pretrained, standardised)
        self.features = build_features(self.settings.features, *given)
        return self.features.dimension

    @property
    def feature_networks(self) -> "Sequence[FeatureNetwork]":
        """All feature networks among its parts: one, but of a model that has more."""
        return (self.features,)

    @property
    @abstractmethod
    def reads_patches(self) -> bool:
        """Whether it reads full-resolution patches."""

    def forward(self, batch: Batch, samples: int = 1) -> Output:
        """Classify a batch: `start`, then `finish`.

        Arguments:
            batch: views and mask on the model's device, sources and seeds.
            samples: independent draws per image; the probabilities are averaged over them.

        Returns:
            Logits, and where it looked; see `foveate.models.types.Output`.
        """
        return self.finish(self.start(batch, samples))

    def start(self, batch: Batch, samples: int = 1) -> Started:
        """First half of `forward`: look, draw, and begin to read in the background, if there is a device to wait for.

        Of several batches that are started before the first is finished, patches of the later ones are read while the
        device works on the earlier ones.
        """
        return Started(batch, samples)

    def draw_again(self, started: Started, row: int, seeds: Sequence[int]) -> Started:
        """Same look, other draws: passes that go on from the attention of one image of a batch, one for each seed."""
        return replace(started, batch=started.batch.repeat(row, seeds))

    def keep_features(self, kept: KeptFeatures | None) -> None:
        """Keep what the feature network says of patches, which must be frozen, from now on; None keeps no more."""

    def settle(self, batch: Batch, options: DrawOptions) -> Output:  # noqa: ARG002  for subclasses
        """Forward pass that draws until the answer is settled; `ConfigError` of models that draw nothing."""
        raise ConfigError("max_patches is for a single model that draws patches, and this is none: leave it out")

    @abstractmethod
    def finish(self, started: Started) -> Output:
        """Second half of `forward`: everything after what `start` has done."""

    @property
    def attends(self) -> bool:
        """Whether it has learnt where to look: a map of its own over the image."""
        return self.grid is not None

    @property
    def seer(self) -> "Model":
        """The model whose attention and patches an output shows: itself; of an ensemble, one of its members."""
        return self

    seer_note = ""
    """Which model that is, in a sentence, if it is another."""

    @property
    def eyes(self) -> CellFeatures | None:
        """Frozen network that sees the cells of a view, which then need not be seen twice; None if there is none."""
        return None

    def cells_of(self, view: Float[Tensor, "channel height width"]) -> Float[Tensor, "row column feature"]:
        """What the `eyes` see of one view, in half precision and on the CPU; may be called from several threads."""
        eyes = self.eyes
        assert eyes is not None
        with torch.inference_mode():
            views = view[None].to(self.device)
            cells: Tensor = eyes(views if self.normalise is None else self.normalise(views))[0]
            return cells.half().cpu()

    @property
    def view(self) -> ViewSettings | None:
        """The low-resolution view it wants; None if it looks at full resolution alone."""
        return self.settings.view if self.wants_view else None

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
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What an optimiser trains: the feature network's layers by themselves, with a learning rate of their own.

        Returns:
            Groups with "params"; that of the feature network's layers, absent if they are frozen, has "learning_rate",
            its peak learning rate or None.
        """
        layers = (parameter for network in self.feature_networks for parameter in network.layers.parameters())
        features = [parameter for parameter in layers if parameter.requires_grad]
        own = {id(parameter) for parameter in features}
        rest = [one for one in self.parameters() if one.requires_grad and id(one) not in own]
        groups: list[dict[str, Any]] = [{"params": rest}]
        if features:
            groups.append({"params": features, "learning_rate": self.settings.features.learning_rate})
        return groups

    def anneal(self, prior: float | None = None, patches: int | None = None) -> None:  # noqa: ARG002  for subclasses
        """Set what may change in the course of training; the strength of the prior is saved with the model.

        Arguments:
            prior: strength of the contrast prior, where the model has one; None leaves it.
            patches: patches drawn per training image, where it draws any; None leaves it.
        """
        if patches is not None and self.patches:
            self.training_patches = patches

    def progressed(self, share: float) -> None:
        """Training is about to take a step, with a share of it over, 0 to 1; for subclasses."""

    @property
    def kind(self) -> LabelKind:
        """Kind of its labels: one of the classes, several, or a number."""
        return kind_of(self.head, self.multi_label)

    def answers(self, logits: Tensor) -> Tensor:
        """What (B, classes) logits say: the `probabilities` of the classes or, of (B, 1), a number in float64."""
        return self.kind.answers(self.calibrated(logits))

    def calibrated(self, logits: Float[Tensor, "batch class"]) -> Float[Tensor, "batch class"]:
        """Logits over the temperature that was fitted to them, if one was."""
        return logits / self.decision.temperature

    def probabilities(self, logits: Float[Tensor, "batch class"]) -> Float[Tensor, "batch class"]:
        """What (B, classes) logits say of each class: their softmax, calibrated; with several labels their sigmoid."""
        refuse_numbers(self.kind, "probabilities are")
        return self.answers(logits)

    def normalised(self, batch: Batch) -> Batch:
        """The batch with the pixels of its views normalised, if they are to be; what lies outside an image stays 0."""
        if self.normalise is None or batch.cells is not None:  # nobody looks at them
            return batch
        views = self.normalise(batch.views).masked_fill(~extents(batch).unsqueeze(1), 0)
        return replace(batch, views=views)

    def read_patches(
        self,
        sources: Sequence[Source],
        boxes: Int[Tensor, "rows draw 4"],
        read: Bool[Tensor, "rows draw"] | None,
        stages: Stages,
        samples: int = 1,
    ) -> PatchReading:
        """Patches for this model's feature network, read ahead where that is of use; see `PatchReading`.

        Arguments:
            sources: one image per row.
            boxes: (rows, n, 4) in level-0 pixels.
            read: (rows, n) what is to be read; None for all.
            stages: where to note the time.
            samples: rows an image.
        """
        parts = 1  # out of training the next batch is read meanwhile
        if self.training:
            parts = min(len(sources) // samples, parts_of_training(self.feature_networks, self.parts, self.device))
        ahead = parts > 1 or self.device.type != "cpu"  # on a CPU, both would want the same cores
        return self._reading(sources, boxes, read, self.device, stages, parts, ahead)

    def _reading(self, *given: Any) -> PatchReading:
        return PatchReading(*given)

    def predict(
        self,
        image: object,
        samples: int = 1,
        method: Method | None = None,
        seed: int = 0,
        max_patches: int | None = None,
        confidence: float = 0.95,
    ) -> Prediction:
        """Classify one image, opened lazily; the draws depend on `seed` and the file's name alone.

        Arguments:
            image: a path, an array (H, W) or (H, W, C), a Pillow image, a tensor (C, H, W), or an opened image.
            samples: independent draws whose probabilities are averaged.
            method: how cells are drawn; None as the model was set, "top" for the most attended cells.
            seed: of the draws.
            max_patches: draw until the class is settled, at most so many patches; see `DrawOptions`.
            confidence: how sure that has to be.

        Returns:
            The class (or classes), all probabilities, and the receipt: patches and bytes read, seconds.

        Raises:
            ImageError: if the image is missing, broken or not what the model wants, or the answer is not a number.
            ConfigError: if samples is less than 1.

        Example:
            >>> import numpy as np
            >>> from foveate.models import build_model
            >>> model = build_model(ModelSettings(patch=(24, 30), patches=4), classes=("cat", "dog"), channels=3)
            >>> prediction = model.predict(np.zeros((200, 300, 3), np.uint8))
            >>> prediction.patches, sorted(prediction.probabilities)
            (4, ['cat', 'dog'])
        """
        return self.sketched(self.look(image, DrawOptions(samples, method, seed, max_patches, confidence)))

    def sketched(self, look: Look) -> Prediction:
        """The prediction of a look, with a sketch of the image and its map, by which a notebook shows it."""
        grid = self.grid if self.attends else None
        affine = None if grid is None else grid.affine(look.grid_size, look.opened.size)
        return sketched(look, affine, self.settings.input.normalise == "none")

    def look(self, image: object, options: DrawOptions = ONE_DRAW) -> Look:
        """Classify one image as `predict` does, and keep what was seen on the way.

        Arguments:
            image: as for `predict`.
            options: how to draw.

        Returns:
            The prediction, the image as it was opened and as the model took it, and the model's output.
        """
        started = time.perf_counter()
        opened = image if isinstance(image, Source) else open_image(image)
        opening = time.perf_counter() - started
        with self.evaluating(options.method), torch.inference_mode():
            (look,) = finish_looks(self, start_looks(self, [see(self, opened)], options))
        return look.opened_in(opening)

    @contextlib.contextmanager
    def evaluating(self, method: Method | None = None) -> Iterator[None]:
        """Evaluation mode without gradients, and everything as it was afterwards; see `in_evaluation_mode`."""
        with self.in_evaluation_mode(method), torch.no_grad():
            yield

    @contextlib.contextmanager
    def in_evaluation_mode(self, method: Method | None = None) -> Iterator[None]:
        """Evaluation mode, and the mode as it was afterwards; gradients, which are each thread's own, are left alone.

        Arguments:
            method: how cells are drawn meanwhile; None as the model was set.
        """
        was_training, was_method = self.training, self.method
        self.eval()
        self.method = method or was_method
        try:
            yield
        finally:
            self.train(was_training)
            self.method = was_method
