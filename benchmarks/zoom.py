"""What a prediction by zoom costs of an image of 1 and one of 100 gigapixels: time, memory, regions, bytes.

The images are pyramids of JPEG tiles whose tables point to the same few tiles again and again, so that 100 gigapixels
are some megabytes on disk; what is read, decoded and held is what a real one would take. The models are untrained, of
four levels, cells of 41 pixels and ten patches of 100×100 pixels. One, of a scale of 8, looks at both; the last level
of the larger image is 0.83 of full resolution then, and that of the smaller one enlarged. So another, of a scale of 4,
looks at the smaller one as closely as it is. Every measurement is a process of its own, in turn, on one thread.

    python benchmarks/zoom.py [--repeats 3]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TILES = {"1": 124, "100": 1236}
"""Gigapixels → tiles of 256×256 along each side."""

CASES = (("1", 4), ("1", 8), ("100", 8))
"""Gigapixels and scale between levels."""

LEVELS, PATCHES, STRIDE = 4, 10, 41


def main() -> None:
    """Measure each case in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        path, scale = arguments.measure
        print(json.dumps(measured(Path(path), int(scale))))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), arguments.repeats)
    print("gigapixels | scale | first s | next CPU s | peak MB | regions a level | MB read | tiles decoded")
    for (size, scale), runs in found.items():
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "regions"}
        spread = f"{min(run['next_s'] for run in runs):.2f}–{max(run['next_s'] for run in runs):.2f}"
        regions = ", ".join(map(str, runs[0]["regions"]))
        seconds = f"{median['first_s']:.2f} | {median['next_s']:.2f} ({spread})"
        held = f"{median['peak_mb']:.0f}"
        print(f"{size} | {scale} | {seconds} | {held} | {regions} | {median['mb']:.1f} | {median['tiles']}")
    for scale in (4, 8):
        ratios = [
            one["next_s"] / other["next_s"] for one, other in zip(found["100", 8], found["1", scale], strict=True)
        ]
        told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"100 gigapixels take {told} times the CPU time of 1 gigapixel at a scale of {scale}")


def compare(folder: Path, repeats: int) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Measurements of every case, so many of each, in turn."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from giants import levels_of, write_giant

    for size, count in TILES.items():
        write_giant(folder / f"{size}.tif", count, count, levels=levels_of(256 * count))
    found: dict[tuple[str, int], list[dict[str, Any]]] = {case: [] for case in CASES}
    for _ in range(repeats):
        for size, scale in CASES:
            command = [sys.executable, __file__, "--measure", str(folder / f"{size}.tif"), str(scale)]
            surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
            run = subprocess.run(command, check=True, capture_output=True, text=True, env=surroundings)
            found[size, scale].append(json.loads(run.stdout.splitlines()[-1]))
    return found


def measured(path: Path, scale: int) -> dict[str, Any]:
    """One prediction, then three by other seeds: seconds, memory at its peak, and what was looked at in the first."""
    import torch

    from foveate.config.resolutions import ZoomSettings
    from foveate.config.settings import AttentionSettings, ModelSettings, ViewSettings
    from foveate.images import open_image
    from foveate.models import DrawOptions, build_model
    from foveate.threads import set_reading_threads

    torch.set_num_threads(1)
    set_reading_threads(1)
    settings = ModelSettings(
        name="zoom",
        view=ViewSettings(longest_side=512),
        patch=(100, 100),
        patches=PATCHES,
        attention=AttentionSettings(stride=STRIDE),
        zoom=ZoomSettings(levels=LEVELS, scale=(scale,)),
    )
    model = build_model(settings, ("a", "b"), channels=3).eval()
    seconds, looks = [], []
    for seed in range(4):
        source = open_image(path)
        start, before = time.perf_counter(), time.process_time()
        look = model.look(source, DrawOptions(seed=seed))
        seconds.append(time.perf_counter() - start if seed == 0 else time.process_time() - before)
        looks.append((look.started.looked_at, look.prediction.bytes_read, source.tiles_decoded))  # type: ignore[attr-defined]
        source.close()
    regions, read, decoded = looks[0]
    return {
        "first_s": seconds[0],
        "next_s": statistics.median(seconds[1:]),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "regions": list(regions),
        "mb": read / 1e6,
        "tiles": decoded,
    }


if __name__ == "__main__":
    main()
