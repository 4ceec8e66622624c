import csv
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from circuits import write_deep_pcb
from PIL import Image
from scipy.io import savemat

from foveate.cli.data import circuit_boards as circuit_boards_action
from foveate.cli.data import colon_cancer, speed_limits
from foveate.cli.parser import Parser
from foveate.config.settings import DataSettings
from foveate.datasets import circuit_boards, german_speed_limits, read_manifest
from foveate.datasets.manifest.objects import read_objects, reduced
from foveate.datasets.published import swedish as swedish_signs
from foveate.datasets.published.swedish import SETS, PublishedSet
from foveate.errors import ConfigError, DataError, RunError
from foveate.types import Box


def run(module: object, *words: object) -> int:
    parser = Parser("foveate data")
    module.add_arguments(parser)  # type: ignore[attr-defined]
    return int(module.run(parser.parse_arguments([str(word) for word in words])))  # type: ignore[attr-defined]


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def colon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published") / "CRCHistoPhenotypes_2016_04_28"
    for number in range(1, 101):
        folder = root / "Classification" / f"img{number}"
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 3), (number, 0, 255)).save(folder / f"img{number}.bmp")
        for kind in ("epithelial", "fibroblast", "inflammatory", "others"):
            savemat(folder / f"img{number}_{kind}.mat", {"detection": np.ones((number % 2, 2))})
    return root


@pytest.fixture(scope="module")
def packed(colon: Path) -> Path:
    return Path(shutil.make_archive(str(colon), "zip", colon.parent, colon.name))


