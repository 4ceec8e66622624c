"""Batch, output, prediction and receipt: what goes into a model and what comes out of it; what it is built with."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foveate.config.settings import Method
from foveate.errors import UNREADABLE, ConfigError
from foveate.images import Source, open_image
from foveate.images.view import shrunk_size
from foveate.models.losses import LossTerms
from foveate.networks.normalise import BandStatistics
from foveate.notebook import SIDE, Sketch, picture_jpeg, prediction_html
from foveate.types import Box, Draw, Size


@dataclass(frozen=True)
class DrawOptions:
    """Draw options of a prediction: how many draws, how, and from which seed.

    Attributes:
        samples: independent draws per image, whose probabilities are averaged.
        method: how cells are drawn; None as the model was set, "top" for the most attended cells.
        seed: draws depend on it, the image's name and the sample alone (`foveate.models.prediction_seed`).
        max_patches: most patches to draw, in rounds that end when the answer is settled; None draws once, as many as
            the model is set to.
        confidence: how sure it must be that the class would stay the same if all cells were read; with `max_patches`.

    Raises:
        ConfigError: samples or max_patches is less than 1, both are asked for, or confidence is not in [0.5, 1).

    Example:
        >>> DrawOptions(samples=4)
        DrawOptions(samples=4, method=None, seed=0, max_patches=None, confidence=0.95)
    """

    samples: int = 1
    method: Method | None = None
    seed: int = 0
    max_patches: int | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.max_patches is not None and (self.max_patches < 1 or self.samples > 1):
            raise ConfigError(
                f"max_patches must be at least 1, and goes with one sample, got {self.max_patches} and "
                f"{self.samples}: leave one of them out"
            )
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"confidence must be at least 0.5 and below 1, got {self.confidence}: 0.95 is usual")
        if self.samples < 1:
            raise ConfigError(f"samples must be at least 1, got {self.samples}: 1 is one draw, 4 averages four")


ONE_DRAW = DrawOptions()
"""What a model does unless it is told otherwise."""


@dataclass(frozen=True)
class Batch:
    """Batch of images as a model sees them before it looks anywhere in full resolution.

    Attributes:
        views: (B, C, h, w) float32 low-resolution views in the unit range, padded with zeros below and to the right.
        mask: (B, h, w) True where the attention may look: inside the image, and where no mask says otherwise.
        sources: the B images at full resolution.
        seeds: B integers that determine every draw made for the image.
        view_sizes: B (height, width) of the views without padding.
        labels: (B,) class indices, or numbers in float64; with several labels (B, classes) 1 and 0; or None.
        ids: B image ids, or empty.
        prior: (B, h, w) log weights known before any attention, 0 where nothing speaks against looking; None if
            nowhere does anything.
        cells: (B, rows, columns, D) features of the view's cells, padded like a map, where a model's eyes are frozen
            and they are kept; None if they are to be computed from the views, which otherwise may be 0.
        keys: of the images, by which features of their patches can be kept; None for an image that is changed. Empty if
            nothing is to be kept.
        places: numbers of the images among those that were asked for, where some of these cannot be read; empty if all
            are here.
    """

    views: "Float[Tensor, 'batch channel height width']"
    mask: "Bool[Tensor, 'batch rows columns']"
    sources: "tuple[Source, ...]"
    seeds: tuple[int, ...]
    view_sizes: tuple[Size, ...]
    labels: "Int[Tensor, ' batch'] | Float[Tensor, ' batch'] | Float[Tensor, 'batch class'] | None" = None
    ids: tuple[str, ...] = ()
    prior: "Float[Tensor, 'batch rows columns'] | None" = None
    cells: "Float[Tensor, 'batch row column feature'] | None" = None
    keys: "tuple[Hashable | None, ...]" = ()
    places: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.sources)

    def to(self, device: "torch.device | str", non_blocking: bool = False) -> "Batch":
        """The same batch with its tensors on `device`."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch with its tensors in page-locked memory."""
        return self._changed(lambda tensor: tensor.pin_memory())

    def repeat(self, row: int, seeds: Sequence[int]) -> "Batch":
        """One image of it as a batch of its own, as many times as there are seeds."""

        def own(tensor: Tensor) -> Tensor:
            return tensor[row : row + 1].expand(len(seeds), *tensor.shape[1:])

        return replace(
            self._changed(own),
            sources=(self.sources[row],) * len(seeds),
            seeds=tuple(seeds),
            view_sizes=(self.view_sizes[row],) * len(seeds),
            ids=self.ids[row : row + 1] * len(seeds),
            keys=self.keys[row : row + 1] * len(seeds),
        )

    def rows(self, rows: Sequence[int]) -> "Batch":
        """Some images of it as a batch of their own."""

        def of(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[row] for row in rows) if values else ()

        index = torch.tensor(rows, dtype=torch.int64)
        lists: dict[str, Any] = {
            name: of(getattr(self, name)) for name in ("sources", "seeds", "view_sizes", "ids", "keys")
        }
        places = of(self.places or tuple(range(len(self))))
        return replace(self._changed(lambda tensor: tensor[index.to(tensor.device)]), **lists, places=places)

    def _changed(self, change: "Callable[[Tensor], Tensor]") -> "Batch":
        tensors = {name: getattr(self, name) for name in ("views", "mask", "labels", "prior", "cells")}
        changed: dict[str, Any] = {name: None if one is None else change(one) for name, one in tensors.items()}
        return replace(self, **changed)


