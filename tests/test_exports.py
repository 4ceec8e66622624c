"""What `import foveate` and its packages promise is there, in order, and lazily."""

import ast
import inspect
import pkgutil
from importlib import import_module

import pytest

import foveate

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
