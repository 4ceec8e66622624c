"""DeepPCB in small: pairs of pictures of circuit boards in the published layout, of pixels that no two pairs share."""

import functools
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

TILE = (50, 76)
KINDS = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
LONE = ((3, 4, 11, 9), (20, 37, 8, 17))
"""(top, left, height, width) of the two boxes of every pair that meet no other."""
MEETING = ((29, 5, 12, 20), (40, 24, 8, 10))
"""Of two that have one pixel in common."""

Annotated = tuple[str, tuple[int, int, int, int]]


def kinds_of(pair: int) -> tuple[str, ...]:
    """Kinds of the defects of a pair of a group: first those of the lone ones, which go through all kinds."""
    return tuple(KINDS[(2 * pair + k) % 6] for k in range(4))


def write_deep_pcb(
    place: Path, groups: int = 5, pairs: int = 4, ending: str = "png", lists: bool = True, commas: bool = False
) -> Path:
    """Write groups of pairs, the last of which is the test half with one pair more; returns the folder PCBData."""
    root = place / "PCBData"
    listed: dict[str, list[str]] = {"trainval": [], "test": []}
    random = np.random.default_rng(5)
    for group in range(groups):
        folder = root / f"group{group}" / f"{group}"
        folder.mkdir(parents=True)
        (root / f"group{group}" / f"{group}_not").mkdir()
        for pair in range(pairs):
            name = f"{group}{pair:03d}"
            template = random.integers(0, 2, TILE, dtype=np.uint8) * np.uint8(255)
            tested = np.where(random.random(TILE) < 0.2, 255 - template, template)  # everywhere, not in boxes alone
            lines = []
            for kind, (top, left, height, width) in zip(kinds_of(pair), (*LONE, *MEETING), strict=True):
                cut = tested[top : top + height, left : left + width]
                cut[:] = 255 - template[top : top + height, left : left + width]
                numbers = (left, top, left + width, top + height, KINDS.index(kind) + 1)
                lines.append((", " if commas else " ").join(map(str, numbers)))
            for what, pixels in (("temp", template), ("test", tested)):
                Image.fromarray(pixels if ending == "jpg" else pixels > 0).save(folder / f"{name}_{what}.{ending}")
            (root / f"group{group}" / f"{group}_not" / f"{name}.txt").write_text("\n".join(lines) + "\n")
            half = "test" if group == groups - 1 or (group, pair) == (0, 1) else "trainval"
            line = f"group{group}/{group}/{name}.jpg group{group}/{group}_not/{name}.txt"
            listed[half].append(line)
    for half, text in listed.items():
        if lists:
            (root / f"{half}.txt").write_text("\n".join(text) + "\n")
    return root


def pack(root: Path, archive: Path) -> Path:
    """The folder in a zip file, below a folder of its own, with what macOS leaves in one."""
    (root.parent / "__MACOSX" / "PCBData").mkdir(parents=True, exist_ok=True)
    (root.parent / "__MACOSX" / "PCBData" / "._test.txt").write_bytes(b"\xff\x00")
    return Path(shutil.make_archive(str(archive.with_suffix("")), "zip", root.parent))


@functools.cache
def picture(root: Path, name: str, what: str) -> np.ndarray:
    """Pixels of a picture of a pair, read by Pillow alone."""
    [file] = root.glob(f"{name}_{what}.*")
    return np.asarray(Image.open(file).convert("L"))


def annotated(root: Path, name: str) -> list[Annotated]:
    """Kind and (top, left, height, width) of every box of a pair, read as text."""
    group, folder, number = name.split("/")
    found = []
    for line in (root / group / f"{folder}_not" / f"{number}.txt").read_text().splitlines():
        left, top, right, bottom, kind = map(int, line.replace(",", " ").split())
        found.append((KINDS[kind - 1], (top, left, bottom - top, right - left)))
    return found
