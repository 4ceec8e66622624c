"""Hooks: attention, features, drawing methods, models and readers of a user's own, each registered by one call.

What is registered is found by its name wherever the settings name one of foveate's: `model.attention.name`,
`model.features.name`, `model.method`, `model.name`; a reader by the ending of a file's name. Without being registered,
a function of an installed module is named "package.module:function", and is imported where that is allowed by name.
See docs/hooks.md. Nothing here imports torch.
"""

import importlib
import re
from collections.abc import Callable
from typing import Any, Literal, NewType, TypeVar

from foveate.errors import ArgumentError, ArgumentTypeError, ConfigError, one_line

Thing = TypeVar("Thing", bound=Callable[..., Any])
Kind = Literal["attention", "features", "method", "model", "reader"]

Own = NewType("Own", str)
"""Name of something of a user's own: a registered one, or "package.module:function"."""

TAKEN: dict[str, tuple[str, ...]] = {
    "attention": ("convolutional",),
    "features": (
        *("convolutional", "residual", "megapixel-mnist-paper", "speed-limits-paper", "colon-cancer-paper"),
        *("timm",),
    ),
    "method": ("iid", "des_raj", "priority", "murthy", "uniform", "top"),
    "model": (
        *("attention-sampling", "uniform", "cnn", "deep-mil", "evidence", "ips", "multi-scale", "zoom"),
        "top-k",
        "perturbed-top-k",
        "gmic",
    ),
    "reader": (),
}
"""Kind → names of foveate's own."""

REGISTERED: dict[tuple[str, str], Callable[..., Any]] = {}
"""(kind, name) → what was registered, in this process; empty until somebody calls `register`."""

READERS: dict[str, Callable[..., Any]] = {}
"""End of files' names → their reader, likewise."""


def register(kind: Kind, name: str, thing: Thing | None = None) -> Any:
    """Register something of your own under a name; also as a decorator. It holds for this process.

    ==========  =================================================================================================
    kind        what it is
    ==========  =================================================================================================
    attention   function of the number of channels that gives an `nn.Module`: views (B, C, h, w) → logits (B, h, w)
    features    function of the number of channels that gives an `nn.Module`: patches (M, C, h, w) → (M, D)
    method      function (log_prob, n, generator) → (index, weight) that draws cells of one image
    model       subclass of `foveate.Model`
    reader      function of a path that gives a `Source` or an array; its name is the end of files' names, ".xyz"
    ==========  =================================================================================================

    Arguments:
        kind: see the table.
        name: by which settings name it; registered once more, it takes the place of the one before.
        thing: what is registered; None where this decorates it.

    Returns:
        The thing, as it was.

    Raises:
        ArgumentError: the kind or the name cannot be used.
        ArgumentTypeError: the thing cannot be called.

    Example:
        >>> import torch
        >>> @register("method", "always-first")
        ... def first(log_prob, n, generator):
        ...     return torch.arange(n), torch.ones(n)
        >>> from foveate import draw
        >>> draw(torch.zeros(1, 5).log_softmax(1), 2, "always-first").index
        tensor([[0, 1]])
    """
    if kind not in TAKEN:
        raise ArgumentError(f"there is no hook for {kind!r}: choose one of {', '.join(TAKEN)}")
    if thing is None:
        return lambda given: register(kind, name, given)
    pattern = r"\.\w[\w.-]*" if kind == "reader" else r"\w[\w.-]*"
    if not isinstance(name, str) or not re.fullmatch(pattern, name) or name in TAKEN[kind]:
        wanted = 'an ending such as ".xyz"' if kind == "reader" else "a word that is not foveate's own"
        raise ArgumentError(f"{name!r} cannot name a {kind}: choose {wanted}")
    if not callable(thing):
        raise ArgumentTypeError(f"the {kind} {name} is of type {type(thing).__name__}: register what can be called")
    REGISTERED[kind, name] = thing
    if kind == "reader":
        READERS[name.lower()] = thing
    return thing


def is_own(name: str) -> bool:
    """Whether a name may be one of a user's own: it is registered, or says where to import it from.

    Example:
        >>> is_own("package.module:function"), is_own("murthy"), is_own("timm:resnet18")
        (True, False, False)
    """
    imported = ":" in name and not name.startswith("timm:")
    return imported or any(known == name for _, known in REGISTERED)


def find(kind: Kind, name: str, key: str) -> Callable[..., Any]:
    """What is registered under a name, or is to be imported from "package.module:function".

    Arguments:
        kind: of hook.
        name: see above.
        key: setting that names it, for errors.

    Raises:
        ConfigError: nothing of that name is registered, or it cannot be imported.
    """
    if (kind, name) in REGISTERED:
        return REGISTERED[kind, name]
    where, colon, function_name = name.partition(":")
    if not colon:
        own = sorted(known for one, known in REGISTERED if one == kind)
        names = ", ".join((*TAKEN[kind], *own))
        raise ConfigError(
            f"no {kind} {name!r} is registered here, there are {names}: run what calls foveate.register({kind!r}, "
            f"{name!r}, …) first"
        )
    if not function_name.isidentifier() or not all(part.isidentifier() for part in where.split(".")):
        raise ConfigError(f"{key} {name!r} names no function of yours: write it as package.module:function")
    try:
        module = importlib.import_module(where)
    except Exception as error:
        raise ConfigError(
            f"the module {where} of {key} {name} cannot be imported ({one_line(error)}): install it, or "
            "name the folder it lies in in PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(
            f"the module {where} ({getattr(module, '__file__', None)}) has no function {function_name}: "
            f"write {key} as package.module:function"
        )
    found: Callable[..., Any] = function
    return found


def reader_of(name: str) -> Callable[..., Any] | None:
    """Reader that is registered for a file's name, by the longest ending that fits; or None."""
    ends = [end for end in READERS if name.lower().rstrip("/").endswith(end)]
    return READERS[max(ends, key=len)] if ends else None
