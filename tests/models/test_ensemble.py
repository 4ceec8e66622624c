"""An ensemble answers with the mean of its members, reads what they read, and is a model like any other."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from foveate.config.settings import AttentionSettings, InputSettings, ViewSettings
from foveate.errors import ConfigError, RunError
from foveate.explain.explanation import explain
from foveate.images import ArraySource
from foveate.models import Ensemble, Model, load_model, make_batch, save_model
from foveate.models.look import look_again
from foveate.models.probabilities import Decision
from foveate.models.types import DrawOptions

Models = Callable[..., Model]
Sources = Callable[..., ArraySource]


@pytest.fixture
def members(make_model: Models) -> list[Model]:
    """Four models of different kinds, the first of which has no map."""
    made = [make_model(name) for name in ("cnn", "attention-sampling", "uniform", "attention-sampling")]
    for seed, one in enumerate(made):
        generator = torch.Generator().manual_seed(seed)
        for parameter in one.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return made


@pytest.mark.parametrize("samples", [1, 3])
def test_its_answer_is_the_mean_of_what_each_says_alone(
    members: list[Model], make_source: Sources, samples: int
) -> None:
    image = make_source((160, 100), seed=1)
    both, options = Ensemble(members), DrawOptions(samples, seed=5)
    look = both.look(image, options)
    alone = [one.look(image, options).prediction for one in members]
    for name in both.classes:
        mean = np.mean([one.probabilities[name] for one in alone])
        assert look.prediction.probabilities[name] == pytest.approx(mean, abs=1e-6)
    assert look.prediction.patches == sum(one.patches for one in alone) == int(look.output.patches_read) > 0
    assert Counter(look.prediction.boxes) == Counter(box for one in alone for box in one.boxes)
    again = look_again(both, look, [DrawOptions(samples, seed=6)])
    assert again[0].probabilities == pytest.approx(both.predict(image, samples, seed=6).probabilities, abs=1e-6)


def test_members_keep_their_mode_and_their_temperature(members: list[Model], make_source: Sources) -> None:
    image = make_source((90, 210), seed=2)
    members[1].decision = Decision(temperature=3.0)
    both = Ensemble(members)
    assert both.predict(image, method="top").probabilities == pytest.approx(
        {
            name: np.mean([one.predict(image, method="top").probabilities[name] for one in members])
            for name in both.classes
        },
        abs=1e-6,
    )
    assert [one.method for one in members] == ["murthy", "murthy", "uniform", "murthy"]
    batch = make_batch([image, make_source((81, 127), seed=3)], both.view, [3, 4])
    together = both(batch)
    assert together.patches_read.tolist() == [12, 12]


def test_one_folder_holds_them_all(members: list[Model], make_source: Sources, tmp_path: Path) -> None:
    image = make_source((160, 100), seed=1)
    both = Ensemble(members[1:], ["a", "b", "c"])
    both.decision = Decision(temperature=0.5, abstain=0.99)
    both.models[1].decision = Decision(temperature=2.0)
    loaded = load_model(save_model(both, tmp_path / "one"))
    assert isinstance(loaded, Ensemble)
    assert (loaded.names, loaded.decision) == (("a", "b", "c"), both.decision)
    assert loaded.models[1].decision.temperature == 2
    assert loaded.predict(image).probabilities == both.predict(image).probabilities
    assert "an ensemble of 3 models" in (tmp_path / "one" / "README.md").read_text()
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    del config["members"][0]["name"]
    (tmp_path / "one" / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="does not describe a model"):
        load_model(tmp_path / "one")


def test_a_folder_of_folds_is_a_model_once_they_are_done(members: list[Model], tmp_path: Path) -> None:
    for number, one in enumerate(members, start=9):  # the tenth comes after the ninth
        save_model(one, tmp_path / f"fold-{number}" / "model")
    with pytest.raises(RunError, match=r"is a cross-validation that is not finished: go on with .* --resume --folds K"):
        load_model(tmp_path)
    (tmp_path / "folds.json").write_text("{}")
    loaded = load_model(tmp_path)
    assert isinstance(loaded, Ensemble)
    assert loaded.names == ("fold-9", "fold-10", "fold-11", "fold-12")


def test_an_explanation_says_whose_attention_it_shows(members: list[Model], make_source: Sources) -> None:
    both = Ensemble(members, ["fold-1", "fold-2", "fold-3", "fold-4"])
    assert both.attends
    look = both.look(make_source((160, 100), seed=1))
    seen, alone = explain(both, look), explain(members[1], members[1].look(look.opened))
    assert seen.note.startswith("The answer is the mean of 4 models; the map, the patches and what they add are those ")
    assert "fold-2" in seen.note
    assert np.array_equal(seen.attention, alone.attention)  # type: ignore[arg-type]
    assert [patch.box for patch in seen.patches] == [patch.box for patch in alone.patches]
    assert seen.prediction == look.prediction
    answer = seen.prediction.probabilities
    assert seen.classes[seen.shown_class] == max(answer, key=answer.__getitem__) == seen.prediction.predicted


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"view": ViewSettings(scale=0.5)}, "model.view"),
        ({"input": InputSettings(normalise="image")}, "model.input"),
    ],
)
def test_members_that_do_not_see_the_same_are_refused(
    make_model: Models, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"must not differ in {said}, but member-2 has"):
        Ensemble([make_model("uniform"), make_model("cnn", **changes)])
    with pytest.raises(ConfigError, match="at least one member"):
        Ensemble([])
    assert Ensemble([make_model("uniform"), make_model("uniform", attention=AttentionSettings(stride=4))]).patches == 8
