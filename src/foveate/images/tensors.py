"""Tensors of images: the low-resolution view that a model looks at first, its guide, a batch of them; patches."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Shaped
from torch import Tensor

from foveate.config.settings import ViewSettings
from foveate.errors import ConfigError, ImageError
from foveate.images.header import FULL_SCALE, Missing, full_scale, not_finite, unit_range
from foveate.images.source import Known, Source
from foveate.images.wrappers.base import original
from foveate.threads import in_threads, reading_threads
from foveate.types import Box, Size


def check_view(settings: ViewSettings) -> None:
    """View settings check: those that make no sense, whatever the image, are refused.

    Arguments:
        settings: exactly one of longest side (at least 1 view pixel), scale (in (0, 1]) and microns per pixel (positive
            and finite) must be set.

    Raises:
        ConfigError: if none or several of the three are set, or the one that is has an impossible value.

    Example:
        >>> check_view(ViewSettings(scale=0.25))
    """
    chosen = {k: v for k, v in vars(settings).items() if v is not None}
    if len(chosen) != 1:
        listed = " and ".join(f"{name} {value}" for name, value in chosen.items()) or "none"
        raise ConfigError(
            f"model.view needs exactly one of longest_side, scale and mpp, got {listed}: "
            "set one and leave the others null"
        )
    if settings.longest_side is not None and settings.longest_side < 1:
        raise ConfigError(
            f"model.view.longest_side must be at least 1 pixel, got {settings.longest_side}: set e.g. 512"
        )
    if settings.scale is not None and not 0 < settings.scale <= 1:
        raise ConfigError(f"model.view.scale must be above 0 and at most 1, got {settings.scale}: set e.g. 0.25")
    if settings.mpp is not None and not 0 < settings.mpp < float("inf"):
        raise ConfigError(f"model.view.mpp must be above 0 microns per pixel, got {settings.mpp}: set e.g. 8")


def view_size(settings: ViewSettings, source: Source) -> Size:
    """View size of an image; views are never larger than the image.

    Arguments:
        settings: exactly one of longest side, scale and microns per pixel.
        source: the image; its pixels are not read.

    Returns:
        (rows, columns); sides round to the nearest pixel, halves up, and are at least 1.

    Raises:
        ConfigError: if none or several of the three are set, or the one that is has an impossible value.
        ImageError: if the view is asked for in microns per pixel and the image's are not known.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> view_size(ViewSettings(longest_side=50), ArraySource(np.zeros((61, 100), np.uint8)))
        (31, 50)
    """
    check_view(settings)
    ratio = min(_ratio(settings, source), Fraction(1))
    rows, columns = (max(1, (2 * side * ratio.numerator + ratio.denominator) // (2 * ratio.denominator))
                     for side in source.size)  # fmt: skip
    return rows, columns


def _ratio(settings: ViewSettings, source: Source) -> Fraction:
    """View pixels per full-resolution pixel, exact for the decimals the user wrote."""
    if settings.longest_side is not None:
        return Fraction(settings.longest_side, max(source.size))
    if settings.scale is not None:
        return Fraction(str(settings.scale))
    if source.mpp is None:
        raise ImageError(
            f"{source.name or 'image in memory'}: a view of {settings.mpp} microns per pixel needs the image's own, "
            "which are not known: give mpp in the manifest, or set model.view.longest_side or model.view.scale"
        )
    return Fraction(str(float(source.mpp))) / Fraction(str(settings.mpp))


def make_view(source: Source, settings: ViewSettings) -> Float32[Tensor, "channel height width"]:
    """View of an image: its area average, in the unit range.

    Arguments:
        source: the image.
        settings: how large the view is.

    Returns:
        (C, h, w) float32, channels last in memory.

    Raises:
        ConfigError: if the settings are impossible.
        ImageError: if the image cannot be read, or has no microns per pixel where they are needed.
    """
    return torch.from_numpy(source.view(view_size(settings, source))).permute(2, 0, 1)


def pad_views(
    views: Sequence[Float32[Tensor, "channel _ _"]],
) -> tuple[Float32[Tensor, "batch channel height width"], Bool[Tensor, "batch height width"], tuple[Size, ...]]:
    """Padded batch of views of different sizes, with zeros below and to the right of the smaller ones.

    Arguments:
        views: (C, h, w) views; all with the same number of channels.

    Returns:
        (B, C, h, w) float32 in channels-last memory, or one number for all where views are that, for nobody has seen
        them; (B, h, w) True inside the images; B sizes without padding.

    Raises:
        ImageError: if there is no view or their numbers of channels differ.

    Example:
        >>> views, mask, sizes = pad_views([torch.ones(1, 2, 3), torch.ones(1, 1, 4)])
        >>> views.shape, mask[1].tolist(), sizes
        (torch.Size([2, 1, 2, 4]), [[True, True, True, True], [False, False, False, False]], ((2, 3), (1, 4)))
    """
    channels = sorted({view.shape[0] for view in views})
    if len(channels) != 1:
        raise ImageError(
            f"views in a batch must have the same number of channels, got {' and '.join(map(str, channels)) or 'none'}:"
            " convert the images to one kind, grey or RGB"
        )
    sizes = tuple((int(view.shape[1]), int(view.shape[2])) for view in views)
    rows, columns = max(size[0] for size in sizes), max(size[1] for size in sizes)
    shape = len(views), rows, columns, channels[0]
    unseen = all(not any(view.stride()) and view[0, 0, 0] == 0 for view in views)
    padded = (torch.zeros(1).expand(shape) if unseen else torch.zeros(shape)).permute(0, 3, 1, 2)
    mask = torch.zeros(len(views), rows, columns, dtype=torch.bool)
    for i, (view, (height, width)) in enumerate(zip(views, sizes, strict=True)):
        if not unseen:
            padded[i, :, :height, :width] = view
        mask[i, :height, :width] = True
    return padded, mask, sizes


def gather(
    sources: Sequence[Source],
    boxes: Int[Tensor, "batch draw 4"],
    valid: Bool[Tensor, "batch draw"] | None = None,
    threads: int | None = None,
) -> Float32[Tensor, "batch draw channel height width"]:
    """Patches of several images, as floats.

    Arguments:
        sources: the B images, all with the same number of channels C.
        boxes: (B, n, 4) top, left, height, width in level-0 pixels, all of one size; on the CPU.
        valid: (B, n) False where nothing is to be read and the patch is 0; None reads all.
        threads: images read at the same time; of fewer images, tiles decoded at the same time. 1 reads one after the
            other, None is `foveate.threads.reading_threads()`. Only sources for which it pays (`Source.threaded`) are
            read in threads.

    Returns:
        (B, n, C, height, width) float32 in the unit range, the image's `neutral` value where data is missing;
        `flatten(0, 1)` of it is channels-last and not a copy.

    Raises:
        ImageError: if boxes differ in size, images in their number of channels, an image cannot be read, or a patch has
            pixels that are no numbers.

    Example:
        >>> from foveate.images import ArraySource
        >>> source = ArraySource(np.full((8, 9, 3), 255, np.uint8))
        >>> patches = gather([source], torch.tensor([[[0, 0, 2, 3], [7, 0, 2, 3]]]))
        >>> patches.shape, patches[0, :, 0, :, 0].tolist()
        (torch.Size([1, 2, 3, 2, 3]), [[1.0, 1.0], [1.0, 0.0]])
    """
    return _filled(sources, boxes, valid, threads, np.dtype(np.float32), pin=False)


def read_patches(
    sources: Sequence[Source],
    boxes: Int[Tensor, "batch draw 4"],
    valid: Bool[Tensor, "batch draw"] | None = None,
    threads: int | None = None,
    pin: bool = False,
) -> Shaped[Tensor, "batch draw channel height width"]:
    """Patches of several images as they are stored, a byte a value where files hold bytes: to be sent to a device.

    Arguments:
        sources: the B images, all with the same number of channels C.
        boxes: (B, n, 4) top, left, height, width in level-0 pixels, all of one size; on the CPU.
        valid: (B, n) False where nothing is to be read and the patch is 0; None reads all.
        threads: as for `gather`.
        pin: into page-locked memory, from which a copy to a CUDA device need not be waited for.

    Returns:
        (B, n, C, height, width) in the type of the images if all have one of bool, uint8 and uint16 and no data is
        missing, else float32; `to_unit` of it, on any device, is what `gather` returns. Channels last in memory, too.

    Raises:
        ImageError: as `gather`.

    Example:
        >>> from foveate.images import ArraySource
        >>> source = ArraySource(np.full((8, 9, 3), 51, np.uint8))
        >>> patches = read_patches([source], torch.tensor([[[0, 0, 2, 3]]]))
        >>> patches.dtype, to_unit(patches)[0, 0, 0, 0, 0]
        (torch.uint8, tensor(0.2000))
    """
    dtypes = {source.dtype for source in sources}
    stored = dtypes.pop() if len(dtypes) == 1 and dtypes <= set(FULL_SCALE) else np.dtype(np.float32)
    return _filled(sources, boxes, valid, threads, stored, pin)


HOST = "cpu"
"""The kind of device that NumPy computes on."""


def to_unit(patches: Shaped[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    r"""Pixel values as float32 in the unit range, computed where they are.

    .. math:: x / 255 \text{ for uint8}, \qquad x / 65535 \text{ for uint16}

    Arguments:
        patches: of any shape, on any device; bool, uint8, uint16 or floating point.

    Returns:
        The same shape, in the same order in memory, to the bit as `foveate.images.unit_range` has it; what is float32
        already is returned as it is.

    Example:
        >>> to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    if patches.dtype == torch.float32:
        return patches
    if patches.device.type == HOST:
        return torch.from_numpy(unit_range(patches.numpy()))  # four times as fast as torch converts bytes here
    values = patches.to(torch.float32)
    scale = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(patches.dtype)
    # a tensor on the device divides; by a number CUDA multiplies with its reciprocal, which is another number
    return values if scale is None else values.div_(values.new_full((), scale))


