"""Decoded once, seen once: images are not looked at again from epoch to epoch, nor in the next run."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import missing
import numpy as np
import pytest
from PIL import Image
from servers import FileServer
from tiffs import noise, write_pyramid

from foveate.cache import DECODED, OVERHEAD, TILES
from foveate.config.augment import AugmentSettings
from foveate.config.settings import DataSettings, GuideSettings, InputSettings, ViewSettings
from foveate.datasets.manifest.dataset import read_manifest
from foveate.datasets.types import Example
from foveate.disk_cache import RECENT, DiskCache, cache_folder
from foveate.errors import Interrupted
from foveate.images import ArraySource, Canvas, Masked, PillowSource, Source, open_image, open_zip_member, original
from foveate.images.formats import pillow
from foveate.images.formats.tiled import TiledSource
from foveate.images.tensors import make_view
from foveate.models import Intake
from foveate.models.preprocess import make_guide
from foveate.pipeline import source_cache
from foveate.pipeline.loader import Loader, LoadOptions, shares
from foveate.pipeline.source_cache import CachedViews, SourceCache, memory_limits, open_disk_cache
from foveate.training.loop import train
from foveate.training.progress import SilentProgress
from foveate.training.run_folder import read_metrics
from foveate.types import Box, Size

VIEW = ViewSettings(longest_side=20)
KINDS = ("off", "memory", "disk")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was decoded."""
    found: Counter[str] = Counter()
    decode = pillow.PillowSource._decode

    def counted(self: PillowSource) -> np.ndarray:
        found[Path(self.name).name] += 1
        return decode(self)

    monkeypatch.setattr(pillow.PillowSource, "_decode", counted)
    return found


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How many tiles of which level were decoded, and nothing stays in memory of them."""
    found: Counter[int] = Counter()
    count = TiledSource._check

    def counted(self: TiledSource, level: int, names: Sequence[tuple[int, int]], tiles: Sequence[np.ndarray]) -> None:
        found[level] += len(names)
        count(self, level, names, tiles)

    monkeypatch.setattr(TiledSource, "_check", counted)
    monkeypatch.setattr(TILES, "limit", 1)
    return found


class Images:
    """Data set of what a function opens."""

    classes, multi_label = ("a", "b"), False

    def __init__(self, opens: Sequence[Callable[[], Source]]) -> None:
        self.opens, self.opened = opens, Counter[int]()
        self.examples = tuple(Example(f"{number}", number % 2, "train") for number in range(len(opens)))

    def open(self, index: int) -> Source:
        self.opened[index] += 1
        return self.opens[index]()


def scene(number: int, size: Size = (61, 83)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A manifest of nine small files that are decoded whole: PNG of several kinds, a turned one, and a JPEG."""
    rows = ["path,label,split"]
    for number in range(9):
        pixels, name = scene(number, (60 + number, 80)), f"{number}.png"
        options: dict[str, Any] = {}
        if number == 1:
            pixels = pixels[:, :, 0]
        if number == 2:
            pixels = pixels[:, :, 0].astype(np.uint16) * 257
        if number == 4:
            name = "4.jpg"
        if number == 3:
            exif = Image.Exif()
            exif[0x0112] = 6
            options["exif"] = exif
        Image.fromarray(pixels).save(tmp_path / name, **options)
        rows.append(f"{name},{number % 2},{'validation' if number > 6 else 'train'}")
    manifest = tmp_path / "images.csv"
    manifest.write_text("\n".join(rows))
    return manifest


def settings_for(settings_of: Callable[..., Any], manifest: Path, cache: str, **changes: Any) -> Any:
    data = {"source": "manifest", "manifest": str(manifest), "cache": cache}
    training = {"epochs": 3, "batch": 4, "log_every": 1, "learning_rate": 5e-3}
    return settings_of(data=data, training=training, **{"model": {"input": {"colour": "rgb"}}, **changes})


def losses(out: Path) -> list[Any]:
    return [
        (record["kind"], record.get("loss"), record.get("training_loss"), record.get("validation_loss"))
        for record in read_metrics(out / "metrics.jsonl")
    ]


