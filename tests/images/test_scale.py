"""Microns per pixel: one rule of which resolutions are believed, whatever the file's dialect."""

import pytest

from foveate.images.scale import DOCUMENT_DPI, ome_zarr_mpp, openslide_mpp, projected_mpp, resolution_mpp


@pytest.mark.parametrize("dpi", DOCUMENT_DPI)
@pytest.mark.parametrize("off", [1.0, 1.0019, 0.9981])
def test_resolutions_of_screens_and_printers_say_nothing(dpi: int, off: float) -> None:
    side = 25400 / dpi * off
    assert resolution_mpp(side, side) is None
    assert resolution_mpp(0.25, side) is None
    told = {"openslide.mpp-x": str(side), "openslide.mpp-y": str(side)}
    assert openslide_mpp(told | {"openslide.vendor": "generic-tiff"}) is None
    assert openslide_mpp(told | {"openslide.vendor": "aperio"}) == side


@pytest.mark.parametrize("side", [0.009, 101.0, 0.0, -1.0, float("nan"), float("inf")])
def test_resolutions_that_no_image_has_say_nothing(side: float) -> None:
    assert resolution_mpp(side, side) is None


def test_the_mean_of_both_sides_is_geometric() -> None:
    assert resolution_mpp(0.2, 0.8) == pytest.approx(0.4)
    assert openslide_mpp({"openslide.mpp-x": "0.2", "openslide.mpp-y": "0.8"}) == pytest.approx(0.4)
    assert ome_zarr_mpp((2.0, 8.0), ("nanometer", "nanometer")) == pytest.approx(0.004)
    assert projected_mpp((0.0, 2.0, 7.0, -8.0, 0.0, 9.0), 0.5) == pytest.approx(2e6)
    assert resolution_mpp(0.3, 0.3) == 0.3


def test_sides_that_differ_too_much_are_a_mistake_in_slides_only() -> None:
    assert openslide_mpp({"openslide.mpp-x": "0.2", "openslide.mpp-y": "2.1"}) is None
    assert ome_zarr_mpp((0.2, 20.0), ("micrometer", "micrometer")) == pytest.approx(2.0)
