"""What is measured when the cost of a method is: its model, trained or new."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.config.serial import from_plain, to_plain
from foveate.config.training import RunSettings
from foveate.datasets.types import ImageDataset
from foveate.errors import ConfigError
from foveate.models import Model, load_model
from foveate.pipeline.distributed import open_accelerator
from foveate.training.build import build_for
from foveate.training.run_folder import LASTS, PLACES, WATCHES

__all__ = ["Contender", "as_of_now", "lasting", "model_to_measure"]


@dataclass(frozen=True)
class Contender:
    """A method whose cost is measured.

    Attributes:
        name: of the method.
        folder: of a run of it.
        settings: of that run.
        batch: images per step.
    """

    name: str
    folder: Path
    settings: RunSettings
    batch: int

    def what(self) -> dict[str, Any]:
        """What determines a cost: everything about a run but how long it lasts and where it begins."""
        plain = lasting(self.settings)
        for key in (*LASTS, *WATCHES):
            del plain["training"][key]
        del plain["seed"]
        return {"batch": self.batch, **plain}


def model_to_measure(folder: Path, settings: RunSettings, images: ImageDataset, indices: Sequence[int]) -> Model:
    """The model of a run; where only its predictions were kept, a new one, which costs the same.

    Arguments:
        folder: of the run.
        settings: of the run.
        images: the images.
        indices: example numbers of training images.
    """
    if (folder / "model").is_dir():
        return load_model(folder)
    return build_for(settings, images, indices, open_accelerator("no"), pretrained=False)


def lasting(settings: RunSettings) -> dict[str, Any]:
    """Settings as plain values, without the place of the images: a fingerprint knows them wherever they lie."""
    plain: dict[str, Any] = to_plain(settings)
    for place in PLACES:
        del plain["data"][place]
    return plain


def as_of_now(kept: dict[str, Any]) -> dict[str, Any] | None:
    """Kept settings with those that foveate has gained since, at their defaults, which leave everything as it was.

    Arguments:
        kept: what `lasting` gave when they were kept.

    Returns:
        What `lasting` would give now; None if there are no such settings any more.
    """
    try:
        return lasting(from_plain(RunSettings, kept))
    except ConfigError:
        return None
