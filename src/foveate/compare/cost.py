"""What a model costs: bytes kept for the backward pass, and pixels looked at."""

import math

import torch
from torch import Tensor, nn

from foveate.models import Model
from foveate.types import Batch

__all__ = ["activation_bytes", "pixels_read_share"]


def activation_bytes(model: Model, batch: Batch) -> int:
    """Bytes a training step of `batch` keeps between its forward and its backward pass.

    Counts each storage that autograd saves once, and neither parameters nor buffers, which are there anyway. This is
    what limits the batch size; the peak of the process also holds what exists for a moment only.

    Arguments:
        model: the model; its mode is left as it was.
        batch: images of the training set, labels included.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> from foveate.models import build_model, make_batch
        >>> from foveate.settings import ModelSettings, ViewSettings
        >>> settings = ModelSettings(name="cnn", view=ViewSettings(scale=1.0))
        >>> model = build_model(settings, classes=("a", "b"), channels=1)
        >>> small, large = (ArraySource(np.zeros((side, 40, 1), np.uint8)) for side in (40, 80))
        >>> costs = [activation_bytes(model, make_batch([one], model.view, seeds=[0])) for one in (small, large)]
        >>> costs[1] > 1.5 * costs[0]
        True
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in own:
            saved[pointer] = tensor  # holding it keeps its address from being given to another
        return tensor

    training = model.training
    model.train()
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model(batch).logits
            nn.functional.cross_entropy(logits, torch.zeros(len(batch), dtype=torch.long, device=logits.device))
    finally:
        model.train(training)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def pixels_read_share(model: Model, batch: Batch) -> float:
    r"""Share of an image's pixels that a prediction looks at, view included.

    .. math:: \frac{n\,h_p w_p + h_v w_v}{H W}

    with n patches of h_p × w_p pixels, a view of h_v × w_v and an image of H × W; the mean over the batch. It says
    what a pyramid would have to deliver; a file without one is decoded further.
    """
    area = math.prod(model.patch) * model.patches if model.patch else 0
    shares = [
        (area + math.prod(view)) / math.prod(source.size)
        for view, source in zip(batch.view_sizes, batch.sources, strict=True)
    ]
    return sum(shares) / len(shares)
