"""Bands of any unit and range, seen by every network with mean 0 and deviation 1."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from foveate.config.settings import InputSettings
from foveate.errors import ConfigError
from foveate.images import ArraySource
from foveate.models import Model, load_model, make_batch, save_model
from foveate.networks.normalise import BandStatistics

Models = Callable[..., Model]
NAMES = ["attention-sampling", "uniform", "cnn", "deep-mil"]
MEAN, DEVIATION = (270.0, -3.0), (12.0, 0.5)


def scenes() -> tuple[list[ArraySource], list[ArraySource]]:
    """Two images, and the same in numbers that need no normalisation."""
    generator = np.random.default_rng(0)
    plain = [generator.normal(size=(*size, 2)).astype(np.float32) for size in ((66, 78), (44, 104))]
    wide = [(pixels * np.float32(DEVIATION) + np.float32(MEAN)).astype(np.float32) for pixels in plain]
    return [ArraySource(one, name="a.npy") for one in wide], [ArraySource(one, name="a.npy") for one in plain]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_sees_what_it_would_see_of_normalised_images(name: str, make_model: Models) -> None:
    wide, plain = scenes()
    bands = BandStatistics(MEAN, DEVIATION)
    model = make_model(name, input=InputSettings(normalise="bands"), extras={"bands": bands}).eval()
    other = make_model(name).eval()
    assert model.normalise is not None
    assert other.normalise is None
    if name == "deep-mil":  # its patches lie inside these images; what lies outside is 0 before normalisation
        output, expected = (one(make_batch(scene, one.view, [0, 1])) for one, scene in ((model, wide), (other, plain)))
        torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=1e-3)
        return
    batch, plain_batch = (make_batch(scene, model.view, [0, 1]) for scene in (wide, plain))
    seen = model.normalised(batch)
    torch.testing.assert_close(seen.views, plain_batch.views, rtol=0, atol=1e-4)
    assert seen.views[0, :, :, 20:].abs().sum() == 0  # beyond a narrower image: neither mean nor deviation
    assert seen.views[1, :, 11:].abs().sum() == 0
    assert other.normalised(plain_batch) is plain_batch
    output, expected = model(batch), other(plain_batch)
    if name == "cnn":
        torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=1e-3)
    if output.attention is not None:
        torch.testing.assert_close(output.attention, expected.attention, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["attention-sampling", "uniform", "deep-mil"])
def test_patches_are_normalised(name: str, make_model: Models) -> None:
    bands = BandStatistics(MEAN, DEVIATION)
    model = make_model(name, input=InputSettings(normalise="bands"), extras={"bands": bands}).eval()
    wide, plain = scenes()
    seen = []
    model.features.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    output = model(make_batch(wide[:1], model.view, [0]))
    inside = 0
    for patch, (top, left, height, width) in zip(seen[0], output.boxes[0].tolist(), strict=True):
        if min(top, left) >= 0 and top + height <= 66 and left + width <= 78:
            inside += 1
            pixels = plain[0]._array[top : top + height, left : left + width]
            torch.testing.assert_close(patch.permute(1, 2, 0), torch.from_numpy(pixels), rtol=0, atol=1e-3)
    assert inside > 0


def test_statistics_are_saved_and_never_trained(make_model: Models, tmp_path: Path) -> None:
    bands = BandStatistics(MEAN, DEVIATION)
    model = make_model(input=InputSettings(normalise="bands"), extras={"bands": bands})
    assert not any(key.startswith("normalise") for key, _ in model.named_parameters())
    again = load_model(save_model(model, tmp_path))
    assert again.normalise.mean.tolist() == list(MEAN)
    assert again.normalise.deviation.tolist() == list(DEVIATION)
    assert "whose mean and deviation per band it knows" in (tmp_path / "README.md").read_text()
    fresh = make_model(input=InputSettings(normalise="bands"))
    assert (fresh.normalise.mean.tolist(), fresh.normalise.deviation.tolist()) == ([0, 0], [1, 1])


def test_statistics_of_other_bands_are_refused(make_model: Models) -> None:
    with pytest.raises(ConfigError, match=r"^there are band statistics for 2 bands, but images of 3:"):
        make_model(
            channels=3, input=InputSettings(normalise="bands"), extras={"bands": BandStatistics(MEAN, DEVIATION)}
        )
