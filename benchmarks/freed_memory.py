"""What a training step costs where the C library gives freed memory back, and where it keeps it for the next step.

Steps of the preset megapixel-mnist (1500 × 1500, ten patches) in fresh processes, the two kinds in turn: milliseconds
per image, page faults per image, and the peak of the process; and the ratio of each pair. With --views it is what the
eyes of the preset manifest see of views of 768 × 1024, one at a time, whose feature maps are blocks of up to 100 MB. On
systems without glibc both kinds are the same.

    python benchmarks/freed_memory.py [--rounds 5] [--steps 40] [--views]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

BATCH, WARM_UP = 16, 5


def main() -> None:
    """Measure both kinds in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--views", action="store_true")
    parser.add_argument("--kind", choices=("given back", "kept"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        measured = _views if arguments.views else _steps
        print(json.dumps(measured(arguments.kind == "kept", arguments.steps)))
        return
    found: dict[str, list[dict[str, float]]] = {"given back": [], "kept": []}
    for _ in range(arguments.rounds):
        for kind, each in found.items():
            command = [sys.executable, __file__, "--kind", kind, "--steps", str(arguments.steps)]
            command += ["--views"] * arguments.views
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            each.append(json.loads(run.stdout))
    for kind, each in found.items():
        words = [f"{kind:10}"]
        for name, digits in (("ms/image", 2), ("faults/image", 0), ("peak MB", 0)):
            values = [one[name] for one in each]
            low, middle, high = (f"{one:.{digits}f}" for one in (min(values), statistics.median(values), max(values)))
            words.append(f"{name} {middle} ({low}–{high})")
        print("  ".join(words))
    ratios = [one["ms/image"] / other["ms/image"] for one, other in zip(*found.values(), strict=True)]
    print(f"given back ÷ kept: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")


def _steps(keep: bool, steps: int) -> dict[str, float]:
    from foveate.config.files import preset
    from foveate.config.settings import DataSettings
    from foveate.datasets import open_dataset
    from foveate.devices import keep_freed_memory
    from foveate.models import build_model
    from foveate.pipeline.loader import Loader, shares, split_indices
    from foveate.training.step import Stepper

    if keep:
        keep_freed_memory()
    settings = preset("megapixel-mnist")
    images = BATCH * (steps + WARM_UP)
    data = DataSettings(source="megapixel-mnist", train_images=images, test_images=1, validation=0.0)
    dataset = open_dataset(data, seed=0)
    model = build_model(settings.model, dataset.classes, channels=1)
    stepper = Stepper(settings.training, model)
    plan = shares(split_indices(dataset, "train"), BATCH)
    batches = Loader(dataset, model.view, 0, model.intake, settings.augment).training(1, plan)
    return _measured(lambda: stepper(next(batches)), steps, BATCH)


def _views(keep: bool, steps: int) -> dict[str, float]:
    import torch

    from foveate.config.files import preset
    from foveate.devices import keep_freed_memory
    from foveate.models import build_model

    if keep:
        keep_freed_memory()
    eyes = build_model(preset("manifest").model, ("no", "yes"), channels=3).eval().eyes
    assert eyes is not None
    view = torch.rand(1, 3, 768, 1024, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return _measured(lambda: eyes(view), steps, 1)


def _measured(step: Callable[[], object], steps: int, images: int) -> dict[str, float]:
    import resource

    for _ in range(WARM_UP):
        step()
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        step()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ms/image": 1e3 * (time.perf_counter() - start) / (images * steps),
        "faults/image": (usage.ru_minflt - before) / (images * steps),
        "peak MB": usage.ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
