import pickle

import pytest
import torch

from foveate.errors import ConfigError
from foveate.networks import BandNormalisation, BandStatistics

KELVIN = BandStatistics((0.25, 280.0, 7.0), (0.5, 20.0, 0.0))


def test_pixels_of_those_statistics_become_standard() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = (
        torch.rand(3, 2, 40, 30, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 900.0])[:, None, None]
    )
    mean, deviation = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3), correction=0)
    layer = BandNormalisation(2, BandStatistics(tuple(mean.tolist()), tuple(deviation.tolist()))).double()
    layer.mean, layer.deviation = mean, deviation
    normal = layer(pixels)
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(normal.std((0, 2, 3), correction=0), torch.ones(2).double(), rtol=1e-12, atol=0)


def test_each_band_has_its_own_constants_and_a_constant_band_becomes_nothing() -> None:
    pixels = torch.tensor([0.75, 260.0, 7.0]).reshape(1, 3, 1, 1).expand(2, 3, 2, 5)
    expected = torch.tensor([1.0, -1.0, 0.0]).reshape(1, 3, 1, 1).expand(2, 3, 2, 5)
    torch.testing.assert_close(BandNormalisation(3, KELVIN)(pixels), expected, rtol=0, atol=0)


def test_without_statistics_nothing_changes_until_a_saved_models_are_loaded() -> None:
    pixels = torch.rand(1, 3, 4, 6)
    layer = BandNormalisation(3)
    assert torch.equal(layer(pixels), pixels)
    saved = BandNormalisation(3, KELVIN)
    layer.load_state_dict(saved.state_dict())
    assert torch.equal(layer(pixels), saved(pixels))
    assert layer.statistics == BandStatistics(KELVIN.mean, (0.5, 20.0, 1.0))
    assert not list(layer.parameters())
    assert pickle.loads(pickle.dumps(KELVIN)) == KELVIN


def test_half_precision_does_not_overflow() -> None:
    pixels = torch.full((1, 1, 2, 3), 60_000.0).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        normal = BandNormalisation(1, BandStatistics((-60_000.0,), (40_000.0,)))(pixels)
    assert normal.dtype == torch.float32
    torch.testing.assert_close(normal, torch.full((1, 1, 2, 3), 3.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("mean", "deviation", "message"),
    [
        (
            (0.0, 1.0),
            (1.0,),
            "band statistics need one mean and one deviation per band, got 2 means and 1 deviations: "
            "give as many of one as of the other",
        ),
        (
            (0.0, float("nan")),
            (1.0, 1.0),
            "band statistics must be finite and deviations not negative, got means [0.0, nan] and deviations "
            "[1.0, 1.0]: look for nan and infinite pixels in the training images",
        ),
        (
            (0.0,),
            (-1.0,),
            "band statistics must be finite and deviations not negative, got means [0.0] and deviations [-1.0]: "
            "look for nan and infinite pixels in the training images",
        ),
    ],
)
def test_numbers_that_are_no_statistics(mean: tuple[float, ...], deviation: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BandStatistics(mean, deviation)
    assert str(caught.value) == message


def test_statistics_of_other_bands() -> None:
    with pytest.raises(ConfigError) as caught:
        BandNormalisation(4, KELVIN)
    assert str(caught.value) == (
        "there are band statistics for 3 bands, but images of 4: measure them on images of the same bands"
    )
