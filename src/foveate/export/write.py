"""Writing of exported models: their graphs as ONNX files or torch.export programs, how to feed them; and of the hub."""

import contextlib
import json
import logging
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from foveate._version import __version__
from foveate.atomic import whole_file, whole_folder, writing
from foveate.config.serial import to_plain
from foveate.config.settings import Method
from foveate.errors import ConfigError, FoveateError, MissingExtra, RunError, one_line
from foveate.export.graphs import DrawnHead, Graph, graphs_of, random_inputs
from foveate.images.wrappers.channels import RGB
from foveate.models.base import Model
from foveate.models.ensemble import Ensemble
from foveate.models.probabilities import refuse_numbers
from foveate.models.sampling import PatchModel
from foveate.models.store import model_card, save_model
from foveate.networks.runtime import missing_packages
from foveate.types import Size

Format = Literal["onnx", "torch"]
SUFFIX: dict[Format, str] = {"onnx": "onnx", "torch": "pt2"}

PREPROCESS, CARD, PROGRAM = "preprocess.json", "README.md", "predict.py"
ONNX = ("onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5", "onnx-ir>=0.1.12")
"""What the extra `onnx` installs."""

TRACED, CHECKED = (90, 134), (118, 75)
"""Sizes of a view that graphs for any size are traced with, neither side a multiple of any stride, and checked with."""

TOLERANCE = 1e-4
"""Largest difference between a graph and the model that is exported."""


@dataclass(frozen=True)
class ExportedModel:
    """Exported model: where it lies, its graphs in order, how far they are from the model, and of what views."""

    path: Path
    graphs: tuple[str, ...]
    difference: float
    any_size: bool


def export_model(
    model: Model,
    out: str | Path,
    format: Format = "onnx",  # noqa: A002  what it is called on the command line
    method: Method | None = None,
    view_size: Size | None = None,
    card: dict[str, Any] | None = None,
) -> ExportedModel:
    """Export of a model: graphs that need no foveate, beside how to feed them and a program that does.

    Arguments:
        model: any model, trained.
        out: a folder, made if missing, or a file that ends in .zip.
        format: "onnx", or "torch" for programs of torch.export.
        method: how cells are to be drawn; None as the model was set, "top" for no draws.
        view_size: (rows, columns) of the only views it is to take; None for any, where the model's layers allow it.
        card: what the README tells of data and figures; as for `save_model`.

    Returns:
        What was written, and how far it is from the model.

    Raises:
        ConfigError: a graph cannot be made for views of any size, or computes something else than the model.
        MissingExtra: ONNX is wanted and not installed.
        RunError: `out` cannot be written.
    """
    if isinstance(model, Ensemble):
        raise ConfigError("an ensemble is exported member by member: give the folder of one fold, e.g. runs/cv/fold-1")
    refuse_numbers(model.kind, "foveate export is")
    if model.unexported:
        raise ConfigError(f"{model.unexported}: export another model")
    own, fixed = (model.draw_method, model.fixed_method) if isinstance(model, PatchModel) else (model.method, None)
    if fixed is not None and method not in (None, fixed):
        raise ConfigError(f"a {model.settings.name} model takes patches by {fixed} alone: leave out --method {method}")
    out, method = Path(out), method or own
    if out.suffix and out.suffix != ".zip":
        raise ConfigError(f"--out {out} is neither a folder nor a .zip file: give e.g. {out.with_suffix('.zip')}")
    if format == "onnx":
        _check_onnx()
    graphs, worst = graphs_of(model, method), 0.0
    with _placed(out) as folder:
        for name, graph in graphs.items():
            file = folder / f"{name}.{SUFFIX[format]}"
            worst = max(worst, _write_graph(model, name, graph, file, format, view_size))
        ends = {name: {"inputs": graph.inputs, "outputs": graph.outputs} for name, graph in graphs.items()}
        told = preprocess(model, method, format, ends, view_size)
        (folder / PREPROCESS).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / CARD).write_text(model_card(model, card or {}, format), encoding="utf-8")
        if format == "onnx":
            (folder / PROGRAM).write_text(program(), encoding="utf-8")
    return ExportedModel(out, tuple(graphs), worst, view_size is None)