EMPTY = Batch(torch.zeros(0, 1, 1, 1), torch.zeros(0, 1, 1, dtype=torch.bool), (), (), ())
"""A batch of which no image could be read."""


@dataclass(frozen=True)
class Started:
    """Forward pass under way: a batch that was looked at, and whose patches are being read; of `Model.start`.

    Attributes:
        batch: on the model's device.
        samples: independent draws per image.
    """

    batch: Batch
    samples: int


@dataclass(frozen=True)
class Output:
    """Output of a model for a batch: logits, and where it looked.

    With `samples` = s > 1, `draw`, `boxes` and `features` have B·s rows, the s draws of an image side by side.

    Attributes:
        logits: (B, classes); softmax (several labels: the sigmoid) gives the class probabilities, averaged over the
            samples, if several.
        attention: (B, rows, columns) probabilities over the cells of the attention map, 0 where masked; or None.
        draw: the cells drawn; or None.
        boxes: (B·s, n, 4) int64 top, left, height, width of the patches read, in level-0 pixels; or None.
        features: (B·s, n, D) features of the patches read; or None.
        read: (B·s, n) which of `boxes` were read: no slot left over, no cell that a smaller image lacks; or None.
        cell_mask: (B, rows, columns) True for the cells of the map that may be looked at; or None, as the attention.
        regions: (B·s, n, levels, 4) boxes seen on the way to each patch by a model that zooms, coarsest first; or None.
        entropy: (B,) entropy of the attention in nats, estimated, where there is more to it than the map; or None.
        noise_left: () share of the estimate's noise that a control variate leaves, in training; None if there is none.
        terms: what a model's loss has beside the cross-entropy of its logits, in training; None if nothing.
        kept: (B,) patches of each image whose features were kept, so that they were not read; None if none are kept.
        seconds: wall-clock time by stage: "attention", "draw", "read", "features", "classify".
        spread, settled: (B,) standard deviation over draws of the predicted class' probability, and whether that was
            settled, where draws were made until it was; else None.
        others: outputs of the members of an ensemble that are not shown here, whose patches were read as well.
    """

    logits: "Float[Tensor, 'batch class']"
    attention: "Float[Tensor, 'batch row column'] | None" = None
    draw: Draw | None = None
    boxes: "Int[Tensor, 'rows draw 4'] | None" = None
    features: "Float[Tensor, 'rows draw feature'] | None" = None
    read: "Bool[Tensor, 'rows draw'] | None" = None
    cell_mask: "Bool[Tensor, 'batch row column'] | None" = None
    regions: "Int[Tensor, 'rows draw level 4'] | None" = None
    entropy: "Float[Tensor, ' batch'] | None" = None
    noise_left: "Float[Tensor, ''] | None" = None
    terms: LossTerms | None = None
    kept: "Int[Tensor, ' batch'] | None" = None
    seconds: dict[str, float] = field(default_factory=dict)
    spread: "Float[Tensor, ' batch'] | None" = None
    settled: "Bool[Tensor, ' batch'] | None" = None
    others: "tuple[Output, ...]" = ()

    @property
    def patches_read(self) -> "Int[Tensor, ' batch']":
        """(B,) int64 number of full-resolution patches read of each image, over all its draws."""
        images = len(self.logits)
        read = self.read if self.read is not None else None if self.draw is None else self.draw.valid
        if read is not None:
            own = read.reshape(images, -1).sum(1)
        else:
            count = 0 if self.boxes is None else self.boxes.shape[0] * self.boxes.shape[1] // images
            own = torch.full((images,), count, device=self.logits.device)
        return torch.stack([own.cpu(), *(one.patches_read.cpu() for one in self.others)]).sum(0) if self.others else own