@pytest.mark.parametrize("normalise", ["none", "bands"])
def test_every_file_is_decoded_once_in_a_run_and_never_in_the_next(
    photographs: Path, settings_of: Callable[..., Any], tmp_path: Path, decoded: Counter[str], normalise: str
) -> None:
    changes = {"model": {"input": {"colour": "rgb", "normalise": normalise}}}
    settings = settings_for(settings_of, photographs, "disk", **changes)
    assert settings.augment.translate != (0, 0), "views are moved, and made of the pixels"
    train(settings, tmp_path / "first", progress=SilentProgress())
    assert dict(decoded) == {path.name: 1 for path in tmp_path.glob("?.*g")}
    assert len(decoded) == 9
    decoded.clear()
    train(settings, tmp_path / "second", progress=SilentProgress())
    assert not decoded
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
    assert len(losses(tmp_path / "first")) == 9


@pytest.mark.one_in(3)
@pytest.mark.parametrize("normalise", ["none", "image", "bands"])
def test_runs_are_equal_to_the_bit_whatever_is_kept(
    photographs: Path, settings_of: Callable[..., Any], tmp_path: Path, normalise: str
) -> None:
    changes = {"model": {"input": {"colour": "rgb", "normalise": normalise, "guide": {"tissue": "prior"}}}}
    found = {}
    for kind in (*KINDS, "again"):
        cache = "disk" if kind == "again" else kind
        train(settings_for(settings_of, photographs, cache, **changes), tmp_path / kind, progress=SilentProgress())
        found[kind] = losses(tmp_path / kind)
    assert found["off"] == found["memory"] == found["disk"] == found["again"]


class StopAtTheThird(SilentProgress):
    """Ctrl-C at the third step."""

    def step(self, record: dict[str, Any]) -> None:
        if record["step"] == 3:
            signal.raise_signal(signal.SIGINT)


def test_a_run_goes_on_with_another_cache(photographs: Path, settings_of: Callable[..., Any], tmp_path: Path) -> None:
    settings = settings_for(settings_of, photographs, "disk")
    whole = train(settings, tmp_path / "whole", progress=SilentProgress())
    with pytest.raises(Interrupted):
        train(settings, tmp_path / "parts", progress=StopAtTheThird())
    other = replace(settings, data=replace(settings.data, cache="off", memory_gigabytes=0.0, tile_gigabytes=0.0))
    train(other, tmp_path / "parts", progress=SilentProgress(), resume=True)
    assert whole.steps == 6
    assert losses(tmp_path / "whole")[-3:] == losses(tmp_path / "parts")[-3:]


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_no_tile_is_decoded_for_a_view_a_second_time(tmp_path: Path, tiles: Counter[int], kind: str) -> None:
    opens = []
    for number in range(2):
        write_pyramid(tmp_path / f"{number}.tif", noise(300, 400, seed=number), levels=2, tile=(64, 64))
        opens.append(lambda number=number: open_image(tmp_path / f"{number}.tif"))
    images = Images(opens)
    cache = SourceCache.of_settings(images, Intake(InputSettings(), 3), DataSettings(cache=kind))
    loader = Loader(
        images,
        VIEW,
        1,
        augment=AugmentSettings(flip=True, turn=True, gain=(0.9, 1.1)),
        loading=LoadOptions(2, opened=cache),
    )
    list(loader.training(1, shares(range(2), 2)))
    assert tiles.total() > 0
    tiles.clear()
    list(loader.training(2, shares(range(2), 2)))
    assert not tiles
    assert images.opened.total() == 2
    cache = SourceCache.of_settings(images, Intake(InputSettings(), 3), DataSettings(cache=kind))
    list(Loader(images, VIEW, 1, loading=LoadOptions(2, opened=cache)).evaluation(shares(range(2), 2)))
    assert bool(tiles) == (kind == "memory"), "the next run finds it on the disk"


def test_a_shift_is_made_of_the_pixels(tmp_path: Path) -> None:
    pixels = scene(0)
    plain, cache = ArraySource(pixels), SourceCache(Images([lambda: ArraySource(pixels)]), views=True)
    region = (3, -4, 50, 70)
    assert np.array_equal(cache.open(0).view((9, 11), region), plain.view((9, 11), region))
    assert np.array_equal(cache.open(0).view((9, 11)), plain.view((9, 11)))
    assert np.array_equal(
        cache.open(0).average_of((9, 11), (0, 0, 61, 83), Box(1, 2, 30, 40))[0],
        plain.average_of((9, 11), (0, 0, 61, 83), Box(1, 2, 30, 40))[0],
    )


