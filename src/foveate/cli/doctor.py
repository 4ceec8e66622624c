"""Installation check, `foveate doctor`: what foveate needs to work, one thing after another; or a run's dry run.

Nothing heavy is imported before it is looked at.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from itertools import permutations
from pathlib import Path
from time import perf_counter
from typing import Literal, cast

from foveate.cli.parser import add_code
from foveate.errors import ConfigError

SUMMARY = "check this installation, or dry-run a configuration, and say what to do about what is wrong"

EPILOG = """examples:
  foveate doctor                                              the installation
  foveate doctor --config config.yaml                         a step of a run: memory, seconds an epoch and in all
  foveate doctor --config photographs --data images.csv --memory 8

The exit code is 0 if all is well, 2 if something needs your hand, 1 if foveate itself computes wrongly."""

TOLERANCE = 1e-10
"""Largest error of the enumerated estimator that counts as exact in float64."""

REPORT = "please report this with the whole output of foveate doctor"
"""Remedy of a fault of foveate's own."""

DEVELOPERS = ("dev", "docs", "bench")
"""Extras that nobody needs to use foveate."""

State = Literal["ok", "absent", "low", "wrong", "fault"]

COLOURS: dict[State, str] = {"ok": "green", "absent": "dim", "low": "yellow", "wrong": "red", "fault": "red"}


@dataclass(frozen=True)
class Check:
    """Check: one line of the report.

    Attributes:
        name: what was looked at.
        state: "ok"; "absent" (optional, not installed); "low" (works, but tight); "wrong" (needs the user's hand);
            "fault" (foveate itself is wrong).
        found: what was found.
        remedy: what to do about it, or "".
    """

    name: str
    state: State
    found: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `foveate doctor`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object a check, one a line")
    parser.add_argument("--config", metavar="FILE", help="dry-run a step with this configuration file, or preset")
    parser.add_argument("--data", metavar="MANIFEST", help="with --config: the images, if not those that FILE names")
    parser.add_argument(
        "--memory", type=float, metavar="GB", help="with --config: what may be taken (default: all free)"
    )
    add_code(parser)


def run(arguments: argparse.Namespace) -> int:
    """Report of every check; the exit code says whether all is well."""
    if arguments.config is None and (arguments.data is not None or arguments.memory is not None):
        raise ConfigError("--data and --memory belong to a dry run: give --config FILE, or a preset, too")
    report = list(checks()) if arguments.config is None else _rehearsed(arguments)
    if arguments.json:
        print("\n".join(json.dumps(asdict(check)) for check in report))
    else:
        _print_table(report)
    states = {check.state for check in report}
    return 1 if "fault" in states else 2 if "wrong" in states else 0


def _rehearsed(arguments: argparse.Namespace) -> list[Check]:
    """Checks of a run: a step of it is taken."""
    from foveate.config.files import PRESETS, check_code, load_settings, merge_settings, preset
    from foveate.training.rehearsal import rehearse, verdicts

    name = arguments.config
    settings = preset(name) if name in PRESETS and not Path(name).exists() else load_settings(name)
    if arguments.data is not None:
        settings = merge_settings(settings, {"data": {"manifest": str(Path(arguments.data).resolve())}})
    if arguments.memory is not None and not arguments.memory > 0:
        raise ConfigError(f"--memory must be positive, got {arguments.memory:g}: give gigabytes, e.g. 8")
    check_code(settings.model, arguments.allow_code, name)
    found = rehearse(settings, arguments.memory)
    return [Check(name, cast("State", state), told, remedy) for name, state, told, remedy in verdicts(found)]


