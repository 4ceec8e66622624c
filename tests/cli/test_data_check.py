"""`foveate data check`, as a user runs it."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
import pytest
from PIL import Image
from servers import FileServer

from foveate.__main__ import main


def check(*words: object) -> int:
    return main(["data", "check", *map(str, words)])


def test_check_of_a_sound_manifest(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(manifest) == 0
    assert capsys.readouterr().out == (
        "label  no split\na             6\nb             6\n\n"
        "pixels  min  median  max\nheight    4       4    4\nwidth     6       6    6\n\n"
        "kind        images\ngrey uint8      12\n\n"
        "12 images, no problems\n"
    )


def test_check_lists_everything_that_is_wrong(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = manifest.parent
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:45])
    (folder / "4.png").write_text("not an image")
    (folder / "5.png").unlink()
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    text = manifest.read_text().replace("label,group,stain", "label,group,split")
    text = "\n".join(
        line.rsplit(",", 1)[0] + (",train" if line[0].isdigit() else ",split") for line in text.splitlines()
    )
    manifest.write_text(text + "\ncopy.png,a,p1,test\nbad.png,a,p1,tset\n6.png,a,,\n")
    assert check(manifest) == 2
    out = capsys.readouterr().out
    assert "line 15: unknown split 'tset', use train, validation or test\n" in out
    assert "line 16: path '6.png' is already on line 8, remove one of the two\n" in out
    assert f"missing: {folder}/5.png\n" in out
    assert f"unreadable: {folder}/3.png" in out
    assert f"unreadable: {folder}/4.png" in out
    assert "same content, different labels and different splits: 1.png, copy.png\n" in out
    assert "group p1 crosses splits: test, train\n" in out
    assert out.endswith("\n13 images, 7 problems, 1 hint\n")
    assert out.startswith("label  test  train\na         1      6\nb         0      6\n")


def test_a_file_that_fails_halfway_does_not_lose_the_report(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.file_digest

    def fail(content: BinaryIO, name: str) -> object:
        if content.name.endswith("4.png"):
            raise OSError(errno.EIO, "Input/output error")
        return digest(content, name)  # type: ignore[arg-type]

    (manifest.parent / "copy.png").write_bytes((manifest.parent / "1.png").read_bytes())
    manifest.write_text(manifest.read_text() + "copy.png,b,p0,\n")
    monkeypatch.setattr(hashlib, "file_digest", fail)
    assert check(manifest) == 2
    out = capsys.readouterr().out
    assert f"unreadable: {manifest.parent}/4.png: cannot be read (Input/output error): check the path" in out
    assert "same content: 1.png, copy.png\n" in out
    assert out.endswith("13 images, 2 problems\n")


def test_a_file_nobody_may_read_is_reported_once(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path_open = Path.open

    def fail(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == "4.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return path_open(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", fail)
    assert check(manifest) == 2
    out = capsys.readouterr().out
    assert out.count("4.png") == 1
    assert out.endswith("12 images, 1 problem\n")


def test_check_looks_at_masks(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = manifest.read_text().replace("stain", "mask")
    for name, mask in (("4", "5.png"), ("6", "0.png"), ("7", "wide.png"), ("8", "labels.csv")):
        text = text.replace(f",s{name}", f",{mask}")
    manifest.write_text("\n".join(re.sub(",s[0-9]+$", ",", line) for line in text.splitlines()))
    Image.fromarray(np.ones((4, 9), np.uint8)).save(manifest.parent / "wide.png")
    assert check(manifest) == 2
    out = capsys.readouterr().out
    assert "mask: " in out
    assert re.search(r"mask: \S*0\.png leaves nothing of \S*6\.png to look at\n", out)
    assert re.search(r"mask: \S*wide\.png: a mask must have the shape of its image, got 4×9 for 4×6 of \S*7\.png", out)
    assert re.search(r"mask: \S*labels\.csv: \S", out)
    assert out.endswith("12 images, 3 problems\n")


def test_a_quick_check_reads_headers_only(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (manifest.parent / "copy.png").write_bytes((manifest.parent / "1.png").read_bytes())
    manifest.write_text(manifest.read_text() + "copy.png,b,p0,\n")
    assert check(manifest, "--quick") == 0
    assert check(manifest) == 2
    assert "same content: 1.png, copy.png" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["no.csv", "loop.csv", "no/such/folder"])
def test_check_of_no_manifest_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert check(tmp_path / name) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"foveate: error: manifest {tmp_path / name} ")
    assert line.endswith(("check the path", "check the path and the file's mode"))


def rotten_files(folder: Path) -> dict[str, Callable[[Path], object]]:
    """Name → what makes a file of that name that is no image, or no longer one."""
    noise = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)

    def cut(path: Path) -> None:
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def cut_array(path: Path) -> None:
        np.save(path, noise)
        path.write_bytes(path.read_bytes()[:500])

    def cut_canvas(path: Path) -> None:
        np.savez(path, noise=noise)
        path.write_bytes(path.read_bytes()[:500])

    def huge(path: Path) -> None:
        Image.fromarray(noise).save(path)
        data = bytearray(path.read_bytes())
        data[16:24] = (2_000_000_000).to_bytes(4, "big") * 2  # the header's width and height, then its checksum
        data[29:33] = crc32(data[12:29]).to_bytes(4, "big")
        path.write_bytes(data)

    return {
        "empty.png": Path.touch,
        "empty.npy": Path.touch,
        "text.jpg": lambda path: path.write_text("see attached"),
        "page.png": lambda path: path.write_text("<!DOCTYPE html><html><body>404</body></html>"),
        "magic.png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200)),
        "magic.tif": lambda path: path.write_bytes(b"II*\0" + b"\xff" * 200),
        "magic.npz": lambda path: path.write_bytes(b"PK\x03\x04" + b"\xff" * 200),
        "magic.npy": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff{"),
        **{f"cut.{suffix}": cut for suffix in ("png", "jpg", "bmp", "gif", "tif", "webp", "ppm")},
        "cut.npy": cut_array,
        "cut.npz": cut_canvas,
        "huge.png": huge,
        "folder.png": Path.mkdir,
        "pipe.png": os.mkfifo,
        "loop.png": lambda path: path.symlink_to(path.name),
        "nowhere.png": lambda path: path.symlink_to(folder / "gone.png"),
        "gone.png": str,
        "x" * 300 + ".png": str,
    }


@pytest.mark.parametrize("words", [(), ("--quick",), ("--json",)])
def test_no_rotten_file_stops_a_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    rotten = rotten_files(tmp_path)
    for name, make in rotten.items():
        make(tmp_path / name)
    for i in range(6):
        Image.fromarray(np.full((4, 6 + i), i, np.uint8)).save(tmp_path / f"good-{i}.bmp")
    lines = ["path,label", *(f"{name},a" for name in rotten), *(f"good-{i}.bmp,b" for i in range(6))]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    assert check(tmp_path / "all.csv", *words) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert "good-" not in said.out
    problems = [line for line in said.out.splitlines() if re.search("(missing|unreadable): ", line)]
    named = {name: sum(f"/{name}" in line for line in problems) for name in rotten}
    if "--quick" in words:
        assert set(named.values()) <= {0, 1}
        assert {name for name, count in named.items() if not count} <= {name for name in rotten if name[:3] == "cut"}
    else:
        assert named == dict.fromkeys(rotten, 1)
        assert len(problems) == len(rotten)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_an_unreadable_mode_is_a_problem(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (manifest.parent / "4.png").chmod(0)
    assert check(manifest) == 2
    assert "4.png: cannot be read (Permission denied): check" in capsys.readouterr().out


def test_a_report_for_machines(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = manifest.parent
    Image.fromarray(np.zeros((9, 15, 3), np.uint8)).save(folder / "colour.png")
    manifest.write_text(manifest.read_text().replace("stain", "split").replace(",s", ",") + "colour.png,a,p9,\n")
    manifest.write_text(re.sub(",[0-9]+$", ",", manifest.read_text(), flags=re.MULTILINE))
    (folder / "7.png").unlink()
    assert check(manifest, "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 13
    assert report["counts"] == [
        {"split": None, "label": "a", "images": 7},
        {"split": None, "label": "b", "images": 6},
    ]
    assert report["sizes"] == {
        "height": {"min": 4, "median": 4, "max": 9},
        "width": {"min": 6, "median": 6, "max": 15},
    }
    assert report["kinds"] == [
        {"channels": 1, "type": "uint8", "images": 11},
        {"channels": 3, "type": "uint8", "images": 1},
    ]
    assert report["problems"] == [{"kind": "missing", "message": f"missing: {folder}/7.png"}]
    (hint,) = report["hints"]
    assert hint["kind"] == "pixels"
    assert hint["message"].startswith("grey and RGB images are mixed (grey uint8: 11, RGB uint8: 1), and grey ones")


def test_images_with_several_labels_count_for_each(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = manifest.read_text().replace("0.png,a,", "0.png,a| b,").replace("1.png,b,p0", "1.png,,p0")
    manifest.write_text(text + "copy.png,b|a,p0,s\n")
    (manifest.parent / "copy.png").write_bytes((manifest.parent / "0.png").read_bytes())
    assert check(manifest, "--multi-label") == 2
    out = capsys.readouterr().out
    assert out.startswith("label     no split\nno class         1\na                7\nb                8\n")
    assert "\nsame content: 0.png, copy.png\n" in out
    assert out.endswith("\n13 images, 1 problem\n")
    assert check(manifest) == 2
    out = capsys.readouterr().out
    assert "line 2 has several labels (a| b): say so with --data.multi_label true (foveate data check and" in out
    assert "no label: 1.png\n" in out


def test_a_label_written_wrongly_is_a_problem_of_its_row(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest.write_text(manifest.read_text().replace("0.png,a,", "0.png,a|a,").replace("1.png,b,", "1.png,b|,"))
    assert check(manifest, "--multi-label") == 2
    out = capsys.readouterr().out
    assert "line 2: label 'a|a' names 'a' twice, write it once\n" in out
    assert "line 3: label 'b|' has a | without a name beside it, write names with one | between\n" in out


def test_classes_and_splits_with_few_images(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = manifest.read_text().replace("stain", "split").splitlines()
    split_of = ["train"] * 10 + ["test"] * 2
    lines = [lines[0], *(line.rsplit(",", 1)[0] + f",{split}" for line, split in zip(lines[1:], split_of, strict=True))]
    manifest.write_text("\n".join(lines).replace("11.png,b", "11.png,rare"))
    assert check(manifest) == 2
    out = capsys.readouterr().out
    assert "class 'rare' has no image to train on, write some into the split train\n" in out
    assert "hint: split test has 2 images: an error measured on so few says little\n" in out
    assert out.endswith("12 images, 1 problem, 1 hint\n")


def test_several_labels_where_one_is_wanted_are_a_fault_and_no_class(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest.write_text(manifest.read_text().replace("\n0.png,a,", "\n0.png,a|b,"))
    assert check(manifest) == 2
    out = capsys.readouterr().out
    assert out.startswith("label  no split\na             5\nb             6\n\n")
    assert "line 2 has several labels (a|b): say so with" in out
    assert out.endswith("\n12 images, 1 problem\n")


def test_a_folder_without_labels_cannot_be_trained_on(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest.unlink()
    assert check(manifest.parent) == 0
    assert capsys.readouterr().out.endswith(
        "\nhint: no image has a label: to train, write classes in a column label, or sort images into one folder per "
        "class\n\n12 images, no problems, 1 hint\n"
    )


def test_an_address_is_shown_as_it_is(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest.write_text(manifest.read_text() + "ftp://x/y.png,a,p9,\n")
    assert check(manifest) == 2
    assert (
        "unreadable: ftp://x/y.png: addresses of images begin with one of http://, https://, s3://, got ftp://: "
        in (capsys.readouterr().out)
    )


def test_images_elsewhere_are_looked_at(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aiohttp")
    content = (manifest.parent / "3.png").read_bytes()
    with FileServer({"good.png": content[:-1] + b"!", "short.png": content[:40]}) as server:
        rows = "".join(f"{server.address(name)},a,p9,\n" for name in ("good.png", "short.png", "gone.png"))
        manifest.write_text(manifest.read_text() + rows)
        assert check(manifest) == 2
    out = capsys.readouterr().out
    assert out.endswith("15 images, 2 problems\n")
    assert re.search(r"unreadable: http://\S+/gone\.png: no such file there \(404\): check the address\n", out)
    assert re.search(r"unreadable: http://\S+/short\.png: ", out)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("words", [(), ("--deep",)])
def test_pixels_that_are_not_finite_are_named_before_a_prediction_stumbles_over_them(
    wrong: float, words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(3).random((70, 90, 2)).astype(np.float32)
    np.save(tmp_path / "good.npy", pixels)
    pixels[41, 17, 1] = wrong
    np.save(tmp_path / "bad.npy", pixels)
    assert check(tmp_path, *words) == 2
    out = capsys.readouterr().out
    where = "level 0, rows 0 … 69" if words else "its view"
    assert f"unreadable: {tmp_path}/bad.npy: {where} has pixels that are nan or infinite: replace them first" in out
    assert "good.npy" not in out
    assert check(tmp_path, "--quick") == 0


def test_no_data_is_no_reason_even_where_nan_is_declared(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    pixels = np.random.default_rng(3).random((1, 70, 90)).astype(np.float32)
    pixels[0, 3:50, 9:30] = np.nan
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 400000, 0, -2, 5000000), "nodata": np.nan}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=70, width=90, count=1, dtype="float32", **place
    ) as stream:
        stream.write(pixels)
    assert check(tmp_path) == 0
    assert check(tmp_path, "--deep") == 0
