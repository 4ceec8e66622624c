"""Zarr at addresses: the pixels of the folder, and the promises that are made of files elsewhere."""

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyramid_files import sliced, values
from servers import FileServer
from zarr_files import write_zarr

from foveate.errors import ImageError
from foveate.images import Source, open_image
from foveate.images.io import network
from foveate.types import Box

zarr = pytest.importorskip("zarr")
pytest.importorskip("aiohttp")

ARRAYS = [values((101, 131), seed=1), values((51, 66), seed=2)]
SIDE = 160
"""Of the chunks of `large`, which are not packed: 25,600 bytes each, in two rows and three columns."""


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands between a test and its server, and nothing is waited for."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(network, "WAITS", (0.01, 0.02))


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder.parent).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


@pytest.fixture
def large(tmp_path: Path) -> Iterator[tuple[FileServer, np.ndarray]]:
    """A server of a plain array, a.zarr, and its pixels."""
    pixels = values((2 * SIDE, 3 * SIDE - 20), 1)
    target = zarr.create_array(
        tmp_path / "a.zarr", shape=pixels.shape[:2], chunks=(SIDE, SIDE), dtype="u1", compressors=None, fill_value=7
    )
    target[:] = pixels[:, :, 0]
    with FileServer(files_in(tmp_path / "a.zarr")) as server:
        yield server, pixels


def opened(server: FileServer) -> Source:
    source = open_image(server.address("a.zarr"))
    server.forget()
    return source


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_addresses_read_like_folders(version: str, ranges: bool, tmp_path: Path) -> None:
    files = files_in(write_zarr(tmp_path / "image.zarr", ARRAYS, "cyx", version))
    with FileServer(files, ranges=ranges) as server:
        source = open_image(server.address("image.zarr"))
        for level, array in enumerate(ARRAYS):
            for box in (Box(-3, -3, 20, 30), Box(30, 20, 40, 50)):
                np.testing.assert_array_equal(source.read(box, level), sliced(array, box))
        again = open_image(server.address("image.zarr/"), mpp=2.0)
        server.forget()
        counted = again.bytes_read
        again.read(Box(0, 0, 9, 9))
        assert (again.mpp, again.size) == (2.0, (101, 131))
        assert again.bytes_read - counted == server.sent > 0
        assert again.bytes_read < sum(map(len, files.values())) / 3
        with pytest.raises(ImageError, match=r"gone.zarr: no Zarr array or group there: check the path"):
            open_image(server.address("gone.zarr"))


def test_of_shards_the_index_and_the_chunks_are_asked_for(tmp_path: Path) -> None:
    files = files_in(write_zarr(tmp_path / "image.zarr", ARRAYS, "cyx", shards=True))
    with FileServer(files) as server:
        source = open_image(server.address("image.zarr"))
        for level, array in enumerate(ARRAYS):
            for box in (Box(0, 0, 9, 9), Box(0, 0, 101, 131).within(0, 0, *array.shape[:2]), Box(40, 30, 9, 8)):
                assert box is not None
                np.testing.assert_array_equal(source.read(box, level), sliced(array, box))
        source = open_image(server.address("image.zarr"))
        before = source.bytes_read
        server.forget()
        source.read(Box(0, 0, 9, 9))
        assert source.bytes_read - before == server.sent < 4000 < len(files["image.zarr/0/c/0/0/0"])
        server.version = '"two"'
        with pytest.raises(ImageError, match=r"/0/c/./0/0: the file has changed since it was opened: open the image"):
            source.read(Box(32, 24, 9, 9))
        server.ranges = False
        with pytest.raises(ImageError, match=r"the server does not send parts of files \(HTTP range requests\)"):
            open_image(server.address("image.zarr")).read(Box(0, 0, 9, 9))


def test_missing_chunks_hold_the_fill_value_and_are_missing_data(large: tuple[FileServer, np.ndarray]) -> None:
    server, pixels = large
    del server.files["a.zarr/c/0/1"]
    pixels[:SIDE, SIDE : 2 * SIDE] = 7
    [(read, missing)] = opened(server).read_known([Box(100, 100, 90, 120)])
    np.testing.assert_array_equal(read, np.where(missing, 0, sliced(pixels, Box(100, 100, 90, 120))))
    expected = np.zeros((90, 120, 1), np.bool_)
    expected[:60, 60:] = True
    np.testing.assert_array_equal(missing, expected)


def test_a_dropped_connection_is_taken_up_where_it_broke_off(large: tuple[FileServer, np.ndarray]) -> None:
    server, pixels = large
    source = opened(server)
    before = source.bytes_read
    server.drop_after, server.drops = 10_000, 2
    np.testing.assert_array_equal(source.read(Box(5, 9, 3, 11)), sliced(pixels, Box(5, 9, 3, 11)))
    assert [asked[2] for asked in server.requests] == [None, "bytes=10000-25599", "bytes=20000-25599"]
    assert source.bytes_read - before == server.sent == SIDE**2


