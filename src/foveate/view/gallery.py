"""Gallery of the images that are shown: what a model saw in each of them, and their tiles."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from foveate.cache import DECODED, ENCODED, Owner
from foveate.errors import UNREADABLE, Changed, ImageError
from foveate.explain import Explanation, explain
from foveate.explain.picture import Rendering, Scale, jpeg, png
from foveate.images import ArraySource, Masked, Source
from foveate.images.io.open import state_of
from foveate.images.view import shrunk_size
from foveate.images.wrappers.base import Wrapper
from foveate.models import Model
from foveate.models.probabilities import refuse_numbers
from foveate.models.types import ONE_DRAW, DrawOptions
from foveate.predict import Row
from foveate.types import Box
from foveate.view.description import image_json
from foveate.view.pyramid import Pyramid, make_overview, map_pixels, overview_level, tile_pixels

OPEN, AT_ONCE, SMALL, PATCH_SIDE = 4, 4, 512, 224
"""Images held open, pictures made at a time; longest sides of what colours are found by, and of patches."""

State = Mapping[str, tuple[object, ...] | None]
"""Files, and what each was."""


@dataclass(frozen=True)
class Seen:
    """Explained image: what is remembered of one that was looked at, be it open or not.

    Attributes:
        told: what the model saw.
        rendering: how the image's pixels become colours.
        pyramid: over the image.
        mpp: microns per level-0 pixel, or None.
        scale: of the colours of the attention map, or None.
        colours: RGBA of the map's cells, or None.
        look: number of the look, of all that were taken at any image.
        state: of its files, when they were looked at.
    """

    told: Explanation
    rendering: Rendering
    pyramid: Pyramid
    mpp: float | None
    scale: Scale | None
    colours: UInt8[np.ndarray, "row column 4"] | None
    look: int
    state: State


class Gallery:
    """Gallery: images that a model looks at when first asked for, their tiles made on the fly. For many threads.

    Images go by their numbers, which is all that a page can ask for: what has no number here cannot be seen. Before
    every answer the image's file is looked up: of one that has changed nothing is shown that was made of it before, and
    the model looks at it again.

    Arguments:
        model: the one that looks; it predicts as `foveate.predict.predict_rows` would.
        rows: of `foveate.predict.find_rows`.
        options: how to draw.
    """

    def __init__(self, model: Model, rows: Sequence[Row], options: DrawOptions = ONE_DRAW) -> None:
        refuse_numbers(model.kind, "foveate view is")
        self._rows, self._options = tuple(rows), options
        self._model, self._bands = model, model.settings.input.bands
        self._seen: dict[int, Seen] = {}
        self._failed: dict[int, str] = {}
        # one that is let go of is closed when its last tile is made
        self._open = lru_cache(OPEN)(lambda number, rows=self._rows: rows[number].open())
        self._overviews, self._pictures = Owner(DECODED), Owner(ENCODED)
        self._looking, self._looks = threading.Lock(), 0
        self._making = threading.BoundedSemaphore(AT_ONCE)

    def __len__(self) -> int:
        return len(self._rows)

    def overview(self) -> list[dict[str, str]]:
        """Every image with what is known of it: "path", "state" (waiting, seen or failed) and "said"."""
        return [{"path": row.path} | self._state(number) for number, row in enumerate(self._rows)]

    def seen(self, number: int, look: int | None = None) -> Seen:
        """Look at an image, unless that was done before and its file is what it was then.

        Arguments:
            number: of the image.
            look: of which something is asked; None for the latest.

        Raises:
            ImageError: it cannot be opened, read or predicted; the next call tries again.
            Changed: the look is not the latest.
        """
        seen = self._seen.get(number)
        if seen is None or seen.state != _state(seen.state):
            with self._looking:
                if self._seen.get(number) is seen:
                    self._look(number)
                seen = self._seen[number]
        if look not in (None, seen.look):
            raise Changed(f"{self._rows[number].path}: the file has changed since it was looked at: look again")
        return seen

    def image_json(self, number: int) -> dict[str, Any]:
        """JSON that the page is told of an image; see `foveate.view.description`.

        Raises:
            ImageError: as `seen`.
        """
        seen = self.seen(number)
        return image_json(seen.told, seen.scale, seen.pyramid, seen.mpp) | {"look": seen.look}

    def tile(self, number: int, level: int, row: int, column: int, look: int | None = None) -> bytes | None:
        """Tile of an image as a JPEG file, or None if there is no such tile.

        Raises:
            ImageError: as `seen`.
        """
        seen = self.seen(number, look)
        box = seen.pyramid.tile(level, row, column)
        if box is None:
            return None
        what = (level, row, column)
        return self._made(number, seen, what, lambda: jpeg(seen.rendering(self._pixels(number, seen, level, box))))

    def map_tile(self, number: int, level: int, row: int, column: int, look: int | None = None) -> bytes | None:
        """Heatmap tile over a tile of an image, as a PNG file; None if there is none.

        Raises:
            ImageError: as `seen`.
        """
        seen = self.seen(number, look)
        box, colours, affine = seen.pyramid.tile(level, row, column), seen.colours, seen.told.affine
        if box is None or colours is None or affine is None:
            return None
        step = seen.pyramid.step(level)
        what = ("map", level, row, column)
        return self._made(number, seen, what, lambda: png(map_pixels(colours, affine, step, box)))

    def patch(self, number: int, which: int, look: int | None = None) -> bytes | None:
        """Patch that the model read, small, as a JPEG file; None if there is no such patch.

        Raises:
            ImageError: as `seen`.
        """
        seen = self.seen(number, look)
        if not 0 <= which < len(seen.told.patches):
            return None
        box = seen.told.patches[which].box
        what = ("patch", box)
        return self._made(number, seen, what, lambda: jpeg(seen.rendering.patch(self._open(number), box, PATCH_SIDE)))

    def _made(self, number: int, seen: Seen, what: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        def in_turn() -> bytes:
            try:
                with self._making:
                    made = make()
            except Changed:  # as an open file says; behind an address nobody else would
                self._seen.pop(number, None)
                self._open.cache_clear()
                raise
            if seen.state != _state(seen.state):  # half of it may be of the new file
                raise Changed(f"{seen.told.path}: the file has changed while it was read: look again")
            return made

        return self._pictures.get((seen.look, *what), in_turn)

    def _state(self, number: int) -> dict[str, str]:
        seen, failed = self._seen.get(number), self._failed.get(number)
        if seen is not None:
            return {"state": "seen", "said": seen.told.prediction.predicted}
        return {"state": "waiting", "said": ""} if failed is None else {"state": "failed", "said": failed}

    def _look(self, number: int) -> None:
        if self._seen.pop(number, None) is not None:
            self._open.cache_clear()  # opened before, a file is what it was then
        try:
            opened = self._open(number)
            state = _state(dict.fromkeys(_files(opened)))
            look = self._model.look(opened, self._options)
            rendering = Rendering.of(opened, opened.view(shrunk_size(opened.size, SMALL)), self._bands)
        except UNREADABLE as error:
            self._open.cache_clear()
            self._failed[number] = " ".join(str(error).split())
            raise ImageError(self._failed[number]) from error
        told = explain(self._model, look, self._rows[number].path)
        scale, colours = Scale.over(told), None
        if scale is not None and told.attention is not None and told.cell_mask is not None:
            colours = scale.colour(told.attention, told.cell_mask)
        self._looks += 1
        pyramid = Pyramid(told.size)
        self._seen[number] = Seen(told, rendering, pyramid, opened.mpp, scale, colours, self._looks, state)
        self._failed.pop(number, None)

    def _pixels(self, number: int, seen: Seen, level: int, box: Box) -> Float32[np.ndarray, "height width channel"]:
        """Of a tile; those of coarse levels that the file lacks come from an overview, which is made the first time."""
        source, pyramid = self._open(number), seen.pyramid
        coarse = overview_level(source, pyramid)
        if coarse is None or level > coarse:
            return tile_pixels(source, pyramid, level, box)
        whole = self._overviews.get(seen.look, lambda: make_overview(source, pyramid, coarse))
        return tile_pixels(ArraySource(whole), pyramid, level, box, pyramid.step(coarse))


def _files(source: Source) -> Iterator[str]:
    """Files that an image is made of: its own, and its mask."""
    yield source.name
    if isinstance(source, Masked):
        yield source.mask
    if isinstance(source, Wrapper):
        yield from _files(source.source)


def _state(files: Iterable[str]) -> State:
    """What files are now."""
    return {name: state_of(name) for name in files}
