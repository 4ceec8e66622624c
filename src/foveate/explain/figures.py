"""Figures of attention over training: how heatmaps moved while a model learnt, as a picture and as an animation."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped, UInt8

from foveate.atomic import whole_file
from foveate.datasets.types import ImageDataset
from foveate.errors import ConfigError, DataError, RunError
from foveate.images import Source, unit_range
from foveate.training.attention_log import WatchedImage, map_colours, read_watched
from foveate.types import Box, Size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THUMBNAIL = 400
"""Longest side of an image in a panel, in pixels."""

FONT = 8

ANIMATIONS = (".gif", ".png", ".webp")
"""Endings of files that Pillow can animate."""

SIDE, TITLE = 2.0, 0.3
"""Side of one panel and height of a line of text, in inches."""

DPI = 100

OPACITY = 0.6
"""Of a map over its image."""

LAST = 4
"""How many times as long as the others the last frame is shown."""


@dataclass(frozen=True)
class Watched:
    """Attention log of a run, and the images that it is of.

    Attributes:
        epochs: epoch → what was seen after it, by image id; in order of epoch.
        pictures: image id → the image, small.
        sizes: image id → (height, width) in level-0 pixels.
    """

    epochs: Mapping[int, Mapping[str, WatchedImage]]
    pictures: Mapping[str, Shaped[np.ndarray, "height width *channel"]]
    sizes: Mapping[str, Size]

    @classmethod
    def of(cls, run: Path, dataset: ImageDataset) -> "Watched":
        """Read them; of a run whose number of watched images changed, those that every epoch has."""
        epochs = {epoch: {image.id: image for image in images} for epoch, images in read_watched(run)}
        *_, last = epochs.values()
        names = [name for name in last if all(name in seen for seen in epochs.values())]
        numbers = {example.id: index for index, example in enumerate(dataset.examples)}
        missing = next((name for name in last if name not in numbers), None)
        if missing is not None:
            raise DataError(f"{missing}, which {run} watched, is not among its images: give the images as they were")
        if not names:
            raise RunError(f"{run} watched other images in every epoch: train anew, with one number of training.watch")
        sources = {name: dataset.open(numbers[name]) for name in names}
        return cls(
            epochs,
            {name: small_picture(source) for name, source in sources.items()},
            {name: source.size for name, source in sources.items()},
        )


def draw_evolution(run: Path | str, dataset: ImageDataset, path: Path | str | BytesIO, columns: int = 6) -> None:
    """Figure of the heatmaps a run kept in its folder `attention`: a row per image, a column per epoch.

    The first column is the image itself, of which bands other than grey or RGB show the first; the boxes are the
    patches drawn in that epoch's validation, where the model draws (one that reads every patch has a map alone). Each
    map has a scale of its own, from 0 to its largest probability. After the figures of Katharopoulos & Fleuret,
    "Processing Megapixel Images with Deep Attention-Sampling Models" (ICML 2019), section 4.

    Arguments:
        run: a run folder, trained with `training.watch` > 0.
        dataset: the images of that run.
        path: the picture to write; its ending chooses the format. In memory a PNG.
        columns: how many epochs to show, spread evenly from the first to the last.

    Raises:
        RunError: the run kept no attention maps.
        DataError: an image of them is not in the data set.
    """
    from matplotlib.figure import Figure

    watched = Watched.of(Path(run), dataset)
    shown = _spread(list(watched.epochs), columns)
    count = len(watched.pictures)
    figure = Figure(figsize=(SIDE * (1 + len(shown)), SIDE * count + TITLE), layout="constrained")
    panels = figure.subplots(count, 1 + len(shown), squeeze=False)
    for row, (name, picture) in enumerate(watched.pictures.items()):
        size = watched.sizes[name]
        show_image(panels[row, 0], picture, size, name)
        for panel, epoch in zip(panels[row, 1:], shown, strict=True):
            seen = watched.epochs[epoch][name]
            show_map(panel, seen.attention, seen.extent, size, _title(epoch) if row == 0 else "")
            show_boxes(panel, _boxes(seen))
    if isinstance(path, BytesIO):
        figure.savefig(path, dpi=DPI, format="png")
        return
    with whole_file(Path(path)) as part:
        figure.savefig(part, dpi=DPI, format=Path(path).suffix[1:].lower() or None)


def animate_evolution(run: Path | str, dataset: ImageDataset, path: Path | str, seconds: float = 0.7) -> None:
    """Animation of what `draw_evolution` draws: a frame per epoch, with all images, their maps over them and the boxes.

    The maps have the scales and colours of the picture.

    Arguments:
        run: as for `draw_evolution`.
        dataset: likewise.
        path: the file to write: .gif, or .png and .webp, which keep the colours as they are.
        seconds: that a frame is shown; the last one four times as long.

    Raises:
        ConfigError: the file's ending is none of these.
        RunError: as `draw_evolution`.
        DataError: likewise.
    """
    from PIL import Image

    path = Path(path)
    if path.suffix.lower() not in ANIMATIONS:
        raise ConfigError(
            f"an animation is a {', '.join(ANIMATIONS)} file, got {path.name}: choose one of these endings"
        )
    watched = Watched.of(Path(run), dataset)
    frames = [Image.fromarray(frame) for frame in _frames(watched)]
    times = [round(1000 * seconds)] * len(frames)
    times[-1] *= LAST
    options: dict[str, Any] = {"lossless": True} if path.suffix.lower() == ".webp" else {}
    kind = path.suffix[1:].upper()
    with whole_file(path) as part:
        frames[0].save(part, kind, save_all=True, append_images=frames[1:], duration=times, loop=0, **options)


def _frames(watched: Watched) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = math.ceil(math.sqrt(len(watched.pictures)))
    rows = math.ceil(len(watched.pictures) / columns)
    width, height = SIDE * columns, (SIDE + TITLE) * rows + TITLE
    for epoch, seen in watched.epochs.items():
        figure = Figure(figsize=(width, height), dpi=DPI)
        canvas: Any = FigureCanvasAgg(figure)  # without types
        figure.suptitle(_title(epoch), fontsize=10, y=1 - 0.05 / height, va="top")
        for number, (name, picture) in enumerate(watched.pictures.items()):
            # laid out by hand: a layout that fits its texts would shift from frame to frame
            row, column = divmod(number, columns)
            bottom = (SIDE + TITLE) * (rows - 1 - row)
            panel = figure.add_axes((SIDE * column / width, bottom / height, 0.97 * SIDE / width, SIDE / height))
            image, size = seen[name], watched.sizes[name]
            show_image(panel, picture, size)
            show_map(panel, image.attention, image.extent, size, name, OPACITY)
            show_boxes(panel, _boxes(image))
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _spread(epochs: Sequence[int], columns: int) -> list[int]:
    places = np.unique(np.linspace(0, len(epochs) - 1, min(columns, len(epochs))).round())
    return [epochs[int(place)] for place in places]


def _title(epoch: int) -> str:
    return "before training" if epoch == 0 else f"epoch {epoch}"


def _boxes(seen: WatchedImage) -> list[Box]:
    return [Box(*box) for box in seen.boxes.tolist()]


def small_picture(source: Source) -> Shaped[np.ndarray, "height width *channel"]:
    """Thumbnail of an image as a panel shows it: grey, RGB, or the first band of others; in [0, 1].

    Raises:
        ImageError: it cannot be read.
    """
    pixels = unit_range(source.thumbnail(THUMBNAIL)).clip(0, 1)
    return pixels if pixels.shape[2] == 3 else pixels[:, :, 0]


def show_image(panel: "Axes", pixels: Shaped[np.ndarray, "height width *channel"], size: Size, title: str = "") -> None:
    """Image panel: fill a panel with an image.

    Arguments:
        panel: of a figure; from now on it has the coordinates of level-0 pixels.
        pixels: of `small_picture`.
        size: (height, width) of the image, in level-0 pixels.
        title: above it.
    """
    panel.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(0, size[1], size[0], 0))
    _finish(panel, size, title)


def show_map(
    panel: "Axes",
    attention: Shaped[np.ndarray, "row column"],
    extent: tuple[float, float, float, float],
    size: Size,
    title: str = "",
    opacity: float = 1.0,
) -> None:
    """Heatmap over what a panel shows, in colours from 0 to its largest probability.

    Arguments:
        panel: of a figure.
        attention: (rows, columns) probabilities.
        extent: (top, left, bottom, right) of the map, in level-0 pixels.
        size: (height, width) of the image, likewise.
        title: above it.
        opacity: of the map.
    """
    top, left, bottom, right = extent
    panel.imshow(map_colours(attention), extent=(left, right, bottom, top), alpha=opacity, interpolation="nearest")
    _finish(panel, size, title)


def show_boxes(panel: "Axes", boxes: Iterable[Box], colour: str = "white") -> None:
    """Frame boxes, in level-0 pixels."""
    from matplotlib.patches import Rectangle

    for box in boxes:
        panel.add_patch(
            Rectangle((box.left, box.top), box.width, box.height, fill=False, edgecolor=colour, linewidth=0.6)
        )


def _finish(panel: "Axes", size: Size, title: str) -> None:
    panel.set_xlim(0, size[1])
    panel.set_ylim(size[0], 0)
    panel.set_title(title, fontsize=FONT)
    panel.set_axis_off()
