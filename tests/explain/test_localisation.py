"""Scores of many images: their means, their intervals, and what is refused."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from foveate.config.settings import DataSettings, ViewSettings
from foveate.datasets import megapixel_mnist
from foveate.datasets.types import Example
from foveate.errors import ConfigError, DataError
from foveate.explain import Deletion, MapScores, delete_patches, deletion_over, localisation_over, score_maps
from foveate.explain.localisation import SCORES, average_deletions, average_scores, mean_with_interval
from foveate.images import ArraySource, Source
from foveate.models import DrawOptions, Model
from foveate.types import Box

Make = Callable[..., Model]


def test_the_interval_is_that_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(0.4, 0.1, 400)
    told = mean_with_interval(values.tolist(), [None] * 400)
    assert told is not None
    assert told.mean == pytest.approx(values.mean(), abs=1e-12)
    half = 1.96 * values.std() / 20
    assert told.interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_images_of_a_group_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(0).normal(0.4, 0.1, 40), 10).tolist()
    alone, grouped = (
        mean_with_interval(values, [None] * 400),
        mean_with_interval(values, [f"p{i // 10}" for i in range(400)]),
    )
    assert alone is not None
    assert grouped is not None
    assert alone.mean == grouped.mean
    width = [one.interval[1] - one.interval[0] for one in (alone, grouped)]
    assert width[1] / width[0] == pytest.approx(10**0.5, rel=0.15)


def test_images_without_a_value_do_not_count() -> None:
    scores = [MapScores(4, 0.1, 0.5, True, None, None, None), MapScores(2, 0.3, 0.7, False, 0.25, None, None)]
    told = average_scores(scores, [None, None])
    assert (told.images, told.objects_per_image) == (2, 3.0)
    known = {name: (one.mean, one.images) for name, one in told.scores.items() if one is not None}
    assert known == {
        "chance": (pytest.approx(0.2), 2),
        "mass": (pytest.approx(0.6), 2),
        "pointing": (0.5, 2),
        "average_precision": (0.25, 1),
    }
    assert told.scores["draws_that_hit"] is told.scores["objects_hit"] is None
    assert tuple(told.scores) == SCORES


def test_a_mean_of_deletions_by_hand() -> None:
    told = average_deletions(
        [Deletion((0, 1, 3), (0.9, 0.5, 0.3), (0.9, 0.8, 0.7)), Deletion((0, 1, 3), (0.7, 0.5, 0.5), (0.7, 0.7, 0.6))],
        [None, None],
    )
    assert told.covered == (0, 1, 3)
    assert told.by_attention == pytest.approx((0.8, 0.5, 0.4))
    assert told.by_chance == pytest.approx((0.8, 0.75, 0.65))
    assert told.drop.mean == pytest.approx((0.35 + 0.15) / 2)
    assert told.drop.interval == pytest.approx((0.15, 0.35))


@pytest.mark.parametrize("name", ["attention-sampling", "deep-mil"])
def test_a_model_is_scored_image_by_image(name: str, pointing: Make) -> None:
    data = megapixel_mnist(DataSettings(canvas=(420, 510), train_images=5, test_images=1, noise=0))
    grouped = replace(data, examples=tuple(replace(one, group="all") for one in data.examples))
    model = pointing(name=name, view=ViewSettings(scale=0.25), patch=(50, 40), patches=10)
    told = localisation_over(model, data, range(5), DrawOptions(2, "iid", 1))
    each = [one for _, one in score_maps(model, data, range(5), 2, 1, "iid")]
    assert told == average_scores(each, [None] * 5)
    assert told.images == 5
    assert told.objects_per_image == 5.0
    assert told.scores["mass"] is not None
    assert (told.scores["objects_hit"] is None) == (name == "deep-mil")
    together = localisation_over(model, grouped, range(5), DrawOptions(2, "iid", 1))
    assert together.scores["mass"] is not None
    assert together.scores["mass"].interval == pytest.approx((together.scores["mass"].mean,) * 2, abs=1e-12)


@dataclass(frozen=True)
class Empty:
    """Images in which nothing is, but for one."""

    found: int = -1
    classes: tuple[str, ...] = ("cat", "dog", "owl")
    multi_label: bool = False
    examples: tuple[Example, ...] = (Example("a", 0), Example("b", 1), Example("c", 2))

    def open(self, index: int) -> Source:
        return ArraySource(np.random.default_rng(index).integers(0, 255, (117, 205, 1), dtype=np.uint8))

    def objects(self, index: int) -> tuple[tuple[str, Box], ...]:
        return (("cat", Box(10, 20, 30, 30)),) if index == self.found else ()


def test_images_without_objects_are_left_out(pointing: Make) -> None:
    told = localisation_over(pointing(), Empty(found=1), (0, 1, 2))
    assert (told.images, told.objects_per_image) == (1, 1.0)


def test_what_cannot_be_scored_is_refused_before_an_image_is_opened(
    pointing: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Empty, "open", lambda *_: pytest.fail("an image was opened"))
    with pytest.raises(DataError, match=r"^there is no object in any of 3 images, so nothing to find"):
        localisation_over(pointing(), Empty(), (0, 1, 2))
    with pytest.raises(ConfigError, match=r"^a cnn model has neither a map nor patches to score"):
        localisation_over(pointing(name="cnn"), Empty(found=0), (0, 1, 2))


def test_deletion_over_images(pointing: Make) -> None:
    model, data = pointing(patch=(56, 72)), Empty()
    told = deletion_over(model, data, (0, 2), DrawOptions(2, seed=3))
    each = [delete_patches(model, data.open(index), options=DrawOptions(2, seed=3)) for index in (0, 2)]
    assert told == average_deletions(each, [None, None])
    assert len(told.covered) == len(told.by_attention) == len(told.by_chance) == 6