@contextlib.contextmanager
def _placed(out: Path) -> Iterator[Path]:
    """Folder to write into, which takes its place when all is written: as it is, or as a zip file."""
    if out.suffix == ".zip":
        with tempfile.TemporaryDirectory() as made, whole_file(out) as archive:
            yield Path(made)
            with writing(out), zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
                for one in sorted(Path(made).iterdir()):
                    file.write(one, one.name)
        return
    if out.exists() and not (out.is_dir() and ((out / PREPROCESS).is_file() or not any(out.iterdir()))):
        raise RunError(f"{out} is there already and is no exported model: give another --out, or remove it")
    with whole_folder(out) as folder:
        yield folder


def program() -> str:
    """Program that predicts with an exported model, which needs onnxruntime, NumPy and Pillow alone."""
    return (Path(__file__).parent / "predict.py.txt").read_text(encoding="utf-8")


def preprocess(
    model: Model,
    method: Method,
    format: Format,  # noqa: A002
    graphs: dict[str, Any],
    view_size: Size | None = None,
) -> dict[str, Any]:
    """What `preprocess.json` says: how an image becomes what the graphs take; see docs/export.md."""
    settings, wanted, grid = model.settings, model.settings.input, model.grid
    view = model.view
    return {
        "version": 1,  # raised when an older program could not use it
        "foveate": __version__,
        "model": settings.name,
        "format": format,
        "graphs": graphs,
        "classes": list(model.classes),
        "multi_label": model.multi_label,
        "channels": model.channels,
        "colour": wanted.colour,
        "bands": [RGB.index(one) if one in RGB[:3] else one for one in wanted.bands],
        "standardise": wanted.normalise == "image",
        "mpp": wanted.mpp,
        "guide": None if wanted.guide.tissue == "ignore" else vars(wanted.guide),
        "view": None if view is None else {name: value for name, value in vars(view).items() if value is not None},
        "view_size": None if view_size is None else list(view_size),
        "patch": None if model.patch is None else list(model.patch),
        "patches": model.patches,
        "method": method if isinstance(model, PatchModel) else None,
        "stride": None if grid is None else list(grid.strides),
        "field": None if grid is None else grid.field,
        "decision": to_plain(model.decision),
    }


def _dynamic(graph: Graph, any_size: bool) -> Any:
    """Which sides of what goes into a graph may be of any size."""
    some = torch.export.Dim.DYNAMIC
    sides = {2: some, 3: some} if any_size else {}
    axes = {
        "view": {0: some, **sides},
        "guide": {0: some, **{axis - 1: one for axis, one in sides.items()}},
        "footprint": None,
        "patches": {0: some},
        "log_prob": {0: some, 1: some, 2: some},
        "index": {0: some, 1: some},
        "features": {0: some, 1: some},
        "read": {0: some, 1: some},
        "threshold": {0: some, 1: some},
        "first": {0: some},
        "foretold": {0: some, 1: some},
    }
    extra = tuple(getattr(graph, "extra", ()))
    own = tuple(axes[one] for one in graph.inputs if one not in extra)
    return (*own, tuple(axes[one] for one in extra)) if extra else own


def _write_graph(
    model: Model,
    name: str,
    graph: Graph,
    file: Path,
    format: Format,  # noqa: A002
    view_size: Size | None,
) -> float:
    """Write one graph; returns how far it is from the model's own numbers, on others than it was traced with."""
    arguments = random_inputs(model, name, graph, view_size or TRACED, images=2)
    other = random_inputs(model, name, graph, view_size or CHECKED, images=1)
    try:
        with torch.no_grad(), _quiet():
            traced = torch.export.export(graph, arguments, dynamic_shapes=_dynamic(graph, view_size is None))
            if format == "torch":
                torch.export.save(traced, content := BytesIO())  # to a full disk it would end the process
                made, found = content.getvalue(), torch.export.load(content).module()(*other)
            else:
                made, found = _to_onnx(traced, graph, other)
            expected = graph(*other)
    except Exception as error:  # whatever an exporter raises of whatever network
        remedy = "model.features or model.attention has a layer that cannot be exported"
        if name == "view" and view_size is None:
            remedy = "give --view-size ROWS COLUMNS, the size of all your views, to export it for that size alone"
        raise ConfigError(f"the {name} graph cannot be exported ({one_line(error)}): {remedy}") from error
    file.write_bytes(made)
    pairs = zip(_several(expected), _several(found), strict=True)
    worst = max(_difference(ours, torch.as_tensor(theirs)) for ours, theirs in pairs)
    if not worst <= _scale(expected) * TOLERANCE:
        raise ConfigError(f"the {name} graph computes something else than the model: off by {worst:.3g}: report it")
    return worst


def _several(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list | tuple) else (values,)