def _filled(
    sources: Sequence[Source],
    boxes: Int[Tensor, "batch draw 4"],
    valid: Bool[Tensor, "batch draw"] | None,
    threads: int | None,
    dtype: np.dtype[Any],
    pin: bool,
) -> Shaped[Tensor, "batch draw channel height width"]:
    """The patches, as floats of the unit range or, of any other type, as they are."""
    if len(sources) != boxes.shape[0]:
        raise ImageError(f"boxes must be given for every image, got {len(sources)} images and {boxes.shape[0]} rows")
    height, width = _one_size(boxes)
    channels = _one_channel_count(sources)
    batch, draws = boxes.shape[:2]
    shape = batch, draws, height, width, channels
    # by NumPy, which asks for large pages; and torch's threads would go on waiting, busily, for work that the reading
    # threads need the processor for
    patches, rows = _pinned(shape, dtype) if pin else torch.from_numpy(np.empty(shape, dtype)), boxes.tolist()
    target = patches.numpy()
    wanted = [[True] * draws] * batch if valid is None else valid.tolist()
    threads = reading_threads() if threads is None else threads
    gaps: list[tuple[int, int, Missing]] = []

    def fill(i: int, at_once: int = 1) -> None:
        source, floats = sources[i], may_hold_nan(sources[i])
        scale = np.float32(full_scale(source.dtype))
        some = {s: Box(*rows[i][s]) for s in range(draws) if wanted[i][s]}
        for s in set(range(draws)) - set(some):
            target[i, s] = 0
        for s, (pixels, missing) in zip(some, _read(source, list(some.values()), at_once), strict=True):
            if dtype.kind == "f":
                np.divide(pixels, scale, out=target[i, s], casting="same_kind")
            else:
                np.copyto(target[i, s], pixels, casting="no")
            if missing is not None:
                gaps.append((i, s, missing))
            if floats and not np.isfinite(target[i, s]).all():
                raise not_finite(source.name, f"the patch at row {some[s].top}, column {some[s].left}")

    slow = [i for i in range(batch) if sources[i].threaded and threads > 1]
    if len(slow) > 1:
        # images first: what is left of the threads goes to the tiles of each
        in_threads(partial(fill, at_once=max(1, threads // len(slow))), slow, threads)
    elif slow:
        fill(slow[0], threads)
    for i in sorted(set(range(batch)) - set(slow)):
        fill(i)
    if gaps:
        if dtype.kind != "f":  # the neutral value is a fraction
            patches = torch.from_numpy(unit_range(target))
            patches = patches.pin_memory() if pin else patches
        for i, s, missing in gaps:
            np.copyto(patches.numpy()[i, s], sources[i].neutral(), where=missing)
    return patches.permute(0, 1, 4, 2, 3)


def may_hold_nan(source: Source) -> bool:
    """Whether pixels may be no numbers: those of files of floats may, floats made of whole numbers do not."""
    return source.dtype.kind == "f" and original(source).dtype.kind == "f"


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=True)


def _read(source: Source, boxes: Sequence[Box], threads: int) -> Iterator[Known]:
    """What is known of every box; read at once where that reads no more than one by one, as on a grid of patches.

    Images of tiles see by themselves that boxes share them.
    """
    top, left = (min((getattr(box, side) for box in boxes), default=0) for side in ("top", "left"))
    bottom, right = (max((getattr(box, side) for box in boxes), default=0) for side in ("bottom", "right"))
    joined = len(boxes) > 1 and (bottom - top) * (right - left) <= sum(box.height * box.width for box in boxes)
    if joined and source.header.tile is None:
        around = Box(top, left, bottom - top, right - left)
        whole, missing = source.read_known([around], 0, threads)[0]
        for box in boxes:
            part = box.place_in(around)
            yield whole[part], None if missing is None or not missing[part].any() else missing[part]
    else:
        yield from source.read_known(boxes, 0, threads)


def _one_size(boxes: Int[Tensor, "batch draw 4"]) -> tuple[int, int]:
    sizes = torch.unique(boxes[:, :, 2:].reshape(-1, 2), dim=0).tolist()
    if len(sizes) != 1:
        got = " and ".join(f"{height}×{width}" for height, width in sizes) or "none"
        raise ImageError(f"boxes gathered together must all have one size, got {got}: gather each size by itself")
    return sizes[0][0], sizes[0][1]


def _one_channel_count(sources: Sequence[Source]) -> int:
    first = sources[0]
    for other in sources:
        if other.channels != first.channels:
            raise ImageError(
                f"images in a batch must have the same number of channels, got {first.channels} "
                f"({first.name or 'in memory'}) and {other.channels} ({other.name or 'in memory'}): "
                "convert them to one kind, grey or RGB"
            )
    return first.channels