def _print_table(report: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", "found", "what to do")
    for check in report:
        table.add_row(check.name, Text(check.state, COLOURS[check.state]), Text(check.found), Text(check.remedy))
    Console().print(table)


def checks() -> Iterator[Check]:
    """Checks of everything foveate needs, in the order of the report; one that cannot be made at all went wrong."""
    looks: dict[str, Callable[[], Iterator[Check]]] = {
        "Python": _python,
        "dependencies": _dependencies,
        "torch": _torch,
        "temporary folder": _temporary_folder,
        "cache": _cache,
        "memory": _memory,
        "estimator": _estimator,
        "speed": _speed,
        "pretrained network": _pretrained,
    }
    for name, look in looks.items():
        try:
            yield from look()
        except ImportError as error:
            yield Check(name, "wrong", f"cannot import: {error}", "install foveate again: pip install . in your clone")
        except OSError as error:
            yield Check(name, "wrong", str(error), "free some space or change the permissions")
        except Exception as error:  # whatever a driver or a library raises, the other checks are still made
            yield Check(name, "fault", " ".join(f"{type(error).__name__}: {error}".split()), REPORT)


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()} ({sys.executable})"
    good = sys.version_info >= (3, 11)
    yield Check("Python", "ok" if good else "wrong", found, "" if good else "use Python 3.11 or newer")


