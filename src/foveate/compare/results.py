"""What came of a comparison, and the file it is kept in."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from foveate.training.replace import replace_file

__all__ = ["MethodResult", "read_results", "write_results"]


@dataclass(frozen=True)
class MethodResult:
    """What came of one entrant.

    Attributes:
        name: of the entrant.
        error: share of test images whose most probable class is wrong.
        interval: 95 % interval of `error`.
        n: test images.
        epochs: epochs trained.
        train_seconds: of training and validation.
        train_ms_per_image: median training time per image shown, data work included, validation not.
        predict_ms_per_image: of testing, views and patch reading included.
        activation_mb_per_image: 10⁶ bytes kept for the backward pass, per image of a training batch.
        pixels_read_share: share of an image's pixels looked at, view included.
        patches_per_image: full-resolution patches read per prediction.
        parameters: number of trained parameters.
    """

    name: str
    error: float
    interval: tuple[float, float]
    n: int
    epochs: int
    train_seconds: float
    train_ms_per_image: float
    predict_ms_per_image: float
    activation_mb_per_image: float
    pixels_read_share: float
    patches_per_image: float
    parameters: int


def write_results(path: Path | str, results: Sequence[MethodResult]) -> None:
    """Write `{"methods": [...]}` as JSON, in one go.

    Arguments:
        path: the file.
        results: one per method.
    """
    plain = {"methods": [asdict(result) for result in results]}
    replace_file(Path(path), (json.dumps(plain, indent=2) + "\n").encode())


def read_results(path: Path | str) -> list[MethodResult]:
    """Read the results that `write_results` wrote."""
    plain = json.loads(Path(path).read_text(encoding="utf-8"))
    return [MethodResult(**{**one, "interval": tuple(one["interval"])}) for one in plain["methods"]]
