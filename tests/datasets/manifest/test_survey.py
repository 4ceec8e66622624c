"""What is found of images before a configuration is chosen: headers, few thumbnails, faults that end nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from missing import raster
from PIL import Image

from foveate.datasets.manifest import survey as surveying
from foveate.datasets.manifest.survey import survey
from foveate.errors import DataError
from foveate.images.formats.pillow import PillowSource


def write(path: Path, size: tuple[int, int] = (40, 60), kind: str = "RGB", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if kind == "L" else (*size, 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine images of three sizes in two class folders, one of them cut off in its header."""
    for number in range(9):
        kind = ("ok", "scratched")[number % 2]
        write(
            tmp_path / "photos" / kind / f"{number}.png", (40 + 10 * (number % 3), 70 + 10 * (number % 3)), seed=number
        )
    broken = tmp_path / "photos" / "ok" / "4.png"
    broken.write_bytes(broken.read_bytes()[:10])
    return tmp_path / "photos"


def test_sizes_classes_and_an_image_that_cannot_be_read(folder: Path) -> None:
    found, labelled = survey(folder)
    assert labelled
    assert (found.images, found.looked, found.classes) == (9, 9, ("ok", "scratched"))
    assert found.labels == {"ok": 5, "scratched": 4}
    assert len(found.sizes) == 8
    assert found.typical == (50, 80)
    assert found.kinds == {(3, "uint8"): 8}
    (fault,) = found.faults
    assert "4.png" in fault
    assert found.kind[0] == "photographs"
    assert found.facts == (
        "9 images, median 50×80 (height × width), longest sides 70 to 90 pixels",
        "pixels (images × bands × type): 8 × 3 × uint8",
        "classes: ok 5, scratched 4",
        f"cannot be read: {fault}",
    )


def test_a_file_that_ends_early_and_one_that_is_missing(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"{number}.png", (90, 120), seed=number)
    cut = tmp_path / "1.png"
    cut.write_bytes(cut.read_bytes()[:900])
    rows = "".join(f"{n}.png,{'ab'[n % 2]},p{n // 2},{'test' if n == 3 else ''}\n" for n in (0, 1, 2, 3))
    (tmp_path / "list.csv").write_text(f"path,label,group,split\n{rows}gone.png,a,,\n")
    found, _ = survey(tmp_path / "list.csv")
    assert [fault.partition(":")[0].rpartition("/")[2] for fault in found.faults] == ["gone.png", "1.png"]
    assert (found.groups, found.splits) == (2, {"": 4, "test": 1})


def test_labels_that_are_missing(tmp_path: Path, folder: Path) -> None:
    write(folder / "5.png")
    fault = r"1 of 10 images of .* have no label, the first is 5.png: move each into the folder of its class, or elsewh"
    with pytest.raises(DataError, match=fault):
        survey(folder)
    (tmp_path / "some.csv").write_text(f"path,label\n{folder / '5.png'},a\n{folder / 'other.png'},\n")
    with pytest.raises(
        DataError, match=r"1 of 2 images of .* the first is .*other.png: label them, or take their rows"
    ):
        survey(tmp_path / "some.csv")
    flat = tmp_path / "flat"
    for number in range(3):
        write(flat / f"{number}.png")
    found, labelled = survey(flat)
    assert (found.images, labelled) == (3, False)
    (flat / "bad.png").write_bytes(b"none")
    for number in range(3):
        (flat / f"{number}.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"^none of the 4 images of .* can be read; the first: "):
        survey(flat)


def test_several_labels_are_seen(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.png")
    (tmp_path / "list.csv").write_text("path,label\n0.png,rust|dent\n1.png,\n2.png,dent\n")
    found, labelled = survey(tmp_path / "list.csv")
    assert labelled
    assert found.multi_label
    assert found.labels == {"dent": 2, "rust": 1}


def test_scenes_and_slides_are_told_by_how_they_are_stored(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 999, (64, 96, 4)).astype(np.uint16)
    rows = []
    for number in range(3):
        raster(tmp_path / f"{number}.tif", pixels, nodata=0)
        rows.append(f"{number}.tif,{'ab'[number % 2]}")
    (tmp_path / "scenes.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    found, _ = survey(tmp_path / "scenes.csv")
    assert (found.placed, found.missing, found.kinds) == (3, 3, {(4, "uint16"): 3})
    assert found.kind == ("remote-sensing", "3 of 3 have a place on earth")
    slides = tmp_path / "slides"
    for number in range(2):
        write_slide(slides / "ab"[number] / f"{number}.tif", seed=number)
    found, _ = survey(slides)
    assert found.mpps == (pytest.approx(0.5), pytest.approx(0.5))
    assert found.kind[0] == "pathology"
    assert len(found.tissue) == 2
    assert found.tissue[0] == pytest.approx(0.25, abs=0.03)


def test_regions_of_slides_have_no_levels_but_the_scale_of_a_microscope(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    for number, micrometres in enumerate((0.5, 0.5, 0.25, 84.67)):  # the last a scan of paper, of 300 dpi
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        resolution = {"resolution": (1e4 / micrometres,) * 2, "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(tmp_path / "ab"[number % 2] / f"{number}.tif", pixels, photometric="rgb", **resolution)
    found, _ = survey(tmp_path)
    told = "3 of 4 are slides, or regions of them: of a scanner, or with their scale"
    assert found.kind == ("pathology", told)


def write_slide(path: Path, size: tuple[int, int] = (320, 448), seed: int = 0, **how: Any) -> Path:
    """A pyramid of half a micron a pixel: glass, and a quarter of it stained tissue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = np.full((*size, 3), 235.0)
    pixels[size[0] // 4 : 3 * size[0] // 4, size[1] // 4 : 3 * size[1] // 4] = how.get("colour", (190, 90, 150))
    pixels = (pixels + random.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, tile=(64, 64), photometric="rgb", subifds=1, **resolution)
        file.write(pixels[::2, ::2], tile=(64, 64), photometric="rgb", subfiletype=1)
    return path


def test_only_headers_and_a_few_thumbnails_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    view = PillowSource.view

    def watched(self: Any, *given: Any) -> Any:
        looked.append(self.name)
        return view(self, *given)

    monkeypatch.setattr(PillowSource, "view", watched)
    monkeypatch.setattr(surveying, "THUMBNAILS", 3)
    monkeypatch.setattr(surveying, "HEADERS", 6)
    found, _ = survey(folder)
    assert len(looked) == 3
    assert (found.images, found.looked) == (9, 6)
    assert found.facts[0].startswith("9 images (6 looked at), ")
