"""Patches of a batch: the pixels of every box, nothing for invalid ones, the same with threads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.errors import ImageError
from foveate.images import ArraySource, Source, open_image, unit_range
from foveate.images.tensors import gather, read_patches, to_unit
from foveate.types import Box


def batch(folder: Path) -> list[Source]:
    """Files and arrays of different sizes and types."""
    generator = np.random.default_rng(0)
    sources: list[Source] = []
    for i, (height, width) in enumerate([(40, 60), (33, 20), (50, 70)]):
        path = folder / f"{i}.png"
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        sources.append(open_image(path))
    sources.append(ArraySource(generator.random((25, 45, 3)).astype(np.float32)))
    sources.append(ArraySource(generator.integers(0, 65536, (25, 45, 3), dtype=np.uint16)))
    return sources


def test_a_patch_of_pixels_that_are_no_numbers_is_named() -> None:
    pixels = np.zeros((20, 30), np.float32)
    pixels[7, 25] = np.nan
    source = ArraySource(pixels, name="scene.npy")
    assert gather([source], torch.tensor([[[0, 0, 20, 25]]])).isfinite().all()
    with pytest.raises(ImageError) as caught:
        gather([source], torch.tensor([[[0, 0, 9, 8], [2, 20, 9, 8]]]))
    assert str(caught.value) == (
        "scene.npy: the patch at row 2, column 20 has pixels that are nan or infinite: replace them first, "
        "e.g. by the mean of their band"
    )


def boxes(images: int, draws: int, height: int = 12, width: int = 17) -> torch.Tensor:
    corners = torch.randint(-15, 45, (images, draws, 2), generator=torch.Generator().manual_seed(4))
    return torch.cat([corners, torch.tensor([height, width]).expand(images, draws, 2)], -1)


@pytest.mark.parametrize("threads", [0, 1, 2, 8])
def test_patches_are_the_boxes_in_the_unit_range(threads: int, tmp_path: Path) -> None:
    sources = batch(tmp_path)
    where = boxes(len(sources), 6)
    patches = gather(sources, where, threads=threads)
    assert (patches.shape, patches.dtype) == ((5, 6, 3, 12, 17), torch.float32)
    for i, source in enumerate(sources):
        for s in range(6):
            expected = unit_range(source.read(Box(*where[i, s].tolist())))
            np.testing.assert_array_equal(patches[i, s].permute(1, 2, 0), expected)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16])
def test_values_of_a_file_s_type_travel_as_they_are_and_become_the_same_floats(dtype: type) -> None:
    shape = (65_536 // 160, 160, 1)
    every = np.arange(shape[0] * shape[1]).astype(dtype).reshape(shape)
    sources, where = [ArraySource(every), ArraySource(every[::-1])], torch.tensor([[[0, 0, *shape[:2]]]] * 2)
    stored = read_patches(sources, where)
    assert stored.dtype == {np.bool_: torch.bool, np.uint8: torch.uint8, np.uint16: torch.uint16}[dtype]
    np.testing.assert_array_equal(stored[0, 0, 0].numpy(), every[:, :, 0])
    assert torch.equal(to_unit(stored), gather(sources, where))
    np.testing.assert_array_equal(to_unit(stored)[0, 0, 0].numpy(), unit_range(every)[:, :, 0])
    assert len(to_unit(stored)[0].unique()) == min(2 ** (8 * every.itemsize if dtype != np.bool_ else 1), every.size)


def test_every_value_becomes_on_any_device_what_it_is_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype, full in ((torch.uint8, 255), (torch.uint16, 65_535)):
        every = torch.arange(full + 1).to(dtype)
        expected = torch.from_numpy(np.divide(every.numpy(), np.float32(full)))
        assert torch.equal(to_unit(every), expected)
        with monkeypatch.context() as patched:
            patched.setattr("foveate.images.tensors.HOST", "no device")  # the way of an accelerator, on the CPU
            assert torch.equal(to_unit(every), expected)
    floats = torch.tensor([-0.5, 2.0])
    assert to_unit(floats) is floats


def test_images_of_several_types_or_of_floats_are_read_as_floats(tmp_path: Path) -> None:
    sources, where = batch(tmp_path), boxes(5, 6)
    for some in (sources, sources[3:4]):
        patches = read_patches(some, where[: len(some)])
        assert patches.dtype == torch.float32
        assert torch.equal(patches, gather(some, where[: len(some)]))
    assert read_patches(sources[:3], where[:3]).dtype == torch.uint8


def test_flattened_patches_are_channels_last_without_a_copy(tmp_path: Path) -> None:
    sources, where = batch(tmp_path), boxes(5, 6)
    stored = read_patches(sources[:3], where[:3])
    for patches in (gather(sources, where), stored, to_unit(stored)):
        flat = patches.flatten(0, 1)
        assert flat.is_contiguous(memory_format=torch.channels_last)
        assert flat.data_ptr() == patches.data_ptr()


def test_invalid_slots_are_zero_and_never_read() -> None:
    class Picky(ArraySource):
        def _read(self, box: Box, level: int) -> np.ndarray:
            assert box.top != 7
            return super()._read(box, level)

    where = torch.tensor([[[0, 0, 2, 3], [7, 0, 2, 3]], [[7, 0, 2, 3], [1, 1, 2, 3]]])
    valid = torch.tensor([[True, False], [False, True]])
    sources = [Picky(np.full((9, 9), 255, np.uint8)) for _ in range(2)]
    for patches in (gather(sources, where, valid), to_unit(read_patches(sources, where, valid))):
        assert torch.equal(patches.flatten(2).amin(2), valid.float())
        assert torch.equal(patches.flatten(2).amax(2), valid.float())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_bytes_become_the_same_floats_on_a_gpu() -> None:
    pixels = np.arange(65_536).astype(np.uint16).reshape(256, 256)
    for array in (pixels, pixels.astype(np.uint8)):
        where = torch.tensor([[[0, 0, 256, 256]]])
        stored = read_patches([ArraySource(array)], where, pin=True)
        assert stored.is_pinned()
        assert torch.equal(to_unit(stored.cuda(non_blocking=True)).cpu(), gather([ArraySource(array)], where))


@pytest.mark.parametrize("threads", [1, 4])
def test_a_broken_image_is_named(threads: int, tmp_path: Path) -> None:
    sources = batch(tmp_path)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:200])
    sources[1] = open_image(tmp_path / "1.png")  # its header is whole
    with pytest.raises(ImageError, match=r"1\.png: broken image, or "):
        gather(sources, torch.tensor([0, 0, 5, 6]).expand(5, 2, 4), threads=threads)


def test_what_does_not_fit_is_refused() -> None:
    grey, rgb = ArraySource(np.zeros((9, 9), np.uint8)), ArraySource(np.zeros((9, 9, 3), np.uint8), name="road.png")
    where = boxes(2, 1)
    with pytest.raises(
        ImageError, match=r"same number of channels, got 1 \(in memory\) and 3 \(road.png\): convert them to one kind"
    ):
        gather([grey, rgb], where)
    where[1, 0, 2] = 5
    with pytest.raises(ImageError, match="must all have one size, got 5×17 and 12×17: gather each size by itself"):
        gather([grey, grey], where)
    with pytest.raises(ImageError, match="given for every image, got 1 images and 2 rows"):
        gather([grey], where)


def test_a_grid_is_read_at_once_and_scattered_boxes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (30, 45, 2), dtype=np.uint8)
    padded = np.pad(pixels, ((9, 9), (9, 9), (0, 0)))
    asked: list[Box] = []
    read = ArraySource.read_known
    monkeypatch.setattr(
        ArraySource, "read_known", lambda self, boxes, *rest: asked.extend(boxes) or read(self, boxes, *rest)
    )
    grid = [(top, left, 6, 8) for top in range(-3, 33, 6) for left in range(-2, 46, 8)]
    scattered = [(0, 0, 6, 8), (20, 30, 6, 8), (0, 30, 6, 8)]
    for boxes, reads in ((grid, [Box(-3, -2, 36, 48)]), (scattered, [Box(*box) for box in scattered])):
        asked.clear()
        found = gather([ArraySource(pixels)], torch.tensor([boxes]))[0].permute(0, 2, 3, 1).numpy()
        assert asked == reads
        for patch, (top, left, height, width) in zip(found, boxes, strict=True):
            expected = padded[top + 9 : top + 9 + height, left + 9 : left + 9 + width] / np.float32(255)
            np.testing.assert_array_equal(patch, expected)
