"""What a prediction with ATS-10 costs as the image grows from 1 megapixel to 25 gigapixels.

The images are pyramids of JPEG tiles whose tables point to the same few tiles again and again, so that 25 gigapixels
are some megabytes on disk; what is read, decoded and held is what a real one would take. The model is the preset
`smoke`'s, untrained. Every size is measured in a process of its own, sizes in turn.

    python benchmarks/image_size.py [--repeats 3]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TILES = (4, 16, 64, 124, 300, 618)
"""Tiles of 256×256 along each side: 1, 17 and 268 megapixels, 1, 5.9 and 25 gigapixels."""


def main() -> None:
    """Measure each size in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measured(Path(arguments.measure))))
        return
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from giants import levels_of, write_giant

    found: dict[int, list[dict[str, float]]] = {count: [] for count in TILES}
    with tempfile.TemporaryDirectory() as folder:
        paths = {count: Path(folder) / f"{count}.tif" for count in TILES}
        for count, path in paths.items():
            write_giant(path, count, count, levels=levels_of(256 * count))
        for _ in range(arguments.repeats):
            for count, path in paths.items():
                command = [sys.executable, __file__, "--measure", str(path)]
                run = subprocess.run(command, check=True, capture_output=True, text=True)
                found[count].append(json.loads(run.stdout.splitlines()[-1]))
    print("megapixels | first ms | next ms | peak MB | KB read | KB of tables | tiles decoded | of all, %")
    for count, runs in found.items():
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        spread = [min(run["next_ms"] for run in runs), max(run["next_ms"] for run in runs)]
        print(
            f"{(256 * count) ** 2 / 1e6:10.0f} | {median['first_ms']:8.0f} | {median['next_ms']:.0f} "
            f"({spread[0]:.0f}–{spread[1]:.0f}) | {median['peak_mb']:.0f} | {median['kb']:.0f} | "
            f"{median['table_kb']:.1f} | {median['tiles']:.0f} | {100 * median['tiles'] / count**2:.4f}"
        )


def _measured(path: Path) -> dict[str, float]:
    from foveate.config.files import preset
    from foveate.images import open_image
    from foveate.models import build_model

    model = build_model(preset("smoke").model, ("a", "b"), channels=3).eval()
    seconds = []
    for seed in range(8):
        start = time.perf_counter()
        source = open_image(path)
        prediction = model.predict(source, seed=seed)
        seconds.append(time.perf_counter() - start)
        decoded, table, read = source.tiles_decoded, source.table_bytes, prediction.bytes_read
        source.close()
    return {
        "first_ms": 1e3 * seconds[0],
        "next_ms": 1e3 * statistics.median(seconds[1:]),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "kb": read / 1e3,
        "table_kb": table / 1e3,
        "tiles": decoded,
    }


if __name__ == "__main__":
    main()
