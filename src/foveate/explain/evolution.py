"""How the attention moved while the model learnt, as one picture."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.errors import RunError
from foveate.images import Source, unit_range, view_size
from foveate.models import Model, load_model
from foveate.types import ImageDataset

__all__ = ["draw_evolution"]

SIDE = 2.0
"""Side of one panel, in inches."""


def draw_evolution(run: Path | str, dataset: ImageDataset, path: Path | str, columns: int = 6) -> None:
    """Draw the attention maps a run kept in its folder `attention`: a row per image, a column per epoch.

    The first column is the image itself, of which bands other than grey or RGB show the first; the boxes are the
    patches drawn in that epoch's validation, where the model draws (one that reads every patch has a map alone). Each
    map has a scale of its own, from 0 to its largest probability. After the figures of Katharopoulos & Fleuret,
    "Processing Megapixel Images with Deep Attention-Sampling Models" (ICML 2019), section 4.

    Arguments:
        run: a run folder, trained with `training.watch` > 0.
        dataset: the images of that run.
        path: the picture to write; its ending chooses the format.
        columns: how many epochs to show, spread evenly from the first to the last.

    Raises:
        RunError: the run kept no attention maps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    frames = _frames(Path(run) / "attention")
    model = load_model(str(run))
    shown = [frames[number] for number in _spread(len(frames), columns)]
    ids = [str(name) for name in shown[0][1]["ids"]]
    numbers = {example.id: index for index, example in enumerate(dataset.examples)}
    figure = Figure(figsize=(SIDE * (1 + len(shown)), SIDE * len(ids) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(ids), 1 + len(shown), squeeze=False)
    for row, name in enumerate(ids):
        source = dataset.open(numbers[name])
        _show_image(panels[row, 0], unit_range(source.thumbnail(400)), source.size, name)
        for column, (epoch, arrays) in enumerate(shown, start=1):
            title = "before training" if epoch == 0 else f"epoch {epoch}"
            attention, extent = _placed(model, arrays["attention"][row], source)
            panel = panels[row, column]
            panel.imshow(attention, cmap="magma", vmin=0, extent=extent)
            _show_boxes(panel, arrays["boxes"][row] if "boxes" in arrays else (), source.size)
            panel.set_title(title if row == 0 else "", fontsize=8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _frames(folder: Path) -> list[tuple[int, dict[str, NDArray[np.generic]]]]:
    frames = []
    for file in sorted(folder.glob("epoch-*.npz")):
        match = re.fullmatch(r"epoch-(\d+)", file.stem)
        with np.load(file) as arrays:
            if match and "attention" in arrays:
                frames.append((int(match[1]), {key: arrays[key] for key in arrays}))
    if not frames:
        raise RunError(f"{folder} holds no attention maps: train a model that attends with --training.watch 4")
    return frames


def _spread(count: int, columns: int) -> list[int]:
    return [int(number) for number in np.unique(np.linspace(0, count - 1, min(columns, count)).round())]


def _show_image(panel, pixels, size, name) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    shown = pixels.clip(0, 1) if pixels.shape[2] == 3 else pixels[:, :, 0]
    panel.imshow(shown, cmap="gray", extent=(0, size[1], size[0], 0))
    panel.set_title(name, fontsize=8)
    panel.set_axis_off()


def _placed(
    model: Model, attention: NDArray[np.generic], source: Source
) -> tuple[NDArray[np.generic], tuple[float, float, float, float]]:
    """An image's own part of a padded map, and its place as matplotlib wants it: left, right, bottom, top."""
    assert model.grid is not None
    view = source.size if model.view is None else view_size(model.view, source)
    rows, columns = model.grid.shape(view)
    top, left, bottom, right = model.grid.extent(view, source.size)
    return attention[:rows, :columns], (left, right, bottom, top)


def _show_boxes(panel, boxes, size) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    from matplotlib.patches import Rectangle

    for top, left, height, width in boxes:
        panel.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="white", linewidth=0.6))
    panel.set_xlim(0, size[1])
    panel.set_ylim(size[0], 0)
    panel.set_axis_off()
