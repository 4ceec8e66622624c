"""Files elsewhere, read from real servers on this machine."""

import multiprocessing
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from servers import FileServer

from foveate.errors import ImageError
from foveate.images.io import network
from foveate.images.io.local import stream
from foveate.images.io.open import open_bytes
from foveate.images.io.remote import AHEAD, GAP, RemoteFile

pytest.importorskip("aiohttp")

CONTENT = np.random.default_rng(8).integers(0, 256, 300_001, np.uint8).tobytes()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands between a test and its server, and nothing is waited for."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(network, "WAITS", (0.01, 0.02))


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"a.bin": CONTENT, "empty": b"", "small": CONTENT[:100]}) as running:
        yield running


class Counter:
    """Counts bytes, as a source does."""

    def __init__(self, file: Any) -> None:
        self.bytes = 0
        file.count = self

    def __call__(self, amount: int) -> None:
        self.bytes += amount


def test_any_part_is_what_the_file_holds(server: FileServer) -> None:
    file = open_bytes(server.address("a.bin"))
    assert isinstance(file, RemoteFile)
    size = len(CONTENT)
    assert file.size == size
    parts = [(0, 10), (size - 5, 100), (size, 4), (size + 9, 4), (AHEAD - 3, 6), (77_777, 0), (40_000, 90_000), (3, 1)]
    assert file.read_many(parts) == [CONTENT[offset : offset + length] for offset, length in parts]
    assert file.read(123_456, 789) == CONTENT[123_456 : 123_456 + 789]


def test_small_and_empty_files(server: FileServer) -> None:
    assert RemoteFile(server.address("small")).read(90, 100) == CONTENT[90:100]
    empty = RemoteFile(server.address("empty"))
    assert empty.size == 0
    assert empty.read(0, 10) == b""


def test_what_is_counted_is_what_the_server_sent(server: FileServer) -> None:
    file = RemoteFile(server.address("a.bin"))
    counter = Counter(file)
    _ = file.size
    assert server.sent == counter.bytes == AHEAD
    file.read(5, 1000)  # held already
    assert len(server.requests) == 1
    near, far = 50_000, 200_000
    file.read_many([(near, 100), (far, 100), (near + 50, 100), (near + 150 + GAP, 10), (far + 100 + GAP + 1, 7)])
    assert server.sent == counter.bytes == AHEAD + (160 + GAP) + 100 + 7
    assert len(server.requests) == 4


def test_headers_are_read_ahead(server: FileServer) -> None:
    file = RemoteFile(server.address("a.bin"))
    counter = Counter(file)
    with stream(file) as reader:
        assert [reader.read(2) for _ in range(300)] == [CONTENT[i : i + 2] for i in range(0, 600, 2)]
        reader.seek(-8, 2)
        assert reader.read() == CONTENT[-8:]
    assert len(server.requests) == 2
    assert counter.bytes == server.sent == AHEAD + 8


def test_parts_are_asked_for_at_the_same_time(server: FileServer) -> None:
    file = RemoteFile(server.address("a.bin"))
    _ = file.size
    server.delay = 0.1
    file.read_many([(offset, 10) for offset in range(20_000, 280_000, 20_000)])
    assert server.most_at_once > 4


def test_many_threads_read_the_same(server: FileServer) -> None:
    file = RemoteFile(server.address("a.bin"))
    counter = Counter(file)
    offsets = list(range(0, 300_000, 11_111))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda offset: file.read(offset, 500), offsets))
    assert read == [CONTENT[offset : offset + 500] for offset in offsets]
    assert counter.bytes == server.sent
    assert sum(asked[2] == f"bytes=0-{AHEAD - 1}" for asked in server.requests) == 1


def test_who_counts_may_hold_a_lock_that_a_reader_waits_for(server: FileServer) -> None:
    file = RemoteFile(server.address("a.bin"))
    lock = threading.RLock()

    def count(_: int) -> None:
        with lock:
            pass

    def read(offset: int) -> bytes:
        with lock:
            return file.read(offset, 10)

    file.count = count
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(read, 100_000 + i) for i in range(8)] + [pool.submit(file.read, i, 9) for i in range(8)]
        assert [len(future.result(timeout=20)) for future in futures] == [10] * 8 + [9] * 8


def test_can_be_pickled_before_and_after_reading(server: FileServer) -> None:
    file = RemoteFile(server.address("a.bin"))
    for _ in range(2):
        again = pickle.loads(pickle.dumps(file))
        assert again.read(100_000, 50) == CONTENT[100_000:100_050]
        file.read(0, 10)
    assert len(pickle.dumps(file)) < 1000
    server.forget()
    assert pickle.loads(pickle.dumps(file)).read(20, 30) == CONTENT[20:50]
    assert server.sent == 30  # what is known of the file was not asked for again


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_reads_in_another_process(method: str, server: FileServer) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    file = RemoteFile(server.address("a.bin"))
    assert file.read(60_000, 9) == CONTENT[60_000:60_009]  # connections and a thread are there
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(file.read, (70_000, 9)).get(timeout=60) == CONTENT[70_000:70_009]
    assert file.read(80_000, 9) == CONTENT[80_000:80_009]


def test_a_dropped_connection_is_taken_up_where_it_broke_off(server: FileServer) -> None:
    file = RemoteFile(server.address("a.bin"))
    counter = Counter(file)
    _ = file.size
    server.drop_after, server.drops = 30_000, 2
    assert file.read(100_000, 100_000) == CONTENT[100_000:200_000]
    assert [asked[2] for asked in server.requests[1:]] == [
        "bytes=100000-199999",
        "bytes=130000-199999",
        "bytes=160000-199999",
    ]
    assert counter.bytes == server.sent == AHEAD + 100_000


