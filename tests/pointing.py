"""Models whose attention points at contrast without having been trained, and canvases with one digit."""

import numpy as np
import torch
from tiny import small_settings

from foveate.config.settings import AttentionSettings, PriorSettings, ViewSettings
from foveate.models import Model, build_model

CLASSES = ("cat", "dog", "owl")


def pointing_model(channels: int = 1, classes: tuple[str, ...] = CLASSES, **changes: object) -> Model:
    """A model whose attention is its contrast prior alone, whatever else of its settings changes."""
    given = {
        "view": ViewSettings(longest_side=96),
        "patch": (28, 36),
        "attention": AttentionSettings(widths=(4,), stride=3),
        "prior": PriorSettings(contrast=6.0),
    } | changes
    torch.manual_seed(3)
    model = build_model(small_settings(**given), classes, channels)  # type: ignore[arg-type]
    if hasattr(model, "prior"):
        with torch.no_grad():
            for parameter in model.attention.parameters():  # type: ignore[union-attr]
                parameter.zero_()
    return model.eval()


def digit_canvas(size: tuple[int, int], centre: tuple[int, int], channels: int = 1, side: int = 28) -> np.ndarray:
    """A dark image, (height, width, channels), with one striped digit centred at (row, column)."""
    pixels = np.random.default_rng(0).integers(8, 12, (*size, channels), dtype=np.uint8)
    top, left = centre[0] - side // 2, centre[1] - side // 2
    pixels[top : top + side, left : left + side] = 40
    pixels[top : top + side, left + side // 4 : left + side // 2] = 250
    pixels[top + side // 2 : top + 3 * side // 4, left : left + side] = 220
    return pixels
