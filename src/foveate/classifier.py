"""Classifier of large images with the interface of scikit-learn: fit, predict, score, and where it looked."""

import contextlib
import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError

from foveate.atomic import replace_file
from foveate.config.files import changed, changed_keys, combined
from foveate.config.serial import from_plain, to_plain
from foveate.config.settings import DataSettings
from foveate.config.training import RunSettings
from foveate.datasets.labels import Labels
from foveate.datasets.listed import labelled_images, listed
from foveate.datasets.splits import fill_splits
from foveate.devices import choose_device
from foveate.errors import ArgumentTypeError, ImageError, RunError
from foveate.evaluation.evaluate import Evaluation, evaluate
from foveate.explain import Explainer, Explanation, explain
from foveate.models import Model, load_model, save_model
from foveate.models.types import DrawOptions, Prediction
from foveate.notebook import History
from foveate.predict.predict import Failure, Row, predict_paths
from foveate.training.loop import train
from foveate.training.progress import SilentProgress
from foveate.training.run_folder import read_metrics, run_settings

SECTIONS = ("data", "model", "augment", "training")
"""Sections of the settings, with which dotted keys begin."""

FILE = "classifier.json"
"""What a saved classifier knows besides its model."""


class NotFittedClassifierError(RunError, NotFittedError):  # type: ignore[misc]
    """Error of a classifier that was not fitted before it was asked something."""


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Classifier of images of any size, trained on labels of whole images, as scikit-learn has classifiers.

    Images are paths, addresses, arrays (H, W[, C]), Pillow images, tensors (C, H, W) or opened images, in a list, a 4-D
    array or tensor, or a table (a DataFrame) with a column `path`; or all of a folder or a manifest, by its path.

    Arguments:
        preset: settings to start from, one of `foveate.config.files.PRESETS`; None starts from the defaults.
        settings: `RunSettings` in the place of a preset, or a mapping of dotted keys or sections over it.
        out: folder of the run, kept; a temporary one, of which model and history are kept in memory, if None.
        resume: whether to go on with a run that is in `out`.
        seed: of everything random; that of the settings (0) if None.
        samples: independent draws per image in prediction, whose probabilities are averaged.
        method: how patches are drawn in prediction; None as in training, "top" for the most attended.
        device: where to predict: "auto", "cpu", "cuda" …
        verbose: whether training tells how it goes.
        changes: settings by their dotted keys, `**{"training.epochs": 5}`; they are parameters as well.

    Attributes:
        classes_: the classes, sorted, as they were given.
        model_: the `Model`.
        history_: what was measured epoch by epoch; draws its curves in a notebook.
        result_: what training says of itself; absent of one that was loaded.

    Raises:
        ArgumentTypeError: a keyword is no parameter and no dotted key.

    Example:
        >>> classifier = Classifier("photographs", **{"training.epochs": 5})
        >>> classifier
        Classifier(preset='photographs', training.epochs=5)
        >>> classifier.set_params(seed=1).settings_to_use().training.epochs
        5
    """

    def __init__(
        self,
        preset: str | None = "manifest",
        *,
        settings: RunSettings | Mapping[str, Any] | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        seed: int | None = None,
        samples: int = 1,
        method: str | None = None,
        device: str = "auto",
        verbose: bool = True,
        **changes: Any,
    ) -> None:
        self.preset, self.settings = preset, settings
        self.out, self.resume, self.verbose = out, resume, verbose
        self.seed, self.samples, self.method, self.device = seed, samples, method, device
        for key, value in changes.items():
            if key.split(".")[0] not in SECTIONS:
                near = get_close_matches(key, self._get_param_names(), n=1)
                hint = f"did you mean {near[0]}?" if near else 'settings have dotted keys, e.g. "training.epochs"'
                raise ArgumentTypeError(f"Classifier takes no {key}: {hint}")
            setattr(self, key, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name, settings by their dotted keys among them."""
        named: dict[str, Any] = super().get_params(deep=deep)
        return named | {key: value for key, value in vars(self).items() if key.split(".")[0] in SECTIONS}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; settings by their dotted keys.

        Raises:
            ValueError: a name is no parameter and no dotted key.
        """
        dotted = {key for key in params if key.split(".")[0] in SECTIONS}
        super().set_params(**{key: value for key, value in params.items() if key not in dotted})
        for key in dotted:
            setattr(self, key, params[key])
        return self

    def __sklearn_tags__(self) -> Any:
        """Tags: what scikit-learn should know, that images are no table of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        return tags

    def settings_to_use(self) -> RunSettings:
        """Settings of a run, with everything that the parameters say.

        Raises:
            ConfigError: an unknown key, with the one that was meant; a value of the wrong type; or an unknown preset.
        """
        own = {} if self.seed is None else {"seed": self.seed}
        dotted = {key: value for key, value in vars(self).items() if key.split(".")[0] in SECTIONS}
        return changed(combined(self.preset, self.settings, dotted), {"data.source": "manifest", **own})

    def fit(self, X: Any, y: Any = None, *, groups: Any = None, validation: Any = None) -> Self:  # noqa: N803
        """Train on images and their labels, and return itself; whatever was learnt before is forgotten.

        Arguments:
            X: the images; rows whose column split says test are left out.
            y: a label an image, text, integers or truth values; with several labels, (images, classes) 0 and 1 or a
                list of names an image; None where X is a table or manifest with labels, or a folder of class folders.
            groups: what each image belongs to (a patient, a scene), which validation does not divide; or None.
            validation: what the best epoch is chosen by: a share of the images, or a pair (images, labels), or
                anything with labels that X may be; `data.validation` of the settings (0.1), or the images of that
                split, if None.

        Raises:
            FoveateError: images, labels or settings are at fault; most are a ValueError or a TypeError as well.
        """
        settings = self.settings_to_use()
        images, labels = labelled_images(X, y, settings.data)
        images = (images if groups is None else images.grouped(groups)).to_train(labels, self.verbose)
        if isinstance(X, str | Path) and Path(X).exists():
            settings = changed(settings, {"data.manifest": Path(X).resolve()})
        settings = changed(settings, {"data.multi_label": labels.several})
        share = settings.data.validation if validation is None else validation
        if isinstance(share, int | float) and not isinstance(share, bool):
            forgotten = validation is not None  # what the data say of their splits
            splits = [replace(one, split=None) if forgotten else one for one in images.examples]
            images = replace(images, examples=fill_splits(splits, share, 0.0, settings.seed))
        else:
            others, y = validation if isinstance(validation, tuple) and len(validation) == 2 else (validation, None)
            others, _ = labelled_images(others, y, settings.data, labels)
            images = images.in_split("train").joined(others.in_split("validation"))
        with self._folder() as folder:
            progress = None if self.verbose else SilentProgress()
            remedy = "to continue: fit the same once more with resume=True"
            result = train(settings, folder, resume=self.resume, dataset=images, progress=progress, remedy=remedy)
            self.model_ = load_model(result.model_folder, allow_code=settings.model.own_code)
            self.history_ = result.history
        self.classes_, self.result_, self._form = labels.classes, result, labels.form
        return self

    def _folder(self) -> contextlib.AbstractContextManager[str | Path]:
        """Folder of the run, kept or not."""
        if self.out is None:
            return tempfile.TemporaryDirectory(prefix="foveate-", ignore_cleanup_errors=True)
        out = Path(self.out)
        if not self.resume and out.is_dir() and any(out.iterdir()):
            raise RunError(
                f"{out} is not empty: Classifier(resume=True) goes on with a run, out=None uses a temporary folder "
                "(as in cross-validation), or choose another out"
            )
        return contextlib.nullcontext(out)

    def _fitted(self) -> Model:
        if not hasattr(self, "model_"):
            raise NotFittedClassifierError(
                f"this {type(self).__name__} is not fitted: call fit with images and labels, or Classifier.load(folder)"
            )
        model: Model = self.model_
        return model.to(choose_device(self.device)).eval()

    def predictions(self, X: Any) -> list[Prediction]:  # noqa: N803
        """Predictions of images with all that was measured: patches read and where, bytes, seconds.

        Arguments:
            X: the images.

        Raises:
            ImageError: an image cannot be read; the message names the first, and how many there are.
        """
        model, images, options = self._fitted(), listed(X), self._options()
        rows = [Row(one.id, partial(images.open, index)) for index, one in enumerate(images.examples)]
        found = list(predict_paths(model, rows, options.samples, options.method, options.seed))
        failed = [one for one in found if isinstance(one, Failure)]
        if failed:
            others = f" ({len(failed)} of {len(found)} images cannot be read)" if len(failed) > 1 else ""
            raise ImageError(f"{failed[0].message}{others}")
        return [one for one in found if isinstance(one, Prediction)]

    def _options(self) -> DrawOptions:
        return DrawOptions(self.samples, self.method, self.seed or 0)  # type: ignore[arg-type]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Probabilities (images, classes) in the order of `classes_`; rows sum to 1, but for several labels."""
        return np.array([list(one.probabilities.values()) for one in self.predictions(X)], dtype=np.float64)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Class of each image, as labels were given to `fit`.

        Returns:
            (images,) classes; with several labels (images, classes) 0 and 1, or a list of tuples of names, as given.
        """
        probabilities = self.predict_proba(X)
        if self._form == "one":
            return self.classes_[probabilities.argmax(1)]
        has = (probabilities >= 0.5).astype(np.int64)
        return has if self._form == "matrix" else [tuple(self.classes_[row == 1].tolist()) for row in has]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Accuracy: share of the images whose class, with several labels whose classes are all, right.

        Arguments:
            X: the images.
            y: their labels; None where X is a table, manifest or folder that has them.
            sample_weight: (images,) by how much each counts.
        """
        model = self._fitted()
        images, labels = labelled_images(X, y, DataSettings(), self._known())
        rows = self.predict_proba(images)
        several = labels.several or model.multi_label
        chosen = [tuple(np.flatnonzero(row >= 0.5).tolist()) if several else int(row.argmax()) for row in rows]
        right = [mine == theirs for mine, theirs in zip(chosen, labels.indices, strict=True)]
        return float(np.average(right, weights=sample_weight))

    def evaluate(self, X: Any, y: Any = None, *, groups: Any = None, by_group: bool = False) -> Evaluation:  # noqa: N803
        """Evaluation on labelled images: error with its interval, AUC, recalls, confusion.

        Arguments:
            X: the images.
            y: their labels, as for `score`.
            groups: what each image belongs to, by which intervals are resampled.
            by_group: whether the images of a group are taken together.
        """
        model = self._fitted()
        images, _ = labelled_images(X, y, DataSettings(), self._known())
        images = images if groups is None else images.grouped(groups)
        order = sorted(range(len(images)), key=lambda index: images.examples[index].id)
        return evaluate(model, images, order, self._options(), by_group=by_group)

    def _known(self) -> Labels:
        return Labels(self.classes_, tuple(map(str, self.classes_.tolist())), (), self._form)

    def explain(self, X: Any, out: str | Path | None = None) -> list[Explanation]:  # noqa: N803
        """Explanations: where it looked in each image, what it saw there, and what that added to the answer.

        Arguments:
            X: the images.
            out: folder for a page per image, with its files, and an index.html over them; none are written if None.

        Returns:
            One an image, with `attention`, `patches` and more; each draws itself in a notebook.
        """
        model, images, options = self._fitted(), listed(X), self._options()
        writer = None if out is None else Explainer(model, Path(out), options)
        seen = []
        for index, example in enumerate(images.examples):
            look = model.look(images.open(index), options)
            if writer is not None:
                writer(example.id, look)
            seen.append(explain(model, replace(look, prediction=model.sketched(look)), example.id))
        if writer is not None:
            writer.finish()
        return seen

    def save(self, folder: str | Path) -> Path:
        """Write a model folder, which every command of `foveate` takes, and what `load` needs besides.

        Raises:
            RunError: it is not fitted, or the folder cannot be written.
        """
        model = self._fitted()
        saved = save_model(model.cpu(), folder)
        params = {name: value for name, value in self.get_params().items() if name not in ("out", "resume")}
        if self.settings is not None:
            params["settings"] = self.settings_to_use()
        known = {
            "params": {name: to_plain(value) for name, value in params.items()},
            "classes": self.classes_.tolist(),
            "form": self._form,
            "history": to_plain(self.history_),
        }
        replace_file(saved / FILE, (json.dumps(known, indent=2) + "\n").encode())
        return saved

    @classmethod
    def load(cls, name_or_folder: str | Path, allow_code: Collection[str] = ()) -> Self:
        """Classifier of a folder that `save` or `foveate train` wrote, of a shipped model, or of a hub id.

        Arguments:
            name_or_folder: as `foveate.load_model` takes it.
            allow_code: functions "package.module:function" that the folder may have imported and called.

        Raises:
            RunError, ConfigError: as `foveate.load_model`.

        Example:
            >>> Classifier.load("megapixel-mnist").classes_.tolist()[:3]
            ['0', '1', '2']
        """
        model, path = load_model(name_or_folder, allow_code=allow_code), Path(name_or_folder)
        known: dict[str, Any] = {"classes": list(model.classes), "form": "sets" if model.multi_label else "one"}
        if (path / FILE).is_file():
            try:
                known = json.loads((path / FILE).read_text(encoding="utf-8"))
                made = cls(**known["params"])
                made.history_ = from_plain(History, known["history"])
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path / FILE} is damaged: save the classifier again, or delete it") from error
        else:
            try:
                settings = run_settings(path)
            except RunError:
                settings = changed(RunSettings(), {"model": model.settings})
            keys = changed_keys(RunSettings(), settings)
            made = cls(None, settings={key: to_plain(attrgetter(key)(settings)) for key in keys})
            log = path / "metrics.jsonl"
            made.history_ = History.of(read_metrics(log, "epoch")) if log.is_file() else History()
        made.model_, made.classes_, made._form = model, np.array(known["classes"]), known["form"]
        return made