def test_a_busy_server_is_asked_again_and_then_given_up(server: FileServer) -> None:
    server.failing = 2
    assert RemoteFile(server.address("a.bin")).size == len(CONTENT)
    server.failing = 3
    address = server.address("a.bin")
    with pytest.raises(ImageError) as caught:
        _ = RemoteFile(address).size
    assert str(caught.value) == (
        f"{address}: cannot be read (the server answers 503 Service Unavailable; asked 3 times): "
        "check the network, or try again later"
    )


def test_what_was_transferred_in_vain_is_counted_too(server: FileServer) -> None:
    file = RemoteFile(server.address("a.bin"))
    counter = Counter(file)
    _ = file.size
    server.drop_after, server.drops = 1000, 99
    with pytest.raises(ImageError, match=r"the connection broke off, .*; asked 3 times\): check the network"):
        file.read(100_000, 100_000)
    assert counter.bytes == server.sent == AHEAD + 3000


def test_a_server_without_ranges_is_refused_before_it_sends_much(server: FileServer) -> None:
    server.ranges = False
    server.files["huge"] = bytes(64_000_000)
    address = server.address("huge")
    with pytest.raises(ImageError) as caught:
        _ = RemoteFile(address).size
    assert str(caught.value) == (
        f"{address}: the server does not send parts of files (HTTP range requests): "
        "copy the file to this machine, or put it on a server that does"
    )
    assert server.sent < 16_000_000  # what the sockets' buffers hold


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("missing", None, "no such file there (404): check the address"),
        ("a.bin", 403, "the server refuses it (403): check the address and who may read it"),
        ("a.bin", 418, "the server answers 418 I'm a Teapot: check the address"),
    ],
)
def test_refusals_are_one_line(path: str, status: int | None, said: str, server: FileServer) -> None:
    server.status = {} if status is None else {path: status}
    address = server.address(path)
    with pytest.raises(ImageError) as caught:
        RemoteFile(address).read(0, 10)
    assert str(caught.value) == f"{address}: {said}"
    assert len(server.requests) == 1


def test_a_silent_server_is_given_up(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TIMEOUT", 0.2)
    server.delay = 1.5
    with pytest.raises(ImageError, match=r"cannot be read \(no answer in time; asked 3 times\): check the network"):
        _ = RemoteFile(server.address("a.bin")).size


def test_a_server_that_dawdles_is_given_up(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is an answer in time, each for itself."""
    file = RemoteFile(server.address("a.bin"))
    _ = file.size
    monkeypatch.setattr(network, "TIMEOUT", 0.4)
    server.pace = (1, 0.1)
    started = time.monotonic()
    with pytest.raises(
        ImageError, match=r"no answer in time, \d+ bytes of 100000 came; asked 3 times\): check the net"
    ):
        file.read(100_000, 100_000)
    assert time.monotonic() - started < 10


def test_a_server_that_is_slow_and_steady_is_waited_for(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RemoteFile(server.address("a.bin"))
    _ = file.size
    monkeypatch.setattr(network, "TIMEOUT", 1.0)
    server.pace = (4000, 0.06)
    started = time.monotonic()
    assert file.read(100_000, 100_000) == CONTENT[100_000:200_000]
    assert time.monotonic() - started > 1.4, "longer than the server may say nothing"
    assert len(server.requests) == 2


def test_tries_are_counted_from_the_last_progress(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PROGRESS", 20_000)
    file = RemoteFile(server.address("a.bin"))
    _ = file.size
    server.drop_after, server.drops = 20_000, 7
    assert file.read(100_000, 160_000) == CONTENT[100_000:260_000]
    assert server.drops == 0


def test_what_is_not_encrypted_is_said_at_once(server: FileServer) -> None:
    address = server.address("a.bin").replace("http:", "https:")
    with pytest.raises(ImageError, match=r"no secure connection \(.*\): check the address and this machine's cert"):
        _ = RemoteFile(address).size
    assert server.requests == []


@pytest.mark.parametrize("number", network.NO_HOST)
def test_a_name_without_an_address_is_said_at_once(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "nothing known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ImageError, match=r"there is no host no-such-host\.example: check the address and the net"):
        _ = RemoteFile("http://no-such-host.example/a.tif").size


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ImageError, match=rf"cannot be read \(no connection to 127.0.0.1:{port}, .*; asked 3 times\)"):
        _ = RemoteFile(f"http://127.0.0.1:{port}/a").size


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ImageError) as caught:
        _ = RemoteFile("http://no-such-host.example/a.tif").size
    assert str(caught.value) == (
        "http://no-such-host.example/a.tif: there is no host no-such-host.example: check the address and the network"
    )


def test_an_impossible_address() -> None:
    with pytest.raises(ImageError, match=r"http://127\.0\.0\.1:port/a: not an address: check how it is written"):
        _ = RemoteFile("http://127.0.0.1:port/a").size


@pytest.mark.parametrize("change", ["version", "size"])
def test_a_file_that_changes_is_refused(change: str, server: FileServer) -> None:
    file = RemoteFile(server.address("a.bin"))
    _ = file.size
    if change == "version":
        server.version = '"two"'
    else:
        server.files["a.bin"] = CONTENT[:250_000]
    with pytest.raises(ImageError, match="the file has changed since it was opened: open the image again"):
        file.read(200_000, 10)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(ImageError) as caught:
        _ = RemoteFile("https://127.0.0.1/a.tif").size
    assert str(caught.value) == (
        "https://127.0.0.1/a.tif: reading from the network needs aiohttp: pip install 'foveate[remote]'"
    )
