import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from archives import damage
from PIL import Image
from scipy.io import savemat

from foveate.config.settings import DataSettings
from foveate.datasets import colon_cancer, fill_splits, open_dataset
from foveate.errors import DataError
from foveate.types import Box

PUBLISHED = "CRCHistoPhenotypes_2016_04_28"
REAL = Path(__file__).parents[4] / "shared" / "data" / f"{PUBLISHED}.zip"
KINDS = ("epithelial", "fibroblast", "inflammatory", "others")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published layout, of small images; number n has n % 3 epithelial nuclei."""
    root = tmp_path_factory.mktemp("colon") / PUBLISHED
    for number in range(1, 101):
        folder = root / "Classification" / f"img{number}"
        folder.mkdir(parents=True)
        Image.new("RGB", (9, 6), (number, 0, 255)).save(folder / f"img{number}.bmp")
        for k, kind in enumerate(KINDS):
            points = np.array([[number / 20, k], [8, 5.5]])[: number % 3 if k == 0 else k]
            savemat(folder / f"img{number}_{kind}.mat", {"detection": points.reshape(-1, 2)}, do_compression=True)
    (root / "Readme.txt").write_text("100 images")
    (root / "Detection" / "img1").mkdir(parents=True)
    savemat(root / "Detection" / "img1" / "img1_detection.mat", {"detection": np.ones((3, 2))})
    return root


def pack(root: Path, archive: Path, extra: tuple[str, ...] = ()) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(root.rglob("*")):
            packed.write(file, file.relative_to(root.parent).as_posix())
        for name in extra:
            packed.writestr(name, "junk")
    return archive


@pytest.fixture(scope="session")
def archive(written: Path) -> Path:
    junk = (f"__MACOSX/{PUBLISHED}/Classification/img1/._img1.bmp", f"{PUBLISHED}/Classification/.DS_Store")
    return pack(written, written.parent / "published.zip", junk)


@pytest.fixture
def own(written: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(written, tmp_path / PUBLISHED)


@pytest.mark.parametrize("form", ["zip", "root", "Classification"])
def test_every_form_is_the_same_data(written: Path, archive: Path, form: str) -> None:
    data = colon_cancer({"zip": archive, "root": written, "Classification": written / "Classification"}[form])
    assert data.classes == ("none", "epithelial")
    assert not data.multi_label
    assert [e.id for e in data.examples] == [f"img{number}" for number in range(1, 101)]
    assert [e.label for e in data.examples] == [int(number % 3 > 0) for number in range(1, 101)]
    assert {(e.split, e.group) for e in data.examples} == {(None, None)}
    image = data.open(41)
    assert (image.size, image.channels) == ((6, 9), 3)
    np.testing.assert_array_equal(image.read(Box(5, 8, 1, 1)), [[[42, 0, 255]]])
    assert data.image_bytes(41) == (written / "Classification" / "img42" / "img42.bmp").read_bytes()


@pytest.mark.parametrize("form", ["zip", "root"])
def test_nuclei_are_rows_and_columns_of_the_type_asked_for(written: Path, archive: Path, form: str) -> None:
    data = colon_cancer(archive if form == "zip" else written)
    np.testing.assert_array_equal(data.nuclei(40), [[0, 2.05], [5.5, 8]])
    np.testing.assert_array_equal(data.nuclei(40, "inflammatory"), [[2, 2.05], [5.5, 8]])
    assert data.nuclei(2).shape == (0, 2)
    with pytest.raises(DataError, match="'malignant' is no type of nucleus that is marked here: use one of epithelial"):
        data.nuclei(0, "malignant")  # type: ignore[arg-type]


def test_what_macos_and_windows_leave_is_passed_over(own: Path) -> None:
    folder = own / "Classification"
    for name in (".DS_Store", "Thumbs.db", "img1/._img1.bmp", "img3/desktop.ini"):
        (folder / name).write_text("junk")
    (own / "__MACOSX").mkdir()
    assert len(colon_cancer(own)) == 100


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("img7/img7.bmp", r"lacks img7/img7\.bmp, of 500 files: get it again, in whole"),
        ("img100", r"lacks img100/img100\.bmp and 4 more, of 500 files"),
        ("img9/img9_others.mat", r"lacks img9/img9_others\.mat, of 500 files"),
    ],
)
def test_missing_files_are_named(own: Path, name: str, message: str) -> None:
    gone = own / "Classification" / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(DataError, match=f"^{own} {message}"):
        colon_cancer(own)
    with pytest.raises(DataError, match=rf"short\.zip lacks {PUBLISHED}/Classification/{name.split('/')[0]}/"):
        colon_cancer(pack(own, own.parent / "short.zip"))


def test_surplus_files_are_named(own: Path) -> None:
    (own / "Classification" / "img101").mkdir()
    (own / "Classification" / "img101" / "img101.bmp").touch()
    (own / "Classification" / "img2" / "img2 copy.bmp").touch()
    with pytest.raises(
        DataError, match=r"more than what was published: img2/img2 copy\.bmp and 1 more, of 500 files: remove what is"
    ):
        colon_cancer(own)


def test_wrong_folders_are_told_from_right_ones(own: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Detection holds the images as annotated for detection, whose .* folder Clas"):
        colon_cancer(own / "Detection")
    with pytest.raises(DataError, match=rf"is not the folder of the colon cancer images.*: give {own}$"):
        colon_cancer(tmp_path)
    with pytest.raises(DataError, match=f"img1 is not the folder .*: give the folder that {PUBLISHED}.zip unpacks to"):
        colon_cancer(own / "Classification" / "img1")
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / f"{PUBLISHED}.zip").touch()
    with pytest.raises(DataError, match=rf": give {beside}/{PUBLISHED}\.zip$"):
        colon_cancer(beside)
    with pytest.raises(
        DataError, match=rf"absent\.zip does not exist: give {PUBLISHED}\.zip, or the folder it unpacks"
    ):
        colon_cancer(tmp_path / "absent.zip")
    shutil.rmtree(own / "Classification")
    with pytest.raises(DataError, match=r"detection\.zip holds no folders named Classification, where the nuclei have"):
        colon_cancer(pack(own, tmp_path / "detection.zip"))


def test_a_cut_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.zip"
    cut.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(
        DataError, match=rf"cut\.zip is not a zip file, or is damaged \(BadZipFile .*\): get {PUBLISHED}"
    ):
        colon_cancer(cut)


@pytest.mark.parametrize("how", ["method", "encrypted"])
def test_an_archive_that_cannot_be_unpacked_is_refused(archive: Path, tmp_path: Path, how: str) -> None:
    spoilt = Path(shutil.copy(archive, tmp_path / "spoilt.zip"))
    damage(spoilt, how)
    with pytest.raises(DataError, match=r"img1_epithelial\.mat cannot be read \(.*\): get the data again$"):
        colon_cancer(spoilt)


@pytest.mark.parametrize("content", ["empty", "cut", "text", "other name", "other shape", "not finite"])
def test_a_damaged_file_of_nuclei_is_refused(own: Path, content: str) -> None:
    file = own / "Classification" / "img50" / "img50_epithelial.mat"
    whole = file.read_bytes()
    if content == "other name":
        savemat(file, {"detections": np.ones((3, 2))})
    elif content == "other shape":
        savemat(file, {"detection": np.ones((2, 3))})
    elif content == "not finite":
        savemat(file, {"detection": np.array([[1, np.nan]])})
    else:
        file.write_bytes({"empty": b"", "cut": whole[:-9], "text": b"x,y\n1,2\n" * 40}[content])
    with pytest.raises(
        DataError, match=r"^\S+img50_epithelial\.mat is not a file of nuclei, or is damaged .*again$"
    ) as e:
        colon_cancer(own)
    assert "\n" not in str(e.value)


def test_nuclei_that_only_judge_maps_are_read_when_asked_for(own: Path) -> None:
    (own / "Classification" / "img50" / "img50_others.mat").write_bytes(b"?")
    data = colon_cancer(own)
    with pytest.raises(DataError, match=r"img50_others\.mat is not a file of nuclei"):
        data.nuclei(49, "others")


def test_settings_open_it_and_hold_out_shares(archive: Path) -> None:
    settings = DataSettings(source="colon-cancer", published=str(archive), test=0.1, validation=0.1)
    data = open_dataset(settings, seed=2)
    assert Counter(e.split for e in data.examples) == {"train": 81, "test": 10, "validation": 9}
    assert list(data.examples) == fill_splits(colon_cancer(archive).examples, 0.1, 0.1, 2)
    assert data.open(0).size == (6, 9)


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL.name} is not beside the checkout")
def test_the_published_archive() -> None:
    data = colon_cancer(REAL)
    assert Counter(data.classes[e.label] for e in data.examples if isinstance(e.label, int)) == {
        "epithelial": 51,
        "none": 49,
    }
    assert data.open(99).size == (500, 500)
    assert data.open(99).read(Box(0, 0, 500, 500)).shape == (500, 500, 3)
    centres = [data.nuclei(i, kind) for i in range(100) for kind in KINDS]
    assert sum(map(len, centres)) == 22_444
    assert all(((points >= 0) & (points <= 500)).all() for points in centres)
    i = next(i for i, e in enumerate(data.examples) if e.label == 1)
    pixels = data.open(i).read(Box(0, 0, 500, 500)).astype(float)
    at = np.minimum(data.nuclei(i).astype(int), 499)
    # nuclei are stained dark; read as (column, row), they are no darker than the rest
    assert pixels[at[:, 0], at[:, 1]].mean() < pixels.mean() - 20
