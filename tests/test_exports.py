# ruff: noqa: E501  a table of calls
"""What `import foveate` and its packages promise is there, in order, and lazily."""

import ast
import inspect
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module

import numpy as np
import pytest
import torch

import foveate
from foveate import FoveateError

PACKAGES = [f"foveate.{module.name}" for module in pkgutil.iter_modules(foveate.__path__) if module.ispkg]


@pytest.mark.parametrize("name", foveate.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(foveate, name) is not None


def test_the_list_is_sorted_and_is_what_dir_shows() -> None:
    assert foveate.__all__ == sorted(foveate.__all__)
    assert dir(foveate) == sorted([*foveate.__all__, "__version__"])


def test_type_checkers_see_the_same_names_in_the_same_homes() -> None:
    tree = ast.parse(inspect.getsource(foveate))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {f"{node.module}.{alias.name}" for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    lazy = {f"foveate.{home}.{name}" for home, names in foveate._HOMES.items() for name in names}
    assert typed == lazy
    assert sorted(name.rsplit(".", 1)[1] for name in lazy) == foveate.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'foveate' has no attribute 'drwa'"):
        foveate.drwa  # noqa: B018
    with pytest.raises(ImportError):
        exec("from foveate import drwa")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_packages_list_names_what_is_there(package: str) -> None:
    module = import_module(package)
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name), name


def test_the_public_surface_is_small_and_every_name_has_an_example_that_runs() -> None:
    assert len(foveate.__all__) <= 30
    assert foveate.__doc__
    shown = "\n".join(re.findall(r"(?:>>>|\.\.\.) (.*)", foveate.__doc__))
    for name in foveate.__all__:
        own = getattr(foveate, name).__doc__ or ""
        used = len(re.findall(rf"\b{name}\b", shown)) > 1  # imported, and used
        assert ">>>" in own or used, name


def image() -> np.ndarray:
    return np.zeros((60, 80, 3), np.uint8)


def model() -> foveate.Model:
    return foveate.load_model("megapixel-mnist")


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: model().predict([image()]), TypeError, "an image is a path, an array, .* got list: give one image"),
        (lambda: model().predict(None), TypeError, "got NoneType: give one image at a time"),
        (lambda: model().predict(image().astype(np.int64)), TypeError, "pixels must be bool, uint8, .* got int64"),
        (lambda: model().predict(image()[None]), ValueError, r"must be \(height, width\) or .* got shape \(1, 60"),
        (lambda: model().predict(torch.zeros(60, 80, 3)), ValueError, r"permute\(2, 0, 1\)"),
        (lambda: model().predict(image(), samples=0), ValueError, "samples must be at least 1, got 0"),
        (lambda: foveate.predict_paths(model(), "a.png"), TypeError, "got one path 'a.png': give a list of paths"),
        (lambda: foveate.open_dataset("images.csv"), TypeError, "settings must be DataSettings, got str"),  # type: ignore[arg-type]
        (lambda: foveate.train("manifest", "out"), TypeError, "settings must be RunSettings, got str"),  # type: ignore[arg-type]
        (lambda: foveate.build_model(foveate.ModelSettings(), "cat", 3), TypeError, "got the text 'cat': give a list"),
        (lambda: foveate.preset("manifest", **{"training.epochs": "x"}), ValueError, "epochs must be an integer, got 'x'"),
        (lambda: foveate.preset("manifest", **{"training.epoch": 1}), ValueError, "did you mean training.epochs"),
        (lambda: foveate.draw(torch.zeros(1, 3), 0), ValueError, "n must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_a_function_that_is_called_wrongly_says_so_in_one_line(
    call: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        call()
    assert isinstance(caught.value, FoveateError)
    assert "\n" not in str(caught.value)