def test_colon_cancer_comes_out_of_the_archive(
    packed: Path, colon: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "colon"
    assert run(colon_cancer, packed, "--out", out) == 0
    assert capsys.readouterr().out == f"100 images; train on them with --data {out}/manifest.csv\n"
    rows = records(out / "manifest.csv")
    assert rows[:2] == [
        {"path": "images/img1.bmp", "label": "epithelial"},
        {"path": "images/img2.bmp", "label": "none"},
    ]
    for number in (1, 100):
        name = f"img{number}"
        assert (out / "images" / f"{name}.bmp").read_bytes() == (
            colon / "Classification" / name / f"{name}.bmp"
        ).read_bytes()
    assert len(read_manifest(out)) == 100
    assert not list(out.rglob("*.part"))


def test_colon_cancer_in_a_folder_stays_there(colon: Path, tmp_path: Path) -> None:
    out = tmp_path / "colon"
    assert run(colon_cancer, colon, "--out", out) == 0
    assert sorted(entry.name for entry in out.iterdir()) == ["manifest.csv", "published.json"]
    data = read_manifest(out)
    assert Path(data.files[6]).resolve() == (colon / "Classification" / "img7" / "img7.bmp").resolve()
    assert not Path(data.examples[6].id).is_absolute()
    assert data.classes[data.examples[6].label] == "epithelial"  # type: ignore[index]


def test_a_stopped_call_is_resumed(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "colon"
    run(colon_cancer, packed, "--out", out)
    whole = (out / "manifest.csv").read_bytes()
    (out / "manifest.csv").unlink()
    (out / "images" / "img9.bmp").unlink()
    kept = (out / "images" / "img8.bmp").stat().st_mtime_ns
    with pytest.raises(RunError, match=r"colon is not empty: give another --out, or --resume to finish what was begun"):
        run(colon_cancer, packed, "--out", out)
    assert run(colon_cancer, packed, "--out", out, "--resume") == 0
    assert (out / "manifest.csv").read_bytes() == whole
    assert (out / "images" / "img8.bmp").stat().st_mtime_ns == kept
    assert (out / "images" / "img9.bmp").exists()
    other = Path(shutil.copy(packed, tmp_path / "other.zip"))
    with pytest.raises(
        RunError, match=r"was begun with source \S+, not \S+other\.zip: give the same options to resume"
    ):
        run(colon_cancer, other, "--out", out, "--resume")


def test_what_is_not_colon_cancer_leaves_nothing_behind(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "?")
    with pytest.raises(DataError, match="holds no folders named Classification"):
        run(colon_cancer, tmp_path / "a.zip", "--out", tmp_path / "colon")
    assert not (tmp_path / "colon").exists()


@pytest.fixture
def german(tmp_path: Path) -> Path:
    folder = tmp_path / "gtsdb"
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(3)
    for number in range(4):
        pixels = generator.integers(0, 256, (7, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:05}.png")
    (folder / "gt.txt").write_text(
        "00001.ppm;1;1;2;2;2\n00002.ppm;1;1;2;2;5\n00003.ppm;1;1;2;2;5\n00003.ppm;1;1;2;2;1\n"
    )
    return folder


def test_german_scenes_stay_where_they_are(
    german: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(speed_limits, "german", "gtsdb", "--out", "runs/scenes") == 0
    assert capsys.readouterr().out == "3 images, 1 left out; train on them with --data runs/scenes/manifest.csv\n"
    assert records(tmp_path / "runs" / "scenes" / "manifest.csv") == [
        {"path": "../../gtsdb/images/00000.png", "label": "none"},
        {"path": "../../gtsdb/images/00001.png", "label": "50"},
        {"path": "../../gtsdb/images/00002.png", "label": "60-80"},
    ]
    assert run(speed_limits, "german", german, "--out", "runs/scenes", "--resume") == 0


def test_reduced_scenes_are_averages_of_squares(german: Path, tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    assert run(speed_limits, "german", german, "--out", out, "--reduce", 3) == 0
    assert [row["path"] for row in records(out / "manifest.csv")] == [f"images/0000{i}.png" for i in range(3)]
    data = read_manifest(out)
    for i in range(3):
        pixels = np.asarray(Image.open(german / "images" / f"0000{i}.png")).astype(float)
        wanted = [[pixels[3 * r : 3 * r + 3, 3 * c : 3 * c + 3].mean((0, 1)) for c in range(3)] for r in range(2)]
        np.testing.assert_array_equal(data.open(i).read(Box(0, 0, 2, 3)), np.floor(np.array(wanted) + 0.5))
        assert data.open(i).size == (2, 3)
    signs = {f"images/0000{i}.png": german_speed_limits(german).objects(i) for i in range(3)}
    assert read_objects(out) == {path: reduced(known, 3) for path, known in signs.items() if known} != {}
    made = json.loads((out / "published.json").read_text())
    assert made == {"data": "german speed limits", "source": str(german), "reduce": 3}
    with pytest.raises(RunError, match="was begun with reduce 3, not 2: give the same options to resume, or another"):
        run(speed_limits, "german", german, "--out", out, "--reduce", 2, "--resume")
    with pytest.raises(
        DataError, match=r"00000\.png: 7×10 pixels of uint8 cannot be averaged over squares of 8×8: use"
    ):
        run(speed_limits, "german", german, "--out", tmp_path / "none", "--reduce", 8)
    assert not (tmp_path / "none").exists()


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "x"
    with pytest.raises(ConfigError, match="--reduce must be at least 1, got 0: 2 halves both sides"):
        run(speed_limits, "german", tmp_path, "--out", out, "--reduce", 0)
    with pytest.raises(
        ConfigError, match=r"--download fetches the Swedish scenes only: get FullIJCNN2013\.zip from htt"
    ):
        run(speed_limits, "german", "--download", "--out", out)
    with pytest.raises(ConfigError, match="no scenes to read: give the folder of the published files, or --download"):
        run(speed_limits, "swedish", "--out", out)
    with pytest.raises(ConfigError, match=r"invalid choice: 'danish' .*See foveate data --help"):
        run(speed_limits, "danish", tmp_path, "--out", out)


def swedish(folder: Path) -> tuple[PublishedSet, ...]:
    sets = []
    for part, limit in zip(SETS, (70, 80), strict=True):
        (folder / part.name).mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (8, 6), (limit, 0, 0)).save(folder / part.name / f"{name}.jpg")
        lines = f"a.jpg:\nb.jpg:VISIBLE, 9, 9, 0, 0, PROHIBITORY, {limit}_SIGN;\n"
        (folder / part.name / "annotations.txt").write_text(lines)
        sets.append(PublishedSet(part.name, part.split, hashlib.md5(lines.encode()).hexdigest()))
    return tuple(sets)


def test_swedish_scenes_have_their_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swedish(tmp_path / "sts")
    out = tmp_path / "signs"
    assert run(speed_limits, "swedish", tmp_path / "sts", "--out", out, "--reduce", 2) == 0
    assert records(out / "manifest.csv") == [
        {"path": "images/Set1/a.png", "label": "EMPTY", "split": "train"},
        {"path": "images/Set1/b.png", "label": "70", "split": "train"},
        {"path": "images/Set2/a.png", "label": "EMPTY", "split": "test"},
        {"path": "images/Set2/b.png", "label": "80", "split": "test"},
    ]
    assert read_manifest(out).open(3).size == (3, 4)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" is not the published file")[0] for line in said[:2]] == [
        f"foveate: warning: {tmp_path}/sts/Set{number}/annotations.txt" for number in (1, 2)
    ]
    assert said[-1] == "4/4 images written"


def test_swedish_scenes_are_fetched_first_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Path] = []

    def fetch(folder: Path, progress: object) -> None:
        fetched.append(folder)
        monkeypatch.setattr(swedish_signs, "SETS", swedish(folder))

    monkeypatch.setattr("foveate.datasets.published.download.download_swedish_signs", fetch)
    assert run(speed_limits, "swedish", "--download", "--out", tmp_path / "signs") == 0
    assert fetched == [tmp_path / "signs-published"]
    assert records(tmp_path / "signs" / "manifest.csv")[1]["path"] == "../signs-published/Set1/b.jpg"
    assert run(speed_limits, "swedish", tmp_path / "own", "--download", "--out", tmp_path / "more") == 0
    assert fetched[1] == tmp_path / "own"


def test_circuit_boards_come_as_files_with_their_defects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, out = write_deep_pcb(tmp_path / "deep"), tmp_path / "boards"
    words = (place, "--out", out, "--size", 120, 190, "--train", 24, "--test", 12, "--validation", 0.25, "--seed", 3)
    assert run(circuit_boards_action, *words) == 0
    assert capsys.readouterr().out == f"36 images; train on them with --data {out}/manifest.csv\n"
    settings = DataSettings(
        published=str(place), board=(120, 190), train_images=24, test_images=12, validation=0.25, generator_seed=3
    )
    made, data = circuit_boards(settings), read_manifest(out)
    assert records(out / "manifest.csv")[0].keys() == {"path", "label", "split"}
    for index, (one, other) in enumerate(zip(data.examples, made.examples, strict=True)):
        assert (one.id, one.split) == (f"images/{other.id}.png", other.split)
        assert data.classes[one.label] == made.classes[other.label]  # type: ignore[index]
        whole = Box(0, 0, 120, 190)
        np.testing.assert_array_equal(data.open(index).read(whole), made.open(index).read(whole))
    known = {f"images/{example.id}.png": made.objects(i) for i, example in enumerate(made.examples)}
    assert read_objects(out) == {path: objects for path, objects in known.items() if objects}
    with Image.open(out / "images" / "train-00000.png") as image:
        assert image.mode == "1"
    with pytest.raises(RunError, match=f"{out} is not empty: give another --out, or --resume to finish what was begun"):
        run(circuit_boards_action, *words)
    (out / "images" / "test-00003.png").unlink()
    assert run(circuit_boards_action, *words, "--resume") == 0
    assert len(read_manifest(out)) == 36
    with pytest.raises(RunError, match="was begun with generator_seed 3, not 4: give the same options to resume"):
        run(circuit_boards_action, *words, "--seed", 4, "--resume")


def test_circuit_boards_of_greys_keep_them(tmp_path: Path) -> None:
    place, out = write_deep_pcb(tmp_path / "deep", ending="jpg"), tmp_path / "boards"
    for file in place.rglob("*_te*.jpg"):
        Image.fromarray(np.asarray(Image.open(file)) // 2 + 9).save(file)
    assert run(circuit_boards_action, place, "--out", out, "--size", 50, 76, "--train", 4, "--test", 0) == 0
    made = circuit_boards(DataSettings(published=str(place), board=(50, 76), train_images=4, test_images=0))
    for index in range(4):
        pixels = read_manifest(out).open(index).read(Box(0, 0, 50, 76))
        np.testing.assert_array_equal(pixels, made.open(index).read(Box(0, 0, 50, 76)))
        assert len(np.unique(pixels)) > 2


def test_what_is_no_deep_pcb_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no folders of pairs of circuit boards, group\*/\*/ with pictures"):
        run(circuit_boards_action, tmp_path, "--out", tmp_path / "boards")
    assert not (tmp_path / "boards").exists()