def _scale(expected: Any) -> float:
    return max(1.0, *(float(one[one.isfinite()].abs().max()) for one in _several(expected)))


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference; infinite where one is a number and the other is none."""
    same = ours == theirs
    return float((ours.double() - theirs.double()).abs().where(~same, 0.0).nan_to_num(nan=torch.inf).max())


def _to_onnx(traced: torch.export.ExportedProgram, graph: Graph, arguments: Sequence[Tensor]) -> tuple[bytes, Any]:
    """ONNX file of a graph, and what it computes of the arguments."""
    from onnxruntime import InferenceSession

    if isinstance(graph, DrawnHead):
        traced = traced.run_decompositions(_DECOMPOSED)
    exported = torch.onnx.export(
        traced, input_names=graph.inputs, output_names=graph.outputs, dynamo=True, optimize=False, verbose=False
    )
    assert exported is not None
    _cast(exported.model)
    made: bytes = exported.model_proto.SerializeToString()
    feeds = dict(zip(graph.inputs, (one.numpy() for one in arguments), strict=True))
    return made, InferenceSession(made, providers=["CPUExecutionProvider"]).run(graph.outputs, feeds)


def _cast(model: Any) -> None:
    """Casts to the type of another value, as casts to that type: onnxruntime warns of the former at every start."""
    import onnx_ir
    from onnx_ir.passes.common import ShapeInferencePass

    ShapeInferencePass()(model)
    for node in model.graph:
        if node.op_type == "CastLike" and node.inputs[1].dtype is not None:
            node.op_type = "Cast"
            node.attributes["to"] = onnx_ir.AttrInt64("to", int(node.inputs[1].dtype))
            node.resize_inputs(1)


def push_to_hub(
    model: Model,
    repo_id: str,
    *,
    license: str | None = None,  # noqa: A002  what a card calls it
    card: dict[str, Any] | None = None,
    private: bool | None = None,
    token: str | None = None,
    **upload: Any,
) -> str:
    """Push of a model folder to a hub, by the conventions of huggingface_hub's `ModelHubMixin.push_to_hub`.

    Arguments:
        model: any; `load_model(repo_id)` loads it again.
        repo_id: "owner/name"; made if there is no such repository. The hub is that of HF_ENDPOINT, if it is set.
        license: identifier of the weights' licence, such as "mit"; what has none cannot be used by anybody.
        card: what the card tells; as for `save_model`.
        private: whether a new repository is a private one.
        token: of an account; that of HF_TOKEN or `hf auth login` if None.
        upload: commit_message, revision, create_pr, as `HfApi.upload_folder` takes them.

    Returns:
        Address of the commit.

    Raises:
        ConfigError: no licence is named, or `repo_id` is not an owner and a name.
        MissingExtra: huggingface-hub is not installed.
        RunError: the hub cannot be reached, or refuses.
    """
    named = license or (card or {}).get("license")
    if not named:
        raise ConfigError("a published model needs a licence, or nobody may use it: give --license, e.g. mit or other")
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", repo_id):
        raise ConfigError(f"a hub id is an owner and a name, got {repo_id!r}: give e.g. owner/name")
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise MissingExtra("pushing to a hub: pip install 'huggingface-hub>=0.27'") from error
    try:
        api = HfApi(token=token)
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as made, _quiet():
            folder = save_model(model, made, {**(card or {}), "license": named})
            return str(api.upload_folder(repo_id=name, folder_path=folder, **upload))
    except FoveateError:
        raise
    except Exception as error:  # the hub's errors have many classes and one meaning here
        raise RunError(
            f"{repo_id} could not be pushed ({one_line(error)}): check the network, HF_TOKEN and the name"
        ) from error


def _expm1(values: Tensor) -> Tensor:
    """exp(x) − 1 without its cancellation: ONNX has no such operation."""
    return (values / 2).tanh() * (values.exp() + 1)


def _logcumsumexp(values: Tensor, dim: int) -> Tensor:
    return values.exp().cumsum(dim).log()


_ATEN = torch.ops.aten
_DECOMPOSED: dict[Any, Any] = {_ATEN.expm1.default: _expm1, _ATEN.logcumsumexp.default: _logcumsumexp}
"""Operations that ONNX lacks, or has in single precision."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of their progress and their future."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "torch._export")]
    levels = [one.level for one in loggers]
    try:
        for one in loggers:
            one.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _check_onnx() -> None:
    if missing := missing_packages():
        raise MissingExtra(f"exporting to ONNX needs {' and '.join(missing)}: pip install {' '.join(map(repr, ONNX))}")
