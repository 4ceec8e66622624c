"""Explanation folders: all files that say what a model saw, image by image, written as it looks."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from foveate.atomic import whole_file, whole_folder
from foveate.errors import ConfigError
from foveate.explain.explanation import Explanation, explain
from foveate.explain.export import write_geojson, write_geotiff, write_heatmap, write_map, write_record, write_wgs84
from foveate.explain.page import Entry, write_index, write_page
from foveate.explain.picture import Rendering, Scale, jpeg, png, shrunk, write_overlay
from foveate.images import Source
from foveate.images.view import shrunk_size
from foveate.models import Look, Model
from foveate.models.look import look_again
from foveate.models.receipts import complete_receipt, receipt_line
from foveate.models.types import ONE_DRAW, DrawOptions

SIDE, PATCH_SIDE, THUMBNAIL = 1600, 1024, 192
"""Longest sides of the picture of an image, of a patch and of the index's pictures, in pixels."""


@dataclass
class Explainer:
    """Explanation writer: what a model saw, image by image; `foveate.predict.predict_rows` calls it with every look.

    Every image gets a folder: explanation.html, explanation.json, overlay.png, patches/, patches.geojson, and of a
    model with attention attention.tif, attention.npz and heatmap.geojson. Where the image lies on earth, attention.tif
    is a GeoTIFF and patches-wgs84.geojson is beside it. A folder appears when it is complete.

    Attributes:
        model: the one that looks.
        out: folder for all.
        options: how it draws.
        what_if: how many other seeds to try: seed + 1, seed + 2 …
        run: what the model is called.
        entries: what has been written so far.
    """

    model: Model
    out: Path
    options: DrawOptions = ONE_DRAW
    what_if: int = 0
    run: str = ""
    entries: list[Entry] = field(default_factory=list)

    def __call__(self, path: str, look: Look, name: str | None = None, truth: Sequence[str] | None = None) -> None:
        """Write the folder of one image.

        Arguments:
            path: what to call it.
            look: at it, with these options.
            name: of its folder, of `folder_names`; one that no entry has if None.
            truth: names of the classes that it shows, None where nobody knows.

        Raises:
            ImageError: its pixels cannot be read.
            ConfigError: a folder of that name is in the way.
        """
        draw = look.output.draw
        count = 0 if draw is None or draw.method == "top" else self.what_if  # no seed would change a thing
        first = self.options.seed + 1
        again = [replace(self.options, seed=seed) for seed in range(first, first + count)]
        others = list(zip((one.seed for one in again), look_again(self.model, look, again), strict=True))
        seen = explain(self.model, look, path, others, truth)
        folder = self._folder(name or folder_names([*(entry.path for entry in self.entries), path])[-1])
        with whole_folder(folder) as unfinished:
            self._write(unfinished, seen, look.opened)
        answer = seen.prediction.predicted, _certainty(seen)
        self.entries.append(Entry(folder.name, path, *answer, seen.warnings, seen.truth, seen.right))

    def finish(self, failures: Sequence[tuple[str, str]] = ()) -> Path | None:
        """Write index.html over all images that were explained; None if there is none.

        Arguments:
            failures: what each image that failed is called, and why, in a line; they are listed below the others.
        """
        if not self.entries:
            return None
        index = self.out / "index.html"
        with whole_file(index) as part:
            write_index(part, self.entries, failures)
        return index

    def _write(self, folder: Path, seen: Explanation, opened: Source) -> None:
        view = opened.view(shrunk_size(opened.size, SIDE))
        rendering = Rendering.of(opened, view, self.model.settings.input.bands)
        picture = rendering(view)
        settings = self._settings(rendering, seen.drawn)
        boxes = [patch.box for patch in seen.patches]
        shown = {box: rendering.patch(opened, box, PATCH_SIDE) for box in dict.fromkeys(boxes)}
        pictures = [shown[box] for box in boxes]
        scale = Scale.over(seen)
        where = seen.georeference
        if seen.attention is not None:
            write_map(folder, seen)
            write_heatmap(folder / "heatmap.geojson", seen)
            if where is not None:
                write_geotiff(folder / "attention.tif", seen, where)
        if seen.patches:
            (folder / "patches").mkdir()
            for number, (patch, pixels) in enumerate(zip(seen.patches, pictures, strict=True), start=1):
                name = f"patch-{number:03d}-draw-{patch.draw + 1}.png"
                (folder / "patches" / name).write_bytes(png(pixels))
            write_geojson(folder / "patches.geojson", seen)
            if where is not None and where.crs:
                write_wgs84(folder / "patches-wgs84.geojson", seen, where)
        write_overlay(folder / "overlay.png", seen, picture, scale)
        (folder / "thumbnail.jpg").write_bytes(jpeg(shrunk(picture, THUMBNAIL), 40_000))
        write_record(folder / "explanation.json", seen, settings)
        write_page(folder / "explanation.html", seen, picture, pictures, scale, settings, _receipt(seen))

    def _settings(self, rendering: Rendering, drawn: bool) -> dict[str, str]:
        bands = ", ".join(map(str, rendering.bands))
        stretched = f"bands {bands}, from the 1st to the 99th percentile" if rendering.stretched else "as it is"
        name = self.model.settings.name
        told = {"model": f"{self.run} ({name})" if self.run else name}
        if drawn:
            options = self.options
            told |= {"draws": str(options.samples), "method": options.method or self.model.method}
            told |= {"seed": str(options.seed)}
        return told | {"image shown": stretched}

    def _folder(self, name: str) -> Path:
        folder = self.out / name
        if folder.exists() and not (folder / "explanation.json").is_file():
            raise ConfigError(f"{folder} is in the way, it holds no explanation: rename it, or give another --out")
        return folder


def folder_names(paths: Sequence[str]) -> list[str]:
    """Names of the folders of images, after their files: two images of one name get different ones.

    Arguments:
        paths: what the images are called.

    Example:
        >>> folder_names(["one/x.png", "two/x.tif", "weird (name).png"])
        ['x', 'x-2', 'weird-name']
    """
    names: dict[str, None] = {}
    doubles: Counter[str] = Counter()
    for path in paths:
        stem = name = re.sub(r"[^\w.\-]+", "-", Path(path.rstrip("/")).stem).strip(".-") or "image"
        while name in names:
            doubles[stem] += 1
            name = f"{stem}-{doubles[stem] + 1}"
        names[name] = None
    return list(names)


def _certainty(seen: Explanation) -> float | None:
    if seen.numeric:
        return None
    values = seen.prediction.probabilities
    return values.get(seen.prediction.predicted, max(values.values()))


def _receipt(seen: Explanation) -> str:
    receipt = seen.prediction.receipt
    assert receipt is not None
    return receipt_line(complete_receipt(receipt, seen.prediction.seconds))