@dataclass(frozen=True)
class Receipt:
    """Receipt: what something cost, and what it would have cost to look at everything.

    Attributes:
        patches: full-resolution patches read.
        patches_of: patches of that size, side by side, that would cover everything; None where none are read.
        bytes_read: bytes read from files (or memory), views included.
        bytes_of: bytes of the files; None where there is no file, or its size is not known.
        seconds: wall-clock time by stage: "open", "view", "attention", "draw", "read", "features", "classify"; what is
            left of the whole is "other".
        peak_memory: most memory the process has held so far, resident, in bytes; None where that is not known.
    """

    patches: int
    patches_of: int | None
    bytes_read: int
    bytes_of: int | None
    seconds: dict[str, float]
    peak_memory: int | None


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image, with its receipt.

    Attributes:
        path: where the image came from, or "" for an array.
        predicted: the most probable class; with several labels those of probability ½ or more, joined by |; or a number
        probabilities: class name → probability; they sum to 1, unless there are several labels. Empty with a number.
        patches: number of full-resolution patches read.
        bytes_read: bytes read from the image's file (or memory), views included.
        seconds: wall-clock time, opening included.
        boxes: the patches read, in level-0 pixels of the file.
        receipt: what it cost, in detail.
        decision: what the rule `Model.decision` makes of the probabilities: a class, or "unsure"; None without one.
        spread: standard deviation of the predicted class' probability over draws, as the estimate's own variance gives
            it; None unless patches were drawn until the answer was settled.
        settled: whether it was, with the confidence asked for; likewise.
        value: the number that is foretold, where `model.head.kind` is "number"; else None.
        sketch: what image and attention looked like, by which it draws itself in a notebook; of `Model.predict`.

    Example:
        >>> Prediction("a.png", "cat", {"cat": 0.75, "dog": 0.25}, 10, 2000, 0.125).predicted
        'cat'
    """

    path: str
    predicted: str
    probabilities: dict[str, float]
    patches: int
    bytes_read: int
    seconds: float
    boxes: tuple[Box, ...] = field(default=(), repr=False)
    receipt: Receipt | None = field(default=None, repr=False)
    decision: str | None = None
    spread: float | None = None
    settled: bool | None = None
    value: float | None = None
    sketch: Sketch | None = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        """Picture, map, patches and probabilities, which a notebook shows."""
        sketch = self.sketch or sketch_of_file(self.path)
        of = None if self.receipt is None else self.receipt.patches_of
        patches = f"{self.patches} patches" + (f" of {of:,}" if of else "")
        if self.decision not in (None, self.predicted):
            patches = f"decided: {self.decision} · {patches}"
        facts = f"{patches} · {self.bytes_read / 1e6:.1f} MB read · {self.seconds:.2f} s"
        return prediction_html(self.path, self.predicted, self.probabilities, self.boxes, facts, sketch)


def sketch_of_file(path: str) -> Sketch | None:
    """Sketch of an image by its path, without a map; None if it cannot be read any more."""
    try:
        source = open_image(path) if path else None
        if source is None:
            return None
        return Sketch(picture_jpeg(source.view(shrunk_size(source.size, SIDE))), source.size)
    except UNREADABLE:
        return None


@dataclass(frozen=True)
class Look:
    """Look at one image: its prediction, and all that the model saw and computed for it.

    Attributes:
        prediction: what `Model.predict` says.
        opened: the image as it was opened: its level-0 pixels are those of the prediction's boxes.
        source: the image as the model takes it, perhaps at another scale.
        grid_size: (height, width) of what the model's grid lies over: the view, or the image it takes if it has none.
        output: of the model, for this image alone.
        started: forward pass of its batch, from which other draws can be made without another look
            (`Model.draw_again`).
        row: number of the image in that batch.
    """

    prediction: Prediction
    opened: Source
    source: Source
    grid_size: Size
    output: Output
    started: Started
    row: int

    def opened_in(self, seconds: float) -> "Look":
        """The same look, with the seconds that opening the image took before it."""
        receipt = self.prediction.receipt
        assert receipt is not None
        stages = receipt.seconds | {"open": receipt.seconds["open"] + seconds}
        told = replace(
            self.prediction, seconds=self.prediction.seconds + seconds, receipt=replace(receipt, seconds=stages)
        )
        return replace(self, prediction=told)


@dataclass(frozen=True)
class BuildOptions:
    """Build options of a model: what it is made with besides its settings.

    Attributes:
        multi_label: whether an image may have any number of labels, none included.
        bands: mean and deviation of each band, where the settings normalise bands; None until they are loaded.
        features: layers (M, C, h, w) → (M, D) in the place of the feature network that the settings name.
        pretrained: whether a feature network that has pretrained weights may fetch them.
    """

    multi_label: bool = False
    bands: BandStatistics | None = None
    features: nn.Module | None = None
    pretrained: bool = True


PLAIN = BuildOptions()
"""One label an image, and the networks that the settings name."""
