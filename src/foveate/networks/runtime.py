"""Runtime of a frozen backbone: the same maps of the same images, computed on a CPU by onnxruntime.

It computes what torch does layer by layer, in about half the time, and takes no gradient (docs/performance.md).
"""

import copy
import importlib.util
import logging
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate.disk_cache import DiskCache, cache_folder
from foveate.errors import one_line
from foveate.networks.stages import StageMaps
from foveate.networks.weights import tensors_digest

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What a graph needs to be made and computed; the extra foveate[onnx]."""

WORTH = 100_000_000
"""Pixels of views that are seen in half the time, which saves some times what making the graph takes."""

TRACED, CHECKED = (97, 163), (64, 120)
"""Sizes of the images that a graph is made by, and that it is compared on: one is odd, the other even."""

TOLERANCE = 1e-4
"""Largest difference of a graph's maps from the network's own, as a share of their largest value."""

LIMIT = 10**9
"""Bytes that graphs may take in the user's cache folder."""


def missing_packages() -> list[str]:
    """Those of the packages that are not installed here: graphs are made and computed where none is missing."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


class CompiledMaps:
    r"""Compiled maps of a backbone: what its `StageMaps` compute, of images of any size, without gradients.

    The graph is made at the first call, and kept in the user's cache folder by all that determines it. It is compared
    with the network on images of two sizes that it was not made by; a network that it does not reproduce is computed
    by torch as ever, and a warning says so.

    .. math:: \max |m'_s - m_s| \le 10^{-4} \max |m_s|

    Arguments:
        maps: in evaluation mode, on the CPU, with weights that nothing changes but `forget` is called.

    Example:
        >>> from foveate.networks.timm import BackboneChoice, stage_maps
        >>> maps = stage_maps(BackboneChoice("timm:tf_efficientnet_lite0", 3, weights="bundled"), (1,)).eval()
        >>> [tuple(one.shape) for one in CompiledMaps(maps)(torch.zeros(1, 3, 60, 100))]
        [(1, 16, 30, 50)]
    """

    def __init__(self, maps: StageMaps) -> None:
        self._maps, self._lock = maps, threading.Lock()
        self._session: Any = None
        self._failed = False

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Map (B, C, h, w) images in the unit range, on the CPU, to a (B, D_s, h_s, w_s) map of each stage."""
        with self._lock:
            if self._session is None and not self._failed:
                self._open(images.shape[1])
            session = self._session
        return list(self._maps(images)) if session is None else _run(session, images)

    def forget(self) -> None:
        """Forget the graph, for the network's weights are others now."""
        with self._lock:
            self._session, self._failed = None, False

    def __deepcopy__(self, memo: dict[int, Any]) -> "CompiledMaps":
        return CompiledMaps(copy.deepcopy(self._maps, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledMaps, (self._maps,)

    def _open(self, channels: int) -> None:
        try:
            self._session = _session(_graph(self._maps, channels))
            self._check(channels)
        except Exception as error:
            self._session, self._failed = None, True
            logging.getLogger("foveate").warning(
                "foveate: warning: the backbone is computed by torch, for onnxruntime does not compute it (%s): set "
                "model.attention.runtime to torch",
                one_line(error),
            )

    def _check(self, channels: int) -> None:
        for height, width in (CHECKED, CHECKED[::-1], TRACED[::-1]):
            images = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(height))
            with torch.inference_mode():
                pairs = list(zip(_run(self._session, images), self._maps(images), strict=True))
            for found, own in pairs:
                if found.shape != own.shape:
                    raise ValueError(f"maps of {tuple(found.shape)} instead of {tuple(own.shape)}")
                difference, largest = float((found - own).abs().max()), float(own.abs().max())
                if not difference <= TOLERANCE * largest:
                    raise ValueError(f"maps differ by {difference:.2g} where the largest value is {largest:.2g}")


def _run(session: Any, images: Tensor) -> list[Tensor]:
    (name,) = (one.name for one in session.get_inputs())
    pixels = images.detach().float().contiguous(memory_format=torch.contiguous_format).numpy()
    return [torch.from_numpy(one) for one in session.run(None, {name: pixels})]


def _session(graph: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_mem_pattern = False  # views are of many sizes
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _graph(maps: StageMaps, channels: int) -> bytes:
    """The graph of a backbone, from the user's cache folder or made now."""
    import onnxruntime

    versions = torch.__version__, onnxruntime.__version__
    key = ("graph", tensors_digest(maps), str(maps), maps.indices, maps.places, channels, versions)
    cache = DiskCache(cache_folder() / "graphs", LIMIT)
    kept = cache.read(key)
    if kept is not None:
        return bytes(kept)
    made = _made(maps, channels)
    cache.write(key, np.frombuffer(made, np.uint8))
    return made


def _made(maps: StageMaps, channels: int) -> bytes:
    """A graph for images of any size."""
    import onnx

    with torch.random.fork_rng(devices=[]):
        program = torch.onnx.export(
            copy.deepcopy(maps).eval(), (torch.zeros(1, channels, *TRACED),), dynamo=True, verbose=False
        )
    assert program is not None
    model = program.model_proto
    # What is left after the export are layers that take images of any size; only their shapes are written down.
    for value in (*model.graph.input, *model.graph.output):
        for axis, side in enumerate(value.type.tensor_type.shape.dim):
            if axis != 1:
                side.dim_param = f"{value.name}_{axis}"
    del model.graph.value_info[:]
    if any(type(layer).__name__ == "Conv2dSame" for layer in maps.modules()):
        # These networks pad as TensorFlow does, by how many pixels depends on the image; ONNX has a word for that.
        for node in model.graph.node:
            if node.op_type == "Conv":
                others = [one for one in node.attribute if one.name not in ("pads", "auto_pad")]
                del node.attribute[:]
                node.attribute.extend([*others, onnx.helper.make_attribute("auto_pad", "SAME_UPPER")])
    return bytes(model.SerializeToString())
