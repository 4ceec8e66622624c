"""The lines of metrics.jsonl, and the sums they are made of."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from foveate.training.evaluation import Evaluation
from foveate.training.outputs import patches_read, wrong_shares
from foveate.training.receipts import receipt_record
from foveate.training.schedule import Annealed
from foveate.training.state import Position
from foveate.types import Output

__all__ = ["SUMS", "batch_sums", "epoch_record", "step_record"]

SUMS = ("loss", "cross_entropy", "errors", "entropy", "images", "patches")
"""What is added up over images, in the order of `batch_sums`."""


def batch_sums(
    output: Output, labels: Tensor, losses: Tensor, plain: Tensor, entropy: Tensor, counted: Tensor
) -> Tensor:
    """Sums over the images of a batch that count.

    Arguments:
        output: of the model.
        labels: (B,) class numbers; with several labels (B, classes).
        losses: (B,) loss per image, which is minimised.
        plain: (B,) cross-entropy per image, without class weights and without the entropy term.
        entropy: (B,) entropy per image.
        counted: (B,) False for an image that only lends its presence.

    Returns:
        (6,) the sums named in `SUMS`, detached.
    """
    wrong, patches = wrong_shares(output.logits, labels), patches_read(output, len(labels))
    each = [losses, plain, wrong, entropy, torch.ones_like(losses), patches]
    return (torch.stack([one.to(losses) for one in each]) * counted).sum(1).detach()


def step_record(position: Position, sums: dict[str, float], rate: float, now: Annealed) -> dict[str, Any]:
    """The line of a step, means over its global batch; "annealed" where something is."""
    moving = {name: value for name, value in asdict(now).items() if value is not None}
    return {
        "kind": "step",
        "step": position.step,
        "epoch": position.epoch,
        "loss": sums["loss"] / sums["images"],
        "error": sums["errors"] / sums["images"],
        "entropy": sums["entropy"] / sums["images"],
        "learning_rate": rate,
        "seconds": round(position.seconds, 3),
        **({"annealed": moving} if moving else {}),
    }


def epoch_record(
    position: Position, result: Evaluation | None, *, rate: float, better: bool, complete: bool
) -> dict[str, Any]:
    """The line of an epoch, means over its images as they were seen in training.

    "loss" is what is minimised; "training_loss" the cross-entropy alone, without class weights and entropy, and so the
    like of "validation_loss". "validation_covered" are the objects that were covered per image, where they are known.
    "attention_warnings" says what is wrong with the attention maps of most validation images, if anything. "receipt"
    says what the steps read of how much, and their seconds by stage. "training_seconds" are those of its steps,
    "seconds" those of the whole run so far, validation included.

    Arguments:
        position: after the epoch's last step.
        result: its validation, where one was due.
        rate: learning rate of the last step.
        better: whether this validation is the best so far.
        complete: False if time or steps ran out within the epoch.
    """
    sums = position.sums
    return {
        "kind": "epoch",
        "epoch": position.epoch,
        "step": position.step,
        "complete": complete,
        "loss": sums["loss"] / sums["images"],
        "training_loss": sums["cross_entropy"] / sums["images"],
        "training_error": sums["errors"] / sums["images"],
        "entropy": sums["entropy"] / sums["images"],
        "learning_rate": rate,
        "validation_error": None if result is None else result.error,
        "validation_loss": None if result is None else result.loss,
        "validation_covered": None if result is None or result.coverage is None else result.coverage.covered_per_image,
        "attention_warnings": {} if result is None else result.attention_warnings,
        "best": better,
        "patches_per_second": round(sums["patches"] / max(sums["seconds"], 1e-9), 1),
        "training_seconds": round(sums["seconds"], 3),
        "seconds": round(position.seconds, 3),
        "receipt": receipt_record(sums),
    }