def test_a_server_without_ranges_begins_again(large: tuple[FileServer, np.ndarray]) -> None:
    server, pixels = large
    source = opened(server)
    before = source.bytes_read
    server.ranges, server.drop_after, server.drops = False, 10_000, 2
    np.testing.assert_array_equal(source.read(Box(5, 9, 3, 11)), sliced(pixels, Box(5, 9, 3, 11)))
    assert source.bytes_read - before == server.sent == 20_000 + SIDE**2
    server.drops = 9
    with pytest.raises(ImageError, match=r"a.zarr/c/1/2: cannot be read \(the connection broke off, .*; asked 3 times"):
        source.read(Box(200, 400, 3, 11))
    assert server.drops == 6


@pytest.mark.parametrize("when", ["opening", "reading"])
def test_a_server_that_dawdles_is_given_up_for_zarr(
    when: str, large: tuple[FileServer, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then is an answer in time, each for itself."""
    server, _ = large
    source = opened(server) if when == "reading" else None
    monkeypatch.setattr(network, "TIMEOUT", 0.4)
    server.pace = (1, 0.1)
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"no answer in time, \d+ bytes of \d+ came; asked 3 times\): check the net"):
        open_image(server.address("a.zarr")) if source is None else source.read(Box(0, 0, 300, 400))
    assert time.monotonic() - started < 10


def test_a_server_that_is_slow_and_steady_is_waited_for_by_zarr(
    large: tuple[FileServer, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, pixels = large
    source = opened(server)
    monkeypatch.setattr(network, "TIMEOUT", 0.5)
    server.pace = (1500, 0.06)
    started = time.monotonic()
    np.testing.assert_array_equal(source.read(Box(5, 9, 3, 11)), sliced(pixels, Box(5, 9, 3, 11)))
    assert time.monotonic() - started > 1, "longer than the server may say nothing"
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again_and_then_given_up(large: tuple[FileServer, np.ndarray]) -> None:
    server, pixels = large
    server.failing = 2
    source = opened(server)
    server.failing = 2
    np.testing.assert_array_equal(source.read(Box(5, 9, 3, 11)), sliced(pixels, Box(5, 9, 3, 11)))
    server.failing = 3
    with pytest.raises(ImageError) as caught:
        source.read(Box(5, 309, 3, 11))
    assert str(caught.value) == (
        f"{server.address('a.zarr')}/c/0/1: cannot be read (the server answers 503 Service Unavailable; asked 3 times):"
        " check the network, or try again later"
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the server refuses it (401): check the address and who may read it"),
        (403, "the server refuses it (403): check the address and who may read it"),
        (410, "no such file there (410): check the address"),
        (418, "the server answers 418 I'm a Teapot: check the address"),
    ],
)
def test_refusals_are_said_at_once_in_one_line(status: int, said: str, large: tuple[FileServer, np.ndarray]) -> None:
    server, pixels = large
    source = opened(server)
    server.status = {"a.zarr/c/1/2": status}
    with pytest.raises(ImageError) as caught:
        source.read(Box(200, 400, 3, 11))
    assert str(caught.value) == f"{server.address('a.zarr')}/c/1/2: {said}"
    assert len(server.requests) == 1
    np.testing.assert_array_equal(source.read(Box(5, 9, 3, 11)), sliced(pixels, Box(5, 9, 3, 11)))
    server.status = {"a.zarr/zarr.json": status}
    with pytest.raises(ImageError) as caught:
        open_image(server.address("a.zarr"))
    assert str(caught.value) == f"{server.address('a.zarr')}/zarr.json: {said}"


def test_a_store_that_refuses_what_is_not_there_is_read(tmp_path: Path) -> None:
    """S3 answers 403 for what is not there, to whoever may not list a bucket."""
    files = files_in(write_zarr(tmp_path / "image.zarr", ARRAYS, "cyx", "0.4"))
    with FileServer(files, status={"image.zarr/zarr.json": 403, "image.zarr/.zarray": 403}) as server:
        source = open_image(server.address("image.zarr"))
        np.testing.assert_array_equal(source.read(Box(7, 5, 9, 30)), sliced(ARRAYS[0], Box(7, 5, 9, 30)))


def test_an_unknown_host_and_a_closed_port_are_one_line() -> None:
    with pytest.raises(ImageError, match=r"a.zarr/zarr.json: cannot be read \(no connection to .*; asked 3 times\)"):
        open_image("http://127.0.0.1:9/a.zarr")
    with pytest.raises(ImageError, match=r"addresses of images begin with one of http://, https://, s3://, got gs://"):
        open_image("gs://bucket/a.zarr")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_addresses_are_read_in_a_forked_process(large: tuple[FileServer, np.ndarray]) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    server, pixels = large
    source = opened(server)
    np.testing.assert_array_equal(source.read(Box(5, 9, 3, 11)), sliced(pixels, Box(5, 9, 3, 11)))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        read = pool.apply_async(source.read, (Box(200, 300, 20, 70),)).get(timeout=60)
    np.testing.assert_array_equal(read, sliced(pixels, Box(200, 300, 20, 70)))


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(ImageError) as caught:
        open_image("https://127.0.0.1/a.zarr")
    assert str(caught.value) == (
        "https://127.0.0.1/a.zarr/zarr.json: reading from the network needs aiohttp: pip install 'foveate[remote]'"
    )
