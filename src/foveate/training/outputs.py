"""What the output of a model says, image by image."""

import torch
from torch import Tensor

from foveate.types import Output

__all__ = ["patches_read", "wrong_shares"]


def wrong_shares(logits: Tensor, labels: Tensor) -> Tensor:
    """How wrong the answer to each image is.

    Arguments:
        logits: (B, C).
        labels: (B,) class numbers; with several labels (B, C), 1 for a class the image has and 0 else.

    Returns:
        (B,) 0 or 1; with several labels the share of the C classes on which the answer at probability ½ is wrong.

    Example:
        >>> wrong_shares(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([0.5000])
    """
    if labels.ndim == 2:
        return ((logits >= 0) != (labels > 0)).to(logits).mean(1)
    return (logits.argmax(1) != labels).to(logits)


def patches_read(output: Output, images: int) -> Tensor:
    """Number of full-resolution patches read of each image, over all its draws.

    Arguments:
        output: of a model.
        images: B, number of images.

    Returns:
        (B,) int64.
    """
    read = output.read if output.read is not None else None if output.draw is None else output.draw.valid
    if read is not None:
        return read.reshape(images, -1).sum(1)
    count = 0 if output.boxes is None else output.boxes.shape[0] * output.boxes.shape[1] // images
    return torch.full((images,), count, device=output.logits.device)