@pytest.mark.parametrize("views", [False, True])
def test_averages_of_the_whole_are_rounded_whether_kept_or_not(views: bool) -> None:
    pixels = scene(1)
    source = SourceCache(Images([lambda: ArraySource(pixels)]), views=views).open(0)
    whole, _ = source.average_of((7, 9), (0, 0, 61, 83), Box(0, 0, 61, 83))
    exact, _ = ArraySource(pixels).average_of((7, 9), (0, 0, 61, 83), Box(0, 0, 61, 83))
    assert np.array_equal(whole, exact.astype(np.float32).astype(np.float64))
    assert not np.array_equal(whole, exact)


def test_a_view_is_the_callers_own() -> None:
    source = SourceCache(Images([lambda: ArraySource(scene(1))]), views=True).open(0)
    first = source.view((7, 9))
    kept = first.copy()
    first[:] = -1
    source.average_of((7, 9), (0, 0, 61, 83), Box(0, 0, 61, 83))[0][:] = -1
    assert np.array_equal(source.view((7, 9)), kept)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_kept_with_the_view(tmp_path: Path, kind: str) -> None:
    pixels = np.where(np.arange(83)[:, None] < 50, np.uint8(0), scene(1))
    write = missing.tiff(tmp_path / "a.tif", pixels, 0)
    settings = DataSettings(cache=kind, cache_folder=str(tmp_path / "cache"))  # type: ignore[arg-type]
    plain, told = open_image(write), []
    for _ in range(2):
        cache = SourceCache.of_settings(Images([lambda: open_image(write)]), None, settings)
        for _ in range(2):
            source = cache.open(0)
            assert np.array_equal(source.view((7, 9)), plain.view((7, 9)))
            assert np.array_equal(source.valid((7, 9)), plain.valid((7, 9)))  # type: ignore[arg-type]
            assert np.array_equal(source.guide((7, 9)), plain.guide((7, 9)))  # type: ignore[arg-type]
            told.append(source.average_of((7, 9), (0, 0, 61, 83), Box(0, 0, 61, 83))[1])
    assert all(np.array_equal(one, told[0]) for one in told)
    assert told[0].min() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_guides_and_masks_are_found_once_and_none_stays_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pixels = np.full((60, 80, 3), 230, np.uint8)
    pixels[10:40, 20:60] = (180, 80, 150)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(np.full((60, 80, 3), 230, np.uint8)).save(tmp_path / "1.png")
    images = Images(
        [
            lambda: Masked(PillowSource(tmp_path / "0.png"), tmp_path / "mask.png"),
            lambda: PillowSource(tmp_path / "1.png"),
        ]
    )
    intake = Intake(InputSettings(guide=GuideSettings(tissue="prior")), 3)
    calls = Counter[str]()
    from foveate.images.wrappers import guide

    find = guide.find_tissue
    monkeypatch.setattr(guide, "find_tissue", lambda *view: calls.update(["tissue"]) or find(*view))
    expected = [make_guide(intake(images.open(index)), VIEW) for index in range(2)]
    assert expected[0] is not None
    assert expected[1] is None
    calls.clear()
    for _ in range(2):
        cache = SourceCache.of_settings(images, intake, DataSettings(cache=kind))
        for _ in range(3):
            first, second = (make_guide(cache.open(index), VIEW) for index in range(2))
            assert first is not None
            assert first.equal(expected[0])
            assert second is None
    assert calls["tissue"] == {"off": 12, "memory": 4, "disk": 2}[kind]


def test_a_changed_mask_or_file_is_looked_at_again(tmp_path: Path, decoded: Counter[str]) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(scene(0)).save(path)

    def seen() -> np.ndarray:
        cache = SourceCache.of_settings(Images([lambda: PillowSource(path)]), None, DataSettings())
        source = cache.open(0)
        return np.concatenate([source.view((4, 5)).ravel(), source.read(Box(1, 2, 3, 4)).ravel()])

    first = seen()
    assert np.array_equal(seen(), first)
    assert decoded["a.png"] == 1
    changed = scene(0)
    changed[:] = 255 - changed
    Image.fromarray(changed).save(path)
    assert not np.array_equal(seen(), first)
    assert decoded["a.png"] == 2
    os.utime(path, (1, 1))
    seen()
    assert decoded["a.png"] == 3, "its time has changed, and who knows what else"


