"""Peak memory of training ATS-10 as the canvas grows from 1500² to 6000² and the low view stays at 180².

Each size trains in processes of its own, sizes in turn; a peak is the resident memory the operating system reports.

    python benchmarks/canvas_memory.py [--steps 8] [--repeats 3]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace

SIDES = (1500, 3000, 6000)


def main() -> None:
    """Measure each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(_peak(arguments.side, arguments.steps))
        return
    peaks: dict[int, list[float]] = {side: [] for side in SIDES}
    for _ in range(arguments.repeats):
        for side in SIDES:
            command = [sys.executable, __file__, "--side", str(side), "--steps", str(arguments.steps)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks[side].append(float(run.stdout.split()[-1]))
    for side, found in peaks.items():
        median = statistics.median(found)
        print(f"canvas {side}×{side}: peak {median:.0f} MB, median of {len(found)} ({min(found):.0f}–{max(found):.0f})")


def _peak(side: int, steps: int) -> float:
    from foveate.config.files import preset
    from foveate.training.loop import train
    from foveate.training.progress import SilentProgress

    settings = preset("megapixel-mnist-paper")
    data = replace(settings.data, digits="bundled", canvas=(side, side), train_images=400, test_images=10)
    model = replace(settings.model, patches=10, view=replace(settings.model.view, longest_side=180, scale=None))
    training = replace(settings.training, batch=32, max_steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        train(replace(settings, data=data, model=model, training=training), folder, progress=SilentProgress())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