def _dependencies() -> Iterator[Check]:
    """Versions against the bounds that the installed package declares; extras may be absent."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in requires("foveate") or ()]
        extras = metadata("foveate").get_all("Provides-Extra", [])
    except PackageNotFoundError:
        yield Check("foveate", "wrong", "not installed, only importable", "pip install . in your clone")
        return
    yield Check("foveate", "ok", version("foveate"))
    told: set[str] = set()  # several extras may need one library: it is told once
    for requirement in declared:
        marker = requirement.marker
        extra = None
        if marker is not None and not marker.evaluate({"extra": ""}):
            extra = next((name for name in extras if marker.evaluate({"extra": name})), "dev")
        line = f"{requirement.name}{requirement.specifier}"
        if extra in DEVELOPERS or line in told:  # or of another platform, or of another Python
            continue
        told.add(line)
        pip_line = f"pip install '{line}'"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Check(requirement.name, "absent" if extra else "wrong", "not installed", pip_line)
            continue
        good = requirement.specifier.contains(found, prereleases=True)
        found = f"{found} (needs {requirement.specifier})"
        yield Check(requirement.name, "ok" if good else "wrong", found, "" if good else pip_line)


def _torch() -> Iterator[Check]:
    import torch

    yield Check("threads", "ok", f"{torch.get_num_threads()} on {os.cpu_count()} cores")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Check("accelerator", "ok", f"CUDA {torch.version.cuda}: {names}")
    elif torch.backends.mps.is_available():
        found = "Apple GPU (mps), not used: it has no float64, in which draws are computed; everything runs on the CPU"
        yield Check("accelerator", "absent", found)
    else:
        build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
        yield Check("accelerator", "absent", f"none, torch is a {build}: everything runs on the CPU")


def _temporary_folder() -> Iterator[Check]:
    folder = tempfile.gettempdir()
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"foveate")
        file.flush()
    yield Check("temporary folder", "ok", f"{folder} is writable")
    for name, remedy in ((folder, "set TMPDIR to another folder"), (os.curdir, "give --out on another disk")):
        free = shutil.disk_usage(name).free / 1e9
        found = f"{free:.1f} GB free in {os.path.abspath(name)}"  # noqa: PTH100  resolve() would follow links
        yield Check("disk", "low", found, f"free some space or {remedy}") if free < 1 else Check("disk", "ok", found)


def _cache() -> Iterator[Check]:
    """Disk cache of training images, which is made when it is first needed."""
    from foveate.disk_cache import DiskCache, cache_folder

    folder = cache_folder() / "images"
    parent = next(place for place in (folder, *folder.parents) if place.exists())
    found = f"{DiskCache(folder, 0).size() / 1e9:.1f} GB of decoded images and views in {folder}: delete it freely"
    if parent.is_dir() and os.access(parent, os.W_OK):
        yield Check("cache", "ok", found)
    else:
        remedy = "set FOVEATE_CACHE or data.cache_folder to another folder, or data.cache to memory"
        yield Check("cache", "low", f"{folder} cannot be written to", remedy)


def _memory() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    low = memory.available < 2e9
    found = f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f} GB"
    yield Check("memory", "low" if low else "ok", found, "use smaller batches: --training.batch 8" if low else "")


def _estimator() -> Iterator[Check]:
    """Enumeration of every set of three of five cells: value and gradient of the default method, without noise."""
    import torch

    from foveate.sampling import draw, expectation

    cells, drawn, copies = 5, 3, 4000
    generator = torch.Generator().manual_seed(0)
    logits = torch.linspace(-1, 1, cells, dtype=torch.float64).requires_grad_()
    features = torch.randn(cells, 2, dtype=torch.float64, generator=generator)
    log_prob = logits.log_softmax(0)
    many = draw(log_prob.expand(copies, cells), drawn, generator=generator)
    each = expectation(many, features[many.index])

    chances: dict[tuple[int, ...], float] = {}
    share = log_prob.detach().exp().tolist()
    for order in permutations(range(cells), drawn):
        chance, left = 1.0, 1.0
        for cell in order:
            chance, left = chance * share[cell] / left, left - share[cell]
        chances[tuple(sorted(order))] = chances.get(tuple(sorted(order)), 0.0) + chance
    rows = {tuple(sorted(cells_drawn)): row for row, cells_drawn in enumerate(many.index.tolist())}
    if rows.keys() != chances.keys():
        yield Check("estimator", "fault", f"only {len(rows)} of {len(chances)} sets are ever drawn", REPORT)
        return
    weighted = [chance * each[rows[cells_drawn]] for cells_drawn, chance in chances.items()]
    estimate = torch.stack(weighted).sum(0)
    direction = torch.tensor([1.0, -2.0], dtype=torch.float64)
    exact = log_prob.exp() @ features
    slopes = [torch.autograd.grad(value @ direction, logits, retain_graph=True)[0] for value in (estimate, exact)]
    error = max(float((estimate - exact).detach().abs().max()), float((slopes[0] - slopes[1]).abs().max()))
    found = f"value and gradient exact to {error:.0e} over all {len(chances)} sets"
    good = error <= TOLERANCE
    yield Check("estimator", "ok" if good else "fault", found, "" if good else REPORT)


def _speed() -> Iterator[Check]:
    import torch

    from foveate.sampling import draw

    generator = torch.Generator().manual_seed(0)
    log_prob = torch.randn(32, 3600, generator=generator).log_softmax(1)
    milliseconds = _median_time(lambda: draw(log_prob, 10, generator=generator))
    yield Check("speed: draws", "ok", f"{milliseconds:.1f} ms for 10 of 3,600 cells in each of 32 images")
    patches, weight = torch.randn(32, 32, 50, 50), torch.randn(32, 32, 3, 3)
    milliseconds = _median_time(lambda: torch.nn.functional.conv2d(patches, weight))
    rate = 32 * 48 * 48 * 32 * 32 * 9 * 2 / milliseconds / 1e6
    yield Check("speed: convolution", "ok", f"{rate:.0f} GFLOP/s on the CPU")


def _pretrained() -> Iterator[Check]:
    """Network whose weights come along: timm can be imported beside this torch, and they are there and fit."""
    from foveate.errors import FoveateError
    from foveate.networks.timm import BackboneChoice, stage_maps
    from foveate.networks.weights import BUNDLED, BUNDLED_NETWORK

    try:
        stage_maps(BackboneChoice(BUNDLED_NETWORK, channels=3, weights=BUNDLED), stages=(1,))
    except FoveateError as error:
        found, _, remedy = str(error).partition(": ")
        yield Check("pretrained network", "wrong", found, remedy)
    else:
        yield Check("pretrained network", "ok", f"{BUNDLED_NETWORK} (ImageNet) comes along and needs no download")


def _median_time(act: Callable[[], object], budget: float = 0.4) -> float:
    """Median time of a call in ms, from as many calls as fit into `budget` seconds, the first one left out."""
    act()
    times: list[float] = []
    while sum(times) < budget and len(times) < 100:
        started = perf_counter()
        act()
        times.append(perf_counter() - started)
    return sorted(times)[len(times) // 2] * 1e3
