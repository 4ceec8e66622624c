"""How long a fresh process takes until it has predicted: imports, the model, a first image and another one.

Every repeat is a process of its own, kinds of image in turn: a JPEG of 1,500×1,500 pixels, and a pyramidal TIFF of a
gigapixel whose tables point to the same few tiles again and again. The model is the preset `smoke`'s (ATS-10),
untrained, saved and loaded as `foveate predict` does. Commands are timed from outside, as a user waits for them, in
turn: `foveate predict` with the shipped model, `python -c "import torch"`, which is most of it, and `foveate --help`;
of these, seconds of the processor as well, which a busy machine stretches less.

    python benchmarks/first_prediction.py [--repeats 7]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

KINDS = ("jpeg", "tiff")
SHIPPED = "foveate predict megapixel-mnist"
STAGES = ("import", "load the model", "first prediction", "second prediction", "process, start to end")
TILES = 124
"""Tiles of 256×256 along each side of the TIFF: a gigapixel."""


def main() -> None:
    """Measure each kind in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "IMAGE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measured(*arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model, images = _made(Path(folder))
        command = [sys.executable, __file__, "--measure", str(model)]
        for path in images.values():  # fills the system's file cache
            _timed([*command, str(path)])
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        foveate = [sys.executable, "-m", "foveate"]
        commands = {
            SHIPPED: [*foveate, *SHIPPED.split()[1:], str(Path(folder) / "grey.png")],
            "import torch": [sys.executable, "-c", "import torch; print()"],
            "foveate --help": [*foveate, "--help"],
        }
        whole: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(arguments.repeats):
            for kind, path in images.items():
                seconds, _, told = _timed([*command, str(path)])
                found[kind].append(json.loads(told) | {STAGES[-1]: seconds})
            for name, words in commands.items():
                whole[name].append(_timed(words)[:2])
    print(f"seconds, median (range) of {arguments.repeats} processes")
    for kind, runs in found.items():
        for stage in STAGES:
            print(f"  {kind:5} {stage:22} {_said([run[stage] for run in runs])}")
    print("and of the processor")
    for name, both in whole.items():
        seconds, cpu = (_said(list(one)) for one in zip(*both, strict=True))
        print(f"  {name:31} {seconds}; {cpu}")


def _made(folder: Path) -> tuple[Path, dict[str, Path]]:
    """A model folder, and an image of each kind."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from giants import levels_of, write_giant
    from PIL import Image
    from tiffs import noise

    from foveate.config.files import preset
    from foveate.models import build_model, save_model

    save_model(build_model(preset("smoke").model, ("a", "b"), channels=3), folder / "model", None)
    images = {kind: folder / f"image.{kind}" for kind in KINDS}
    Image.fromarray(noise(1500, 1500)).save(images["jpeg"], "JPEG", quality=90)
    Image.fromarray(noise(1500, 1500)[:, :, 0]).save(folder / "grey.png")
    write_giant(images["tiff"], TILES, TILES, levels=levels_of(256 * TILES))
    return folder / "model", images


def _timed(command: list[str]) -> tuple[float, float, str]:
    """Seconds that a command takes, those of the processor, and the last line it prints."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, run.stdout.splitlines()[-1]


def _measured(model_folder: str, image: str) -> dict[str, float]:
    """Seconds of each stage, in this process."""
    ends = [time.perf_counter()]
    from foveate import load_model

    ends.append(time.perf_counter())
    model = load_model(model_folder)
    ends.append(time.perf_counter())
    for seed in range(2):
        model.predict(image, seed=seed)
        ends.append(time.perf_counter())
    return {stage: stop - start for stage, (start, stop) in zip(STAGES, pairwise(ends), strict=False)}


def _said(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f}–{max(seconds):.3f})"


if __name__ == "__main__":
    main()
