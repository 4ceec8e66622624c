"""Patches are turned and enlarged about their centres, each for itself, the same wherever it is read."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from foveate.config.augment import AugmentSettings
from foveate.errors import ConfigError
from foveate.images import ArraySource, PatchChange
from foveate.images.augment.image import Augmented, draw_change
from foveate.images.augment.patches import change_patches
from foveate.models.patch_reading import PatchReading

SETTINGS = AugmentSettings(patch_turn=30.0, patch_scale=(0.8, 1.25))


class Known(PatchChange):
    """A change whose turn and factor are what they are at most."""

    def drawn(self, top: int, left: int) -> tuple[float, float]:  # noqa: ARG002
        return math.radians(self.turn), self.scale[1]


def patches_of(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def boxes_of(rows: int, draws: int, height: int, width: int) -> torch.Tensor:
    corners = torch.arange(rows * draws * 2).view(rows, draws, 2) * 7
    return torch.cat([corners, torch.tensor([height, width]).expand(rows, draws, 2)], 2)


@pytest.mark.parametrize(("height", "width", "turn"), [(6, 6, 90), (5, 5, -90), (5, 8, 180), (8, 5, 0)])
def test_quarter_turns_are_those_of_the_array(height: int, width: int, turn: int) -> None:
    patches = patches_of(2, 3, 2, height, width)
    found = change_patches(patches, [Known(float(turn), (1.0, 1.0), 0)] * 2, boxes_of(2, 3, height, width))
    torch.testing.assert_close(found, patches.rot90(turn // 90, (3, 4)), rtol=0, atol=1e-5)


def test_a_line_through_a_patch_that_is_not_square_turns_by_the_angle() -> None:
    rows, columns = torch.meshgrid(torch.arange(31.0) - 15, torch.arange(51.0) - 25, indexing="ij")
    slope = math.tan(math.radians(20))
    patch = torch.exp(-((rows + slope * columns) ** 2)).view(1, 1, 1, 31, 51)  # rises to the right by 20°
    found = change_patches(patch, [Known(-20.0, (1.0, 1.0), 0)], boxes_of(1, 1, 31, 51))[0, 0, 0]
    assert (found.argmax(0)[10:40] == 15).all()


def test_enlarging_shows_the_middle() -> None:
    ramp = torch.arange(9.0).expand(1, 1, 1, 7, 9)
    found = change_patches(ramp, [Known(0.0, (1.0, 2.0), 0)], boxes_of(1, 1, 7, 9))[0, 0, 0]
    torch.testing.assert_close(found, (4 + (torch.arange(9.0) - 4) / 2).expand(7, 9), rtol=0, atol=1e-4)


def test_the_nearest_pixel_stands_for_what_lies_outside() -> None:
    ramp = torch.arange(9.0).expand(1, 1, 1, 7, 9)
    found = change_patches(ramp, [Known(0.0, (0.5, 0.5), 0)], boxes_of(1, 1, 7, 9))[0, 0, 0]
    torch.testing.assert_close(found[3], (4 + (torch.arange(9.0) - 4) * 2).clamp(0, 8), rtol=0, atol=1e-4)


def test_a_patch_is_changed_alike_in_any_company() -> None:
    patches, boxes = patches_of(3, 4, 1, 9, 6), boxes_of(3, 4, 9, 6)
    changes = [PatchChange(40.0, (0.7, 1.4), 11), None, PatchChange(40.0, (0.7, 1.4), 12)]
    together = change_patches(patches, changes, boxes)
    assert torch.equal(together[1], patches[1])
    order = [3, 0, 2, 1]
    alone = change_patches(patches[2:, order], changes[2:], boxes[2:, order])
    torch.testing.assert_close(alone[0], together[2, order], rtol=0, atol=1e-6)
    assert (together[0] - patches[0]).abs().amax((1, 2, 3)).min() > 0.05


def test_turns_and_factors_are_uniform_and_independent() -> None:
    drawn = np.array([PatchChange(30.0, (0.8, 1.2), 5).drawn(row, column) for row in range(50) for column in range(40)])
    turns, factors = np.degrees(drawn[:, 0]), drawn[:, 1]
    assert -30 <= turns.min() < -29 < 29 < turns.max() <= 30
    assert 0.8 <= factors.min() < 0.805 < 1.195 < factors.max() <= 1.2
    # three standard errors of 2000 uniform numbers
    assert abs(turns.mean()) < 3 * 60 / math.sqrt(12 * 2000)
    assert abs(factors.mean() - 1) < 3 * 0.4 / math.sqrt(12 * 2000)
    assert abs(np.corrcoef(turns, factors)[0, 1]) < 3 / math.sqrt(2000)


def test_nothing_is_changed_that_was_not_asked_for() -> None:
    patches = patches_of(2, 3, 1, 5, 7)
    assert change_patches(patches, [None, None], boxes_of(2, 3, 5, 7)) is patches
    assert draw_change(AugmentSettings(translate=(3, 3)), (60, 80), 1).patches is None
    one, other = (draw_change(replace(SETTINGS, patch_turn=turn), (60, 80), 1) for turn in (30.0, 0.0))
    assert replace(one, patches=None) == replace(other, patches=None)


def test_models_read_changed_patches_of_an_augmented_image() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    boxes = torch.tensor([[[0, 0, 12, 9], [20, 30, 12, 9], [35, 45, 12, 9]]])
    valid = torch.tensor([[True, True, False]])
    change = draw_change(SETTINGS, (40, 50), 2)
    plain, changed = (
        PatchReading([one], boxes, valid, torch.device("cpu")).features(torch.nn.Flatten())
        for one in (ArraySource(pixels), Augmented(ArraySource(pixels), change))
    )
    expected = change_patches(plain.view(1, 3, 3, 12, 9), [change.patches], boxes).flatten(2)
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(plain, changed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patch_turn": 200.0}, "augment.patch_turn must be in [0, 180] degrees, got 200.0: set it to e.g. 15"),
        ({"patch_scale": (0.0, 1.0)}, "augment.patch_scale must be positive, got 0.0: set it to 0.9 1.1"),
        (
            {"patch_scale": (1.2, 0.9)},
            "augment.patch_scale must go from low to high, got 1.2 0.9: write the smaller number first",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AugmentSettings(**given)
    assert str(caught.value) == message