def test_a_file_that_changes_while_it_is_decoded_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(scene(0)).save(path)
    decode = PillowSource._decode

    def replaced(self: PillowSource) -> np.ndarray:
        pixels = decode(self)
        os.utime(path, (1, 1))
        return pixels

    monkeypatch.setattr(PillowSource, "_decode", replaced)
    disk = DiskCache(tmp_path / "cache", 10**9)
    source = SourceCache(Images([lambda: PillowSource(path)]), disk=disk).open(0)
    source.read(Box(0, 0, 3, 4))
    assert disk.size() == 0


def test_images_in_archives_are_decoded_once_too(tmp_path: Path, decoded: Counter[str]) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for number in range(2):
            Image.fromarray(scene(number)).save(tmp_path / "one.png")
            archive.write(tmp_path / "one.png", f"in/{number}.png")
    images = Images(
        [lambda number=number: open_zip_member(tmp_path / "all.zip", f"in/{number}.png") for number in range(2)]
    )
    for _ in range(2):
        cache = SourceCache.of_settings(images, None, DataSettings())
        for number in range(2):
            assert np.array_equal(cache.open(number).read(Box(1, 2, 30, 40)), scene(number)[1:31, 2:42])
    assert dict(decoded) == {"0.png": 1, "1.png": 1}


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_pixels_of_the_disk_are_the_decoded_ones(tmp_path: Path, mode: str, turn: int) -> None:
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[0x0112] = turn
    pixels = scene(turn) if mode == "RGB" else scene(turn)[:, :, 0]
    Image.fromarray(pixels.astype(np.uint16) * 251 if mode == "I;16" else pixels).save(path, exif=exif)
    plain, box = PillowSource(path), Box(-3, 5, 40, 50)
    disk = DiskCache(tmp_path / "cache", 10**9)
    for _ in range(2):
        source = PillowSource(path)
        source.disk = disk
        assert source.threaded
        for _ in range(2):
            found = source.read(box)
            assert found.dtype == plain.read(box).dtype
            assert np.array_equal(found, plain.read(box))
            found[:] = 0
        assert np.array_equal(source.view((7, 9)), plain.view((7, 9)))
        assert not source.threaded
        copy = pickle.loads(pickle.dumps(source))
        assert np.array_equal(copy.read(box), plain.read(box))
    assert source.bytes_read == 0, "nothing of the file but its header"


def test_pixels_of_the_disk_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(scene(0, (300, 400))).save(path)
    held = DECODED.memory
    source = PillowSource(path)
    source.disk = DiskCache(tmp_path / "cache", 10**9)
    source.read(Box(0, 0, 30, 40))
    assert DECODED.memory == held


@pytest.mark.parametrize("harm", ["cut", "emptied", "removed", "replaced"])
def test_harm_to_a_file_of_the_cache_ends_no_run(tmp_path: Path, harm: str) -> None:
    """A memory map of such a file would end the process (SIGBUS)."""
    path = tmp_path / "a.png"
    Image.fromarray(scene(0, (300, 400))).save(path)
    disk = DiskCache(tmp_path / "cache", 10**9)
    source = PillowSource(path)
    source.disk = disk
    source.read(Box(0, 0, 30, 40))
    source.read(Box(0, 0, 30, 40))
    (kept,) = (tmp_path / "cache").rglob("*.npy")
    if harm == "removed":
        kept.unlink()
    elif harm == "replaced":
        np.save(kept, np.zeros((30, 400, 3), np.uint8))
    else:
        os.truncate(kept, 5000 if harm == "cut" else 0)
    assert np.array_equal(source.read(Box(200, 3, 90, 40)), scene(0, (300, 400))[200:290, 3:43])
    assert np.array_equal(source.view((3, 4)), PillowSource(path).view((3, 4)))


@pytest.mark.parametrize("limit", [0, 1000])
def test_what_the_disk_does_not_take_stays_in_memory(tmp_path: Path, decoded: Counter[str], limit: int) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(scene(0)).save(path)
    source = PillowSource(path)
    source.disk = DiskCache(tmp_path / "cache", limit)
    for _ in range(3):
        assert np.array_equal(source.read(Box(0, 0, 30, 40)), scene(0)[:30, :40])
    assert decoded["a.png"] == 1


def test_a_large_image_gives_its_memory_back(tmp_path: Path) -> None:
    for name, size in (("large", (900, 1000)), ("small", (60, 80))):
        Image.fromarray(scene(0, size)).save(tmp_path / f"{name}.png")
    data = DataSettings(cache="off", memory_gigabytes=1e-4)
    with memory_limits(data):
        assert DECODED.limit == 10**5
        images = Images([lambda: PillowSource(tmp_path / "large.png"), lambda: PillowSource(tmp_path / "small.png")])
        cache = SourceCache.of_settings(images, None, data)
        cache.open(0).read(Box(0, 0, 30, 40))
        assert DECODED.memory > 900 * 1000 * 3
        cache.open(1).read(Box(0, 0, 30, 40))
        assert DECODED.memory <= 10**5
    assert DECODED.limit > 10**5


