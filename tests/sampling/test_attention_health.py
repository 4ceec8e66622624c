"""What is said of an attention map: figures that can be counted by hand, and findings at their thresholds."""

import math

import pytest
import torch

from foveate.sampling import AttentionHealth, common_warnings, diagnose


def everywhere(rows: int, columns: int) -> torch.Tensor:
    return torch.ones(1, rows, columns, dtype=torch.bool)


def test_figures_of_a_map_that_can_be_counted_by_hand() -> None:
    attention = torch.zeros(1, 3, 4)
    attention[0, 1, 1], attention[0, 0, 3] = 0.75, 0.25
    (health,) = diagnose(attention, everywhere(3, 4), patches=2)
    assert health.cells == 12
    assert health.entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), abs=1e-12)
    assert health.effective_cells == pytest.approx(math.exp(health.entropy))
    assert health.border_mass == pytest.approx(0.25)
    assert health.border_cells == pytest.approx(10 / 12)


def test_a_masked_cell_makes_a_border_and_counts_for_nothing() -> None:
    mask = everywhere(5, 6)
    mask[0, 2, 2] = False
    attention = torch.zeros(1, 5, 6)
    attention[0, 2, 3] = 0.6  # beside the hole
    attention[0, 3, 4] = 0.4
    attention[0, 2, 2] = 0.5  # masked, whatever it says
    (health,) = diagnose(attention, mask)
    assert health.cells == 29
    assert health.border_mass == pytest.approx(0.6)
    assert health.border_cells == pytest.approx((18 + 4) / 29)
    assert health.entropy == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4), abs=1e-7)


def test_padding_of_a_batch_changes_nothing(generator: torch.Generator) -> None:
    attention = torch.rand(1, 4, 5, generator=generator)
    attention /= attention.sum()
    wide, allowed = torch.zeros(1, 7, 9), torch.zeros(1, 7, 9, dtype=torch.bool)
    wide[0, :4, :5], allowed[0, :4, :5] = attention[0], True
    (alone,), (padded,) = diagnose(attention, everywhere(4, 5)), diagnose(wide, allowed)
    assert alone == padded


def peak(weight: float, rows: int = 20, columns: int = 30, at: tuple[int, int] = (9, 11)) -> torch.Tensor:
    attention = torch.full((1, rows, columns), (1 - weight) / (rows * columns - 1))
    attention[0, at[0], at[1]] = weight
    return attention


@pytest.mark.parametrize(
    ("attention", "patches", "findings"),
    [
        (peak(1.0), 10, ("collapsed",)),
        (peak(1.0), 0, ("collapsed",)),
        (peak(0.3), 10, ()),
        (peak(1 / 600), 10, ("uniform",)),
        (peak(1.0, at=(0, 4)), 10, ("collapsed", "border")),
        (peak(0.6, at=(19, 29)), 10, ("border",)),
        (peak(0.4, at=(19, 29)), 10, ()),
        (torch.tensor([[[1.0, 0.0]]]), 1, ()),
    ],
)
def test_findings(attention: torch.Tensor, patches: int, findings: tuple[str, ...]) -> None:
    mask = torch.ones(attention.shape, dtype=torch.bool)
    (health,) = diagnose(attention, mask, patches)
    assert health.findings == findings
    assert len(health.warnings()) == len(findings)


def test_a_warning_is_a_line_with_figures_and_a_remedy() -> None:
    health = AttentionHealth(cells=3600, entropy=math.log(3500), border_mass=0.9, border_cells=0.066, patches=10)
    border, uniform = health.warnings().values()
    assert border.startswith("attention sticks to the border: 90 % of it on the 7 % of cells there: look for frames")
    assert uniform.startswith("attention is as good as uniform, it is spread over 3500.0 of 3,600 cells: train longer")
    assert all("\n" not in line for line in (border, uniform))


def test_what_is_wrong_with_more_than_half_of_the_maps_is_said_once() -> None:
    good = AttentionHealth(cells=400, entropy=math.log(40), border_mass=0.1, border_cells=0.2, patches=10)
    bad = [AttentionHealth(400, math.log(cells), 0.1, 0.2, 10) for cells in (1.5, 1.2, 1.3)]
    assert common_warnings([good, *bad[:1]]) == {}
    told = common_warnings([good, good, *bad])
    assert list(told) == ["collapsed"]
    assert told["collapsed"].startswith("in 3 of 5 images attention has collapsed onto 1.3 of 400 cells, fewer than")
    assert common_warnings([]) == {}


def test_remedies_name_settings_that_exist() -> None:
    import re

    from foveate.config.serial import to_plain
    from foveate.config.training import RunSettings
    from foveate.sampling.attention_health import REMEDIES

    plain = to_plain(RunSettings())
    for remedy in REMEDIES.values():
        for name in re.findall(r"(?:model|training|augment)\.[a-z.]+[a-z]", remedy):
            value = plain
            for key in name.split("."):
                value = value[key]
