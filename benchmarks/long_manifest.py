"""How long a manifest of many rows keeps `foveate train` from its first step.

Writes a CSV file of so many rows in groups of two, an image each (a few small files, linked), and trains for one step,
in a process of its own each time: seconds from the command to the line that counts the images, and to the end of the
first step; in turn with a manifest of a hundred rows, for what is not the rows' doing. Medians and ranges.

    python benchmarks/long_manifest.py [--rows 200000] [--rounds 3]
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

FEW = 100
"""Rows of the manifest beside it."""

LINKS = 10_000
"""Names of one file, of which file systems allow a limited number."""

LINES = ("images:", "epoch 1")
"""How the lines begin that are waited for."""


def write(folder: Path, rows: int) -> Path:
    """A manifest of so many rows, all of whose images are there."""
    images = folder / "images"
    images.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    for number in range(rows):
        path = images / f"{number}.png"
        if number % LINKS == 0:
            Image.fromarray(pixels).save(path)
        else:
            path.hardlink_to(images / f"{number - number % LINKS}.png")
    with (folder / "images.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "group"])
        table.writerows((f"images/{i}.png", "ab"[i % 2], f"group {i // 4 * 2 + i % 2}") for i in range(rows))
    return folder / "images.csv"


def timed(manifest: Path) -> tuple[float, ...]:
    """Seconds from the command to each of the lines."""
    with tempfile.TemporaryDirectory() as out:
        words = ["train", "smoke", "--data", str(manifest), "--out", f"{out}/run", "--training.max_steps", "1"]
        words += ["--data.validation", str(max(0.1 * FEW / len(list(manifest.parent.glob("images/*"))), 1e-4))]
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-u", "-m", "foveate", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            seconds = {}
            for line in process.stdout:
                seconds |= {begun: time.perf_counter() - start for begun in LINES if line.startswith(begun)}
    return tuple(seconds[begun] for begun in LINES)


def main() -> None:
    """Time both manifests in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifests = {rows: write(Path(folder) / str(rows), rows) for rows in (FEW, arguments.rows)}
        found: dict[int, list[tuple[float, ...]]] = {rows: [] for rows in manifests}
        for _ in range(arguments.rounds):
            for rows, manifest in manifests.items():
                found[rows].append(timed(manifest))
    for rows, runs in found.items():
        for begun, seconds in zip(LINES, zip(*runs, strict=True), strict=True):
            print(
                f"{rows:,} rows, {begun!r}: {statistics.median(seconds):.1f} s ({min(seconds):.1f}–{max(seconds):.1f})"
            )


if __name__ == "__main__":
    main()
