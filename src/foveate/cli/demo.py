"""foveate demo: the main job, on data it makes itself from real handwritten digits."""

import argparse
import shlex
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.atomic import writing
from foveate.config.files import preset
from foveate.config.serial import to_plain
from foveate.errors import RunError

if TYPE_CHECKING:
    from foveate.compare import CompareSettings

SUMMARY = "train attention sampling and two baselines on megapixel images it makes itself"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="folder of the demo (default: runs/demo)")
    parser.add_argument("--seed", type=int, default=0, help="seed of images, weights and draws (default: 0)")


def demo_comparison(seed: int) -> "CompareSettings":
    """ATS-10, U-10 and a CNN on ATS-10's view, from the preset `demo`; the CNN trains at least as long as ATS-10."""
    from foveate.compare import CompareSettings, CostSettings, MethodSettings

    base = preset("demo")
    base = replace(base, seed=seed, data=replace(base.data, generator_seed=seed))

    def other(name: str) -> dict[str, Any]:
        return {"model": {"name": name}, "training": {"watch": 0}}

    return CompareSettings(
        base=to_plain(base),
        methods={
            "ats-10": MethodSettings(),
            "u-10": MethodSettings(other("uniform")),
            "cnn": MethodSettings(other("cnn"), as_long_as="ats-10"),
        },
        cost=CostSettings(batch=base.training.batch, process=False),
    )


def run(namespace: argparse.Namespace) -> int:
    """Make the images, train and test three methods, print the table, keep pictures and the model.

    Returns:
        0.
    """
    from foveate.cli.compare import print_table
    from foveate.compare import compare
    from foveate.datasets import open_dataset
    from foveate.explain import draw_evolution

    out = Path(namespace.out)
    start = time.perf_counter()
    settings = demo_comparison(namespace.seed)
    _check_folder(out)
    data = settings.resolved()[0].settings.data
    height, width = data.canvas
    print(
        f"{data.train_images} training and {data.test_images} test canvases of {height}×{width} pixels: five real "
        f"handwritten digits under {data.noise} noise strokes. Which digit is there three times?",
        flush=True,
    )
    dataset = open_dataset(data, namespace.seed)
    comparison = compare(
        settings, out, dataset=dataset, remedy=f"to continue: foveate demo --out {shlex.quote(str(out))}"
    )
    assert comparison is not None
    draw_evolution(out / "ats-10", dataset, out / "attention.png")
    with writing(out / "model"):
        shutil.copytree(out / "ats-10" / "model", out / "model", dirs_exist_ok=True)
        shutil.copyfile(out / "ats-10" / "config.yaml", out / "config.yaml")
    print_table(comparison)
    print(f"how the attention moved: {out / 'attention.png'}")
    print(f"the model: {out} · try: foveate evaluate {out} --samples 4 · {time.perf_counter() - start:.0f} s in all")
    return 0


def _check_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "comparison.yaml").is_file())):
        raise RunError(f"{out} is in the way and not a demo's folder: choose another --out")