def test_views_give_way_in_memory_and_are_found_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DECODED, "limit", DECODED.memory)
    for number in range(4):
        Image.fromarray(scene(number)).save(tmp_path / f"{number}.png")
    images = Images([lambda number=number: PillowSource(tmp_path / f"{number}.png") for number in range(4)])
    each = 15 * 20 * 3 * 4 + OVERHEAD
    with memory_limits(DataSettings(memory_gigabytes=2 * each / 1e9)):
        cache = SourceCache.of_settings(images, None, DataSettings())
        views = [make_view(cache.open(number), VIEW) for number in range(4)]
        assert DECODED.memory <= 2 * each
        monkeypatch.setattr(PillowSource, "average_of", None)  # nothing is averaged again
        assert all(make_view(cache.open(number), VIEW).equal(views[number]) for number in range(4))


def test_canvases_and_arrays_are_kept_in_memory_alone() -> None:
    drawn = Counter[str]()

    def stamps() -> np.ndarray:
        drawn.update(["canvas"])
        return np.full((1, 3, 4), 200, np.uint8)

    images = Images([lambda: Canvas(stamps, np.array([[4, 5]]), (60, 80), name="0"), lambda: ArraySource(scene(1))])
    disk = open_disk_cache(DataSettings())
    assert disk is not None
    cache = SourceCache(images, views=True, disk=disk)
    for _ in range(3):
        for number in range(2):
            make_view(cache.open(number), VIEW)
            cache.open(number).read(Box(0, 0, 9, 9))
    assert drawn["canvas"] == 1, "its strokes are drawn once"
    assert dict(images.opened) == {0: 1, 1: 6}, "arrays are not held"
    assert len(cache) == 1
    assert disk.size() == 0


def test_open_images_take_so_many_bytes_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pyramid(tmp_path / "a.tif", noise(300, 400), levels=2, tile=(64, 64))
    images = Images([lambda: open_image(tmp_path / "a.tif")] * 9)
    cache = SourceCache(images)
    each = source_cache.OPEN_LEAST + source_cache.PER_TILE * (5 * 7 + 3 * 4)
    monkeypatch.setattr(source_cache, "OPEN_BYTES", 4 * each)
    for index in range(9):
        cache.open(index)
    assert len(cache) == 4
    assert cache.open(8) is cache.open(8)
    monkeypatch.setattr(source_cache, "OPEN_BYTES", 1)
    cache.open(0)
    assert len(cache) == 1


