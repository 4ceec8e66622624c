# ruff: noqa: ARG005  a table of calls
"""The classifier with images and labels in every form, and all that scikit-learn does with one."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score

from foveate import Classifier, load_model, preset
from foveate.datasets import read_manifest
from foveate.datasets.labels import Labels
from foveate.datasets.listed import listed
from foveate.errors import FoveateError, ImageError, RunError
from foveate.images import ArraySource
from foveate.models.types import Prediction

Make = Callable[..., Classifier]
Pixels = list[np.ndarray]


@pytest.fixture(scope="module")
def files(squares: Pixels, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("squares")
    paths = [str(folder / f"{number:02d}.png") for number in range(len(squares))]
    for path, pixels in zip(paths, squares, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def test_an_image_is_the_same_in_every_form(fitted: Classifier, squares: Pixels, files: list[str]) -> None:
    wanted = fitted.predict_proba(squares[:3])
    assert wanted.shape == (3, 2)
    np.testing.assert_allclose(wanted.sum(1), 1)
    for form in (
        [Image.fromarray(one) for one in squares[:3]],
        [torch.from_numpy(one).movedim(-1, 0) for one in squares[:3]],
        [ArraySource(one) for one in squares[:3]],
        (one for one in squares[:3]),
    ):
        np.testing.assert_array_equal(fitted.predict_proba(form), wanted)
    same = np.stack([squares[0][:52], squares[3][:52]])
    stacked = fitted.predict_proba(same)
    np.testing.assert_array_equal(fitted.predict_proba(torch.from_numpy(same).movedim(-1, 1)), stacked)
    np.testing.assert_array_equal(fitted.predict_proba(list(same)), stacked)


def test_files_are_the_same_as_list_array_series_table_and_folder(
    fitted: Classifier, files: list[str], tmp_path: Path
) -> None:
    wanted = fitted.predict(files)
    for form in (
        [Path(file) for file in files],
        np.array(files),
        pd.Series(files),
        pd.DataFrame({"path": files, "seen": 1}),
        Path(files[0]).parent,
    ):
        assert [example.id for example in listed(form).examples] == files
    assert fitted.predict(pd.Series(files)).tolist() == wanted.tolist()
    manifest = tmp_path / "images.csv"
    manifest.write_text("path\n" + "\n".join(files))
    assert [example.id for example in listed(manifest).examples] == files
    assert fitted.predict(files[2]).tolist() == [wanted[2]]


def test_neither_order_nor_company_changes_an_answer(fitted: Classifier, squares: Pixels) -> None:
    wanted = fitted.predict_proba(squares)
    np.testing.assert_array_equal(fitted.predict_proba(squares[::-1]), wanted[::-1])
    np.testing.assert_array_equal(fitted.predict_proba(squares[4:5]), wanted[4:5])


def test_it_learns_and_scores_and_says_how_sure_it_is(tiny: Make, squares: Pixels, colours: list[str]) -> None:
    steps = {"training.max_steps": 30, "training.learning_rate": 0.02, "training.validate_every": 5}
    more = tiny(**{"model.name": "cnn", "model.patches": 3, **steps}).fit(squares, colours, validation=0.25)
    assert more.score(squares, colours) > 0.8
    assert more.result_.verdict is not None
    judged = more.evaluate(squares, colours, groups=[number // 4 for number in range(8)])
    assert judged.error == pytest.approx(1 - more.score(squares, colours))
    assert judged.interval[0] <= judged.error <= judged.interval[1]
    assert len(more.history_) == len(more.history_["validation_error"]) == 15
    assert more.history_.chance is not None


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([3, 10] * 4, [3, 10]),
        (np.array([10, 3] * 4), [3, 10]),
        ([True, False] * 4, [False, True]),
        ([1.0, 2.0] * 4, [1.0, 2.0]),
        (pd.Series(["b", "a"] * 4), ["a", "b"]),
        (torch.tensor([1, 0] * 4), [0, 1]),
        (np.array([["b"], ["a"]] * 4), ["a", "b"]),
    ],
    ids=["integers", "array", "truth", "floats", "series", "tensor", "column"],
)
def test_labels_of_every_form_are_encoded_in_sorted_order(labels: Any, classes: list[Any]) -> None:
    found = Labels.of(labels)
    assert found.classes.tolist() == classes
    assert found.names == tuple(map(str, classes))
    assert {type(one) for one in found.classes.tolist()} == {type(one) for one in classes}
    given = np.ravel(labels).tolist()
    assert found.classes[list(found.indices)].tolist() == given


def test_labels_come_back_as_they_were_given(tiny: Make, squares: Pixels) -> None:
    made = tiny(**{"training.max_steps": 1}).fit(squares, [10, 3] * 4)
    assert made.classes_.tolist() == [3, 10]
    assert made.model_.classes == ("3", "10")
    answers = made.predict(squares)
    assert answers.dtype == made.classes_.dtype == np.array([1]).dtype
    assert set(answers.tolist()) <= {3, 10}
    assert made.score(squares, answers) == 1


def test_several_labels_come_back_as_a_table_or_as_names(tiny: Make, squares: Pixels, tmp_path: Path) -> None:
    table = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 0]] * 2)
    made = tiny(**{"training.max_steps": 1}).fit(squares, table)
    answers = made.predict(squares)
    assert answers.shape == (8, 3)
    assert set(np.unique(answers)) <= {0, 1}
    np.testing.assert_array_equal(answers, made.predict_proba(squares) >= 0.5)
    assert made.score(squares, answers) == 1
    names = [[name for name, has in zip("abc", row, strict=True) if has] for row in table]
    spelt = tiny(**{"training.max_steps": 1}).fit(squares, names)
    assert spelt.classes_.tolist() == ["a", "b", "c"]
    found = spelt.predict(squares)
    assert found == [tuple(np.array(list("abc"))[row == 1]) for row in answers]  # the same labels, the same model
    assert spelt.score(squares, found) == 1
    assert spelt.evaluate(squares, names).several
    again = Classifier.load(spelt.save(tmp_path / "kept"))
    assert again.predict(squares) == found


def test_tables_folders_and_manifests_bring_their_labels(
    tiny: Make, files: list[str], colours: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
    table = pd.DataFrame({"path": files, "label": colours, "split": splits, "group": range(8)})
    made = tiny(verbose=True).fit(table)
    assert "2 images of the split test are left out" in capsys.readouterr().out
    assert made.classes_.tolist() == ["green", "red"]
    assert 0 <= made.score(table) <= 1
    table.to_csv(tmp_path / "images.csv", index=False)
    listed = tiny().fit(tmp_path / "images.csv")
    np.testing.assert_array_equal(listed.predict_proba(files), made.predict_proba(files))
    for file, colour in zip(files, colours, strict=True):
        (tmp_path / "sorted" / colour).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sorted" / colour / Path(file).name).write_bytes(Path(file).read_bytes())
    assert tiny().fit(str(tmp_path / "sorted")).score(tmp_path / "sorted") >= 0.25
    dataset = read_manifest(tmp_path / "images.csv")
    np.testing.assert_array_equal(tiny().fit(dataset).predict_proba(files), made.predict_proba(files))


def test_groups_are_not_divided_and_validation_may_be_others(
    tiny: Make, squares: Pixels, colours: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import foveate.classifier as home

    seen = []
    train = home.train
    monkeypatch.setattr(home, "train", lambda *given, **more: (seen.append(more["dataset"]), train(*given, **more))[1])
    groups = [number // 2 for number in range(8)]
    tiny(**{"training.max_steps": 1}).fit(squares, colours, groups=groups, validation=0.3)
    splits = {(one.group, one.split) for one in seen[0].examples}
    assert len(splits) == 4
    assert {split for _, split in splits} == {"train", "validation"}
    tiny(**{"training.max_steps": 1}).fit(squares[:4], colours[:4], validation=(squares[4:], colours[4:]))
    assert [one.split for one in seen[1].examples] == ["train"] * 4 + ["validation"] * 4
    assert len({one.id for one in seen[1].examples}) == 8


def test_scikit_learn_clones_searches_and_cross_validates(tiny: Make, files: list[str], colours: list[str]) -> None:
    one = tiny(seed=3, **{"training.max_steps": 1})
    assert is_classifier(one)
    twin = clone(one)
    assert twin.get_params() == one.get_params()
    assert twin.get_params()["model.patches"] == 3
    assert "model.patches=3" in repr(twin)
    scores = cross_val_score(one, files, colours, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    groups = [number // 2 for number in range(8)]
    assert np.isfinite(cross_val_score(one, files, colours, cv=GroupKFold(2), groups=groups)).all()
    search = GridSearchCV(one, {"model.patches": [2]}, cv=2).fit(files, colours)
    assert search.best_params_ == {"model.patches": 2}
    assert search.best_estimator_.model_.patches == 2


def test_it_is_kept_pickled_and_loaded_with_all_it_says(
    fitted: Classifier, tiny: Make, squares: Pixels, tmp_path: Path
) -> None:
    wanted = fitted.predict_proba(squares)
    folder = fitted.save(tmp_path / "kept")
    for again in (Classifier.load(folder), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(again.predict_proba(squares), wanted)
        assert again.predict(squares).tolist() == fitted.predict(squares).tolist()
        assert again.history_.epochs == fitted.history_.epochs
        assert again.settings_to_use() == fitted.settings_to_use()
    assert load_model(folder).predict(squares[0]).predicted in ("red", "green")
    (folder / "classifier.json").write_text("{")
    with pytest.raises(RunError, match=r"classifier\.json is damaged: save the classifier again"):
        Classifier.load(folder)


def test_a_run_is_kept_gone_on_with_and_loaded(tiny: Make, squares: Pixels, colours: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    one = tiny(out=run).fit(squares, colours)
    with pytest.raises(RunError, match=r"run is not empty: Classifier\(resume=True\) goes on with a run"):
        one.fit(squares, colours)
    more = tiny(out=run, resume=True, **{"training.max_steps": 4}).fit(squares, colours)
    assert more.result_.steps == 4
    loaded = Classifier.load(run)
    np.testing.assert_array_equal(loaded.predict_proba(squares), more.predict_proba(squares))
    assert loaded.history_["epoch"] == more.history_["epoch"]
    assert loaded.settings_to_use().model == more.settings_to_use().model


def test_the_seed_decides_and_nothing_global(tiny: Make, squares: Pixels, colours: list[str]) -> None:
    torch.manual_seed(0)
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]  # noqa: NPY002
    first = tiny(seed=5).fit(squares, colours).predict_proba(squares)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numbers  # type: ignore[index, union-attr]  # noqa: NPY002
    torch.manual_seed(1)
    np.testing.assert_array_equal(tiny(seed=5).fit(squares, colours).predict_proba(squares), first)
    assert not np.array_equal(tiny(seed=6).fit(squares, colours).predict_proba(squares), first)


def test_settings_come_from_preset_object_mapping_and_keys() -> None:
    assert Classifier("photographs").settings_to_use().augment.patch_shift == 12
    given = preset("manifest", **{"training.epochs": 7})
    assert Classifier(settings=given).settings_to_use().training.epochs == 7
    mixed = Classifier("smoke", settings={"training": {"epochs": 5}, "model.patches": 2}, **{"training.epochs": 9})
    assert (mixed.settings_to_use().training.epochs, mixed.settings_to_use().model.patches) == (9, 2)
    assert mixed.settings_to_use().data.source == "manifest"
    mixed.set_params(seed=4, **{"training.batch": np.int64(6)})
    assert (mixed.settings_to_use().seed, mixed.settings_to_use().training.batch) == (4, 6)


def test_it_says_where_it_looked(fitted: Classifier, squares: Pixels, files: list[str], tmp_path: Path) -> None:
    first, second = fitted.explain(files[:2], out=tmp_path / "pages")
    assert first.attention is not None
    assert len(first.patches) == 3
    assert first.path == files[0]
    assert (tmp_path / "pages" / "index.html").is_file()
    assert (tmp_path / "pages" / "00" / "explanation.html").is_file()
    found = fitted.predictions(files[:2])
    assert [one.boxes for one in found] == [first.prediction.boxes, second.prediction.boxes]
    assert all(isinstance(one, Prediction) for one in found)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda c, x, y: c.fit(x, y[:-1]), ValueError, "8 images and 7 labels: give one label an image"),
        (lambda c, x, y: c.fit(x, [*y[:-1], None]), ValueError, "the label of image 7 is None: give it one"),
        (lambda c, x, y: c.fit(x, ["red"] * 8), ValueError, "every image is of the class red: a classifier needs two"),
        (lambda c, x, y: c.fit(x), ValueError, "requires y to be passed, but the target y is None"),
        (lambda c, x, y: c.fit([], []), ValueError, "there is no image: give a list of paths"),
        (lambda c, x, y: c.fit(3, y), TypeError, "images are 3, a number: give a list of paths"),
        (lambda c, x, y: c.fit([*x[:-1], 3], y), TypeError, "image 7 is 3, a number: give a list of paths"),
        (lambda c, x, y: c.fit(x[0], y), TypeError, r"images of shape \(52, 90, 3\) are one image"),
        (lambda c, x, y: c.fit(np.eye(4), y[:4]), TypeError, "a table of numbers, or one grey image"),
        (lambda c, x, y: c.fit(x, [1, "a"] * 4), ValueError, "labels are integers and text: give all of one kind"),
        (lambda c, x, y: c.fit(x, np.linspace(0, 1, 8)), ValueError, "labels are classes, text or integers"),
        (lambda c, x, y: c.fit(x, y, groups=[1]), ValueError, "8 images and 1 groups"),
        (lambda c, x, y: c.fit(x, y, groups="a"), TypeError, "expected a list with one entry an image, got 'a'"),
        (lambda c, x, y: c.fit(x, y, validation=1.5), ValueError, "validation share must be at least 0 and below 1"),
        (lambda c, x, y: c.fit(x, y, validation=(x, ["blue"] * 8)), ValueError, "'blue', which is none of the classes"),
        (lambda c, x, y: c.fit(pd.DataFrame({"file": x}), y), ValueError, "the table has no column 'path'"),
        (lambda c, x, y: c.fit([one.astype(np.int64) for one in x], y), TypeError, "pixels must be bool, uint8"),
        (lambda c, x, y: c.set_params(**{"training.epochz": 1}).fit(x, y), ValueError, "did you mean training.epochs"),
        (lambda c, x, y: c.set_params(preset="photos").fit(x, y), ValueError, 'unknown preset "photos": choose one of'),
        (lambda c, x, y: c.set_params(settings=3).fit(x, y), TypeError, "settings are RunSettings or a mapping"),
        (lambda c, x, y: Classifier(presett="a"), TypeError, "Classifier takes no presett: did you mean preset"),
        (lambda c, x, y: c.predict(x), ValueError, "this Classifier is not fitted: call fit with images and labels"),
    ],
)  # fmt: skip
def test_wrong_arguments_get_one_line(
    tiny: Make, squares: Pixels, colours: list[str], call: Callable[..., Any], kind: type, message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        call(tiny(), squares, colours)
    assert isinstance(caught.value, FoveateError)
    assert "\n" not in str(caught.value)


def test_an_unknown_class_and_a_broken_file_are_named(fitted: Classifier, files: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the label of .*00.png is 'blue', which is none of the classes green, red"):
        fitted.score(files[:1], ["blue"])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(ImageError, match=r"broken.png: .*\(2 of 3 images cannot be read\)"):
        fitted.predict([files[0], broken, tmp_path / "absent.png"])
