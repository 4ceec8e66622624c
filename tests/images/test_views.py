"""How large a view is, and how views of several images become one tensor."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.config.settings import ViewSettings
from foveate.errors import ConfigError, ImageError
from foveate.images import ArraySource
from foveate.images.tensors import check_view, make_view, pad_views, view_size
from foveate.types import Size


def image(height: int, width: int, mpp: float | None = None) -> ArraySource:
    return ArraySource(np.broadcast_to(np.uint8(0), (height, width)), mpp)


@pytest.mark.parametrize(
    ("settings", "size", "mpp", "expected"),
    [
        (ViewSettings(longest_side=512), (3000, 2000), None, (512, 341)),
        (ViewSettings(longest_side=512), (300, 200), None, (300, 200)),
        (ViewSettings(longest_side=50), (61, 100), None, (31, 50)),  # 30.5 rounds up
        (ViewSettings(longest_side=10), (1, 5000), None, (1, 10)),
        (ViewSettings(scale=0.12), (1500, 1111), None, (180, 133)),
        (ViewSettings(scale=0.3), (960, 1280), None, (288, 384)),
        (ViewSettings(scale=0.29), (50, 150), None, (15, 44)),  # 14.5 and 43.5 in decimals, below them in binary
        (ViewSettings(scale=1.0), (7, 9), None, (7, 9)),
        (ViewSettings(mpp=8), (4000, 1000), 0.25, (125, 31)),
        (ViewSettings(mpp=0.1), (40, 10), 0.25, (40, 10)),
    ],
)
def test_sizes_by_hand(settings: ViewSettings, size: Size, mpp: float | None, expected: Size) -> None:
    assert view_size(settings, image(*size, mpp)) == expected


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 2000))
def test_longest_side_is_exact_and_proportions_are_kept(height: int, width: int, longest: int) -> None:
    rows, columns = view_size(ViewSettings(longest_side=longest), image(height, width))
    assert max(rows, columns) == min(longest, max(height, width))
    assert min(rows, columns) >= 1
    assert abs(rows - height * max(rows, columns) / max(height, width)) <= 1


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (ViewSettings(), ConfigError, "exactly one of longest_side, scale and mpp, got none: set one"),
        (ViewSettings(512, 0.5), ConfigError, "exactly one .* got longest_side 512 and scale 0.5: set one and leave"),
        (
            ViewSettings(longest_side=0),
            ConfigError,
            "model.view.longest_side must be at least 1 pixel, got 0: set e.g. 512",
        ),
        (
            ViewSettings(scale=1.5),
            ConfigError,
            "model.view.scale must be above 0 and at most 1, got 1.5: set e.g. 0.25",
        ),
        (ViewSettings(mpp=0.0), ConfigError, "model.view.mpp must be above 0 microns per pixel, got 0.0: set e.g. 8"),
        (
            ViewSettings(mpp=8.0),
            ImageError,
            "image in memory: a view of 8.0 microns per pixel needs the image's own, which are not known: "
            "give mpp in the manifest, or set model.view.longest_side or model.view.scale",
        ),
    ],
)
def test_impossible_views_are_refused(settings: ViewSettings, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        view_size(settings, image(30, 40))


@pytest.mark.parametrize(
    "settings",
    [
        ViewSettings(),
        ViewSettings(512, 0.5),
        ViewSettings(longest_side=0),
        ViewSettings(scale=1.5),
        ViewSettings(scale=float("nan")),
        ViewSettings(mpp=-1.0),
        ViewSettings(mpp=float("inf")),
    ],
)
def test_a_check_without_an_image_refuses_the_same(settings: ViewSettings) -> None:
    with pytest.raises(ConfigError) as early:
        check_view(settings)
    with pytest.raises(ConfigError) as late:
        view_size(settings, image(30, 40, 0.5))
    assert str(early.value) == str(late.value)
    assert str(early.value).startswith("model.view")


def test_views_that_only_some_images_allow_pass_the_check() -> None:
    check_view(ViewSettings(mpp=8.0))
    check_view(ViewSettings(scale=1.0))
    check_view(ViewSettings(longest_side=1))


def test_a_view_is_the_sources_view_with_channels_first() -> None:
    array = np.random.default_rng(1).integers(0, 256, (30, 44, 3), dtype=np.uint8)
    view = make_view(ArraySource(array), ViewSettings(longest_side=11))
    assert (view.dtype, view.shape) == (torch.float32, (3, 8, 11))
    np.testing.assert_array_equal(view.permute(1, 2, 0), ArraySource(array).view((8, 11)))


def test_views_are_padded_below_and_to_the_right() -> None:
    views = [torch.rand(3, 5, 9), torch.rand(3, 7, 4), torch.rand(3, 7, 9)]
    padded, mask, sizes = pad_views(views)
    assert padded.shape == (3, 3, 7, 9)
    assert padded.is_contiguous(memory_format=torch.channels_last)
    assert sizes == ((5, 9), (7, 4), (7, 9))
    for i, view in enumerate(views):
        height, width = sizes[i]
        assert torch.equal(padded[i, :, :height, :width], view)
        assert mask[i, :height, :width].all()
        assert mask[i].sum() == height * width
        assert padded[i].sum(dtype=torch.float64) == padded[i, :, :height, :width].sum(dtype=torch.float64)


def test_views_of_different_channels_do_not_mix() -> None:
    with pytest.raises(ImageError, match="same number of channels, got 1 and 3: convert the images to one kind"):
        pad_views([torch.rand(3, 5, 9), torch.rand(1, 5, 9)])