def test_no_image_is_opened_twice_at_a_time(tmp_path: Path, decoded: Counter[str]) -> None:
    for number in range(3):
        Image.fromarray(scene(number)).save(tmp_path / f"{number}.png")

    def slow(number: int) -> Source:
        time.sleep(0.05)
        return PillowSource(tmp_path / f"{number}.png")

    images = Images([lambda number=number: slow(number) for number in range(3)])
    cache = SourceCache.of_settings(images, None, DataSettings())
    found: list[tuple[int, Source, np.ndarray, np.ndarray]] = []

    def work(number: int) -> None:
        source = cache.open(number)
        found.append((number, source, source.view((4, 5)), source.read(Box(1, 2, 30, 40))))

    threads = [threading.Thread(target=work, args=(number % 3,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(images.opened) == dict.fromkeys(range(3), 1)
    assert len({id(source) for _, source, _, _ in found}) == 3
    assert dict(decoded) == {f"{number}.png": 1 for number in range(3)}
    for number, _, view, pixels in found:
        assert np.array_equal(view, ArraySource(scene(number)).view((4, 5)))
        assert np.array_equal(pixels, scene(number)[1:31, 2:42])


def test_a_damaged_cache_and_one_that_cannot_be_written_change_nothing(
    photographs: Path, settings_of: Callable[..., Any], tmp_path: Path
) -> None:
    settings = settings_for(settings_of, photographs, "disk")
    train(settings, tmp_path / "plain", progress=SilentProgress())
    for number, path in enumerate(sorted((cache_folder() / "images").rglob("*.npy"))):
        path.write_bytes(path.read_bytes()[: [0, 50, 200][number % 3]])
    train(settings, tmp_path / "damaged", progress=SilentProgress())
    (tmp_path / "in the way").touch()
    nowhere = replace(settings, data=replace(settings.data, cache_folder=str(tmp_path / "in the way")))
    train(nowhere, tmp_path / "nowhere", progress=SilentProgress())
    assert losses(tmp_path / "plain") == losses(tmp_path / "damaged") == losses(tmp_path / "nowhere")


def test_the_folder_and_its_limit_are_settings(
    photographs: Path, settings_of: Callable[..., Any], tmp_path: Path
) -> None:
    limit = 20_000
    data = {
        "source": "manifest",
        "manifest": str(photographs),
        "cache_folder": str(tmp_path / "mine"),
        "cache_gigabytes": limit / 1e9,
    }
    settings = settings_of(data=data, training={"epochs": 1, "batch": 4}, model={"input": {"colour": "rgb"}})
    train(settings, tmp_path / "run", progress=SilentProgress())
    taken = sum(path.stat().st_size for path in (tmp_path / "mine").rglob("*") if path.is_file())
    assert 0 < taken <= limit
    assert not (cache_folder() / "images").exists()
    for path in (tmp_path / "mine").rglob("*.npy"):
        os.utime(path, (time.time() - 2 * RECENT,) * 2)
    disk = open_disk_cache(settings.data)
    assert disk is not None
    assert disk.write(("new",), np.zeros(10_000, np.uint8)), "the old ones make room"
    assert open_disk_cache(replace(settings.data, cache="memory")) is None


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    Image.fromarray(scene(0)).save(tmp_path / "a.png")
    images = Images([lambda: PillowSource(tmp_path / "a.png")])
    counts = []
    for _ in range(2):
        source = SourceCache.of_settings(images, None, DataSettings()).open(0)
        for _ in range(2):
            source.view((4, 5))
            source.read(Box(1, 2, 3, 4))
        counts.append(source.bytes_read)
    assert counts == [(tmp_path / "a.png").stat().st_size, 0]
    assert isinstance(original(source), PillowSource)
    assert isinstance(source, CachedViews)


def test_manifests_are_opened_likewise(photographs: Path) -> None:
    cache = SourceCache.of_settings(read_manifest(photographs), None, DataSettings())
    assert isinstance(original(cache.open(0)), PillowSource)
    assert len(cache) == 1


def _train(settings: Any, out: Path) -> None:
    train(settings, out, progress=SilentProgress())


@pytest.mark.parametrize("version", ['"one"', ""])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_images_elsewhere_are_kept_where_the_server_tells_their_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, name: str
) -> None:
    pytest.importorskip("aiohttp")
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    for number in range(2):
        pixels = scene(number, (150, 200))
        if name == "a.png":
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        else:
            write_pyramid(tmp_path / f"{number}.tif", pixels, levels=1, tile=(64, 64))
    first, second = ((tmp_path / f"{number}{Path(name).suffix}").read_bytes() for number in range(2))

    with FileServer({name: first}, version=version) as server:

        def seen() -> np.ndarray:
            images = Images([lambda: open_image(server.address(name))])
            return SourceCache.of_settings(images, None, DataSettings()).open(0).view((7, 9))

        before = seen()
        made = Counter[str]()
        for kind in (PillowSource, TiledSource):
            average = kind.average_of
            monkeypatch.setattr(
                kind, "average_of", lambda self, *how, average=average: made.update(["view"]) or average(self, *how)
            )
        assert np.array_equal(seen(), before)
        assert made["view"] == (0 if version else 1)
        server.files[name], server.version = second, version and '"two"'
        assert not np.array_equal(seen(), before)


@pytest.mark.slow
def test_two_runs_at_once_share_what_they_keep(
    photographs: Path, settings_of: Callable[..., Any], tmp_path: Path
) -> None:
    settings, method = settings_for(settings_of, photographs, "disk"), multiprocessing.get_context("spawn")
    runs = [method.Process(target=_train, args=(settings, tmp_path / name)) for name in ("one", "two")]
    for run in runs:
        run.start()
    for run in runs:
        run.join(300)
        assert run.exitcode == 0
    _train(settings, tmp_path / "after")
    assert losses(tmp_path / "one") == losses(tmp_path / "two") == losses(tmp_path / "after")
    assert all(path.suffix == ".npy" for path in (cache_folder() / "images").rglob("*.*"))
