"""Microns per pixel: one rule of which resolutions are believed, whatever the file's dialect."""

import pytest

from foveate.images.scale import (
    DOCUMENT_DPI,
    described_mpp,
    mean_side,
    ome_zarr_mpp,
    openslide_mpp,
    projected_mpp,
    resolution_mpp,
)


@pytest.mark.parametrize("dpi", DOCUMENT_DPI)
@pytest.mark.parametrize("off", [1.0, 1.0019, 0.9981])
def test_resolutions_of_screens_and_printers_say_nothing(dpi: int, off: float) -> None:
    side = 25400 / dpi * off
    assert resolution_mpp(side, side) is None
    assert resolution_mpp(0.25, side) is None
    told = {"openslide.mpp-x": str(side), "openslide.mpp-y": str(side)}
    assert openslide_mpp(told | {"openslide.vendor": "generic-tiff"}) is None
    assert openslide_mpp(told | {"openslide.vendor": "aperio"}) == (side, side)


@pytest.mark.parametrize("side", [0.009, 101.0, 0.0, -1.0, float("nan"), float("inf")])
def test_resolutions_that_no_image_has_say_nothing(side: float) -> None:
    assert resolution_mpp(side, side) is None


def test_both_sides_are_kept_and_their_mean_is_geometric() -> None:
    assert resolution_mpp(0.2, 0.8) == (0.2, 0.8)
    assert openslide_mpp({"openslide.mpp-x": "0.2", "openslide.mpp-y": "0.8"}) == (0.8, 0.2)
    assert ome_zarr_mpp((2.0, 8.0), ("nanometer", "nanometer")) == pytest.approx((0.002, 0.008))
    assert projected_mpp((0.0, 2.0, 7.0, -8.0, 0.0, 9.0), 0.5) == pytest.approx((1e6, 4e6))
    assert mean_side((0.2, 0.8)) == pytest.approx(0.4)
    assert (mean_side((0.3, 0.3)), mean_side(None)) == (0.3, None)


def test_sides_that_differ_too_much_are_a_mistake_in_slides_only() -> None:
    assert openslide_mpp({"openslide.mpp-x": "0.2", "openslide.mpp-y": "2.1"}) is None
    assert ome_zarr_mpp((0.2, 20.0), ("micrometer", "micrometer")) == (0.2, 20.0)


def test_decimal_commas_are_read() -> None:
    assert described_mpp("Aperio Image Library|AppMag = 20|MPP = 0,500000") == (0.5, 0.5)
    assert openslide_mpp({"openslide.vendor": "aperio", "aperio.MPP": "0,5"}) == (0.5, 0.5)
    assert openslide_mpp({"openslide.mpp-x": "0,25", "openslide.mpp-y": "0,5"}) == (0.5, 0.25)
    sizes = 'PhysicalSizeX="0,25" PhysicalSizeY="0,5"'
    assert described_mpp(f"<OME><Image><Pixels {sizes}/></Image></OME>") == (0.5, 0.25)
