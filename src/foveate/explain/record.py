"""What an explanation says, for programs: JSON and arrays."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from foveate.explain.explanation import Explanation

__all__ = ["AFFINE", "write_map", "write_record"]

AFFINE = (
    "x = a*column + b*row + c, y = d*column + e*row + f; cell (row, column) covers [row, row+1) x [column, column+1)"
)
"""What the six numbers mean, in words that go into the files."""


def write_map(folder: Path, seen: Explanation) -> None:
    """Write the attention map at its own resolution: `attention.npz`, and `attention.tif` of float32.

    The .npz file has attention (rows, columns), cell_mask, affine (a, b, c, d, e, f) from cells to level-0 pixels of
    the file, and size (height, width) of the image. The TIFF file has the same affine map in its description.

    Arguments:
        folder: where to write.
        seen: with an attention map.
    """
    import tifffile

    assert seen.attention is not None
    assert seen.cell_mask is not None
    assert seen.affine is not None
    np.savez_compressed(
        folder / "attention.npz",
        attention=seen.attention.astype(np.float32),
        cell_mask=seen.cell_mask,
        affine=np.array(seen.affine, np.float64),
        size=np.array(seen.size, np.int64),
    )
    description = json.dumps({"affine": seen.affine, "meaning": AFFINE, "size": seen.size})
    tifffile.imwrite(
        folder / "attention.tif",
        seen.attention.astype(np.float32),
        photometric="minisblack",
        description=description,
        metadata=None,
    )


def write_record(path: Path, seen: Explanation, settings: dict[str, str]) -> None:
    """Write all figures of an explanation as JSON.

    Arguments:
        path: file to write.
        seen: what it says.
        settings: how it was made, name → text.
    """
    path.write_text(
        json.dumps(_plain(seen) | {"made": settings}, indent=1, ensure_ascii=False) + "\n", "utf-8", "replace"
    )


def _plain(seen: Explanation) -> dict[str, Any]:
    prediction, health = seen.prediction, seen.health
    return {
        "path": seen.path,
        "predicted": prediction.predicted,
        "probabilities": prediction.probabilities,
        "classes": list(seen.classes),
        "size": list(seen.size),
        "patches": [
            {
                "draw": patch.draw,
                "box": [patch.box.top, patch.box.left, patch.box.height, patch.box.width],
                "attention": patch.attention,
                "weight": patch.weight,
                "contributions": list(patch.contributions),
            }
            for patch in seen.patches
        ],
        "draws": [
            {"logits": logits.tolist(), "probabilities": values.tolist()}
            for logits, values in zip(seen.logits, seen.probabilities, strict=True)
        ],
        "bias": None if seen.bias is None else seen.bias.tolist(),
        "unlisted": None if seen.rest is None else seen.rest.tolist(),
        "affine": None if seen.affine is None else list(seen.affine),
        "health": None
        if health is None
        else {
            "findings": list(health.findings),
            "cells": health.cells,
            "effective_cells": health.effective_cells,
            "border_mass": health.border_mass,
            "border_cells": health.border_cells,
        },
        "warnings": list(seen.warnings),
        "note": seen.note,
        "what_if": [
            {
                "seed": seed,
                "predicted": other.predicted,
                "probabilities": other.probabilities,
                "boxes": [[box.top, box.left, box.height, box.width] for box in other.boxes],
            }
            for seed, other in seen.others
        ],
    }
