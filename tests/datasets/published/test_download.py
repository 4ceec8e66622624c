import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from full_disk import limited
from PIL import Image

from foveate.datasets import swedish_traffic_signs
from foveate.datasets.published.download import download, download_swedish_signs
from foveate.datasets.published.swedish import PublishedSet
from foveate.errors import DataError, WriteError

CONTENT = bytes(range(256)) * 1500  # more than two of the chunks that are read at a time
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; can only begin at byte 0 unless `ranges`; each of `cuts` ends an answer after so many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/a.zip": CONTENT}
        self.ranges = True
        self.lengths = True
        self.shift = 0
        self.cuts: list[int] = []
        self.asked: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if server.ranges and asked:
            start = int(re.fullmatch(r"bytes=([0-9]+)-", asked)[1])  # type: ignore[index]
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            begin = start + server.shift
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if server.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("lengths", [True, False])
def test_a_file_arrives_whole_with_progress(server: Server, tmp_path: Path, lengths: bool) -> None:
    server.lengths = lengths
    seen: list[tuple[int, int]] = []
    file = download(f"{server.address}/a.zip", tmp_path / "new" / "a.zip", MD5, lambda *now: seen.append(now))
    assert file.read_bytes() == CONTENT
    assert [entry.name for entry in file.parent.iterdir()] == ["a.zip"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 2
    assert not lengths or {total for _, total in seen} == {len(CONTENT)}


@pytest.mark.parametrize("md5", [None, MD5])
def test_a_file_that_is_there_is_not_fetched(server: Server, tmp_path: Path, md5: str | None) -> None:
    (tmp_path / "a.zip").write_bytes(CONTENT)
    download(f"{server.address}/a.zip", tmp_path / "a.zip", md5)
    assert server.asked == []
    (tmp_path / "a.zip").write_bytes(b"mine")
    with pytest.raises(
        DataError, match=rf"a\.zip is not the published file \(its MD5 sum is \w+, not {MD5}\): remove it"
    ):
        download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5)
    assert (tmp_path / "a.zip").read_bytes() == b"mine"


def test_a_cut_connection_is_taken_up_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 7, 150_000]
    file = download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, pause=0)
    assert file.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=100007-", "bytes=250007-"]


def test_a_later_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.cuts = [70_000, 0, 0, 0]
    with pytest.raises(
        DataError,
        match=r"a\.zip could not be fetched \(the connection was cut after 70000 of 384000 bytes\): check the "
        r"connection and run this again, which goes on after 70000 bytes; or put the file at \S+/a\.zip yourself$",
    ):
        download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, pause=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip.partial"]
    seen: list[tuple[int, int]] = []
    download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, lambda *now: seen.append(now), pause=0)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=70000-"
    assert seen[0][0] > 70_000


def test_a_server_that_cannot_go_on_begins_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts = [100_000, 200_000]
    assert download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, pause=0).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_that_always_cuts_is_given_up(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts = [100_000] * 9
    with pytest.raises(DataError, match="the connection was cut after 100000 of 384000 bytes"):
        download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, pause=0)
    assert len(server.asked) == 4


def test_a_partial_file_that_is_whole_needs_nothing_more(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.partial").write_bytes(CONTENT)
    assert download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, pause=0).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_partial_file_that_is_too_long_is_begun_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.partial").write_bytes(CONTENT + b"?")
    assert download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, pause=0).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT) + 1}-", None]


def test_other_bytes_than_asked_for_are_not_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.partial").write_bytes(CONTENT[:1000])
    server.shift = 5
    assert download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, pause=0).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-", None]


def test_another_file_than_the_published_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"] = b"a page that says sorry"
    with pytest.raises(
        DataError, match=r"^http://\S+/a\.zip: what arrived is not the published file \(its MD5 sum is"
    ) as e:
        download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, pause=0)
    assert "\n" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_told(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"/b\.zip is refused by its server \(404 Not Found\): look for where it is published now, and put",
    ) as error:
        download(f"{server.address}/b.zip", tmp_path / "b.zip", pause=0)
    assert str(error.value).endswith(f"it at {tmp_path / 'b.zip'}")
    assert len(server.asked) == 1


def test_a_full_disk_is_no_fault_of_the_connection(server: Server, tmp_path: Path) -> None:
    with limited(len(CONTENT) // 2), pytest.raises(WriteError, match=r"a\.zip\.partial: cannot be written \(File too"):
        download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, pause=0.0)
    assert len(server.asked) == 1, "another attempt would not help"
    assert not (tmp_path / "a.zip").exists()
    assert download(f"{server.address}/a.zip", tmp_path / "a.zip", MD5, pause=0.0).read_bytes() == CONTENT
    assert server.asked[1] is not None, "what had arrived is kept"


def test_being_offline_is_told(server: Server, tmp_path: Path) -> None:
    address = server.address
    server.server_close()
    with pytest.raises(
        DataError, match=r"a\.zip could not be fetched \(.*refused.*\): check the connection and run this again"
    ) as error:
        download(f"{address}/a.zip", tmp_path / "a.zip", pause=0)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="ftp://a/b is no address to fetch a file from: it must begin with http://"):
        download("ftp://a/b", tmp_path / "b")


@pytest.fixture
def signs(server: Server) -> tuple[PublishedSet, ...]:
    """Two sets on the server, as published, but small; the second archive has a folder in it."""
    sets = []
    for number, (name, split) in enumerate((("Set1", "train"), ("Set2", "test"))):
        images = [f"{name}Image{i}.jpg" for i in range(3)]
        lines = "".join(f"{image}:VISIBLE, 9, 9, 0, 0, PROHIBITORY, 50_SIGN;\n" for image in images).encode()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for image in [*images, "notListed.jpg"]:
                file = io.BytesIO()
                Image.new("RGB", (6, 4), (number, 0, 0)).save(file, format="JPEG")
                archive.writestr(f"{'inner/' * number}{image}", file.getvalue())
        server.files[f"/{name}/annotations.txt"] = lines
        server.files[f"/{name}/{name}Part0.zip"] = packed.getvalue()
        sets.append(PublishedSet(name, split, hashlib.md5(lines).hexdigest()))
    return tuple(sets)


@pytest.fixture
def published(signs: tuple[PublishedSet, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[PublishedSet, ...]:
    monkeypatch.setattr("foveate.datasets.published.swedish.SETS", signs)
    return signs


def test_swedish_signs_are_fetched_and_read(
    server: Server, published: tuple[PublishedSet, ...], tmp_path: Path
) -> None:
    server.cuts = [9000, 100]
    download_swedish_signs(tmp_path, sets=published, address=server.address, pause=0)
    data = swedish_traffic_signs(tmp_path)
    assert [e.id for e in data.examples] == [f"Set{s}/Set{s}Image{i}.jpg" for s in (1, 2) for i in range(3)]
    assert data.open(5).size == (4, 6)
    files = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {"annotations.txt", *(Path(e.id).name for e in data.examples)}
    asked = len(server.asked)
    download_swedish_signs(tmp_path, sets=published, address=server.address, pause=0)
    assert len(server.asked) == asked


def test_only_what_is_missing_is_fetched_and_own_archives_stay(
    server: Server, published: tuple[PublishedSet, ...], tmp_path: Path
) -> None:
    download_swedish_signs(tmp_path, sets=published, address=server.address, pause=0)
    (tmp_path / "Set2" / "Set2Image1.jpg").unlink()
    untouched = (tmp_path / "Set2" / "Set2Image0.jpg").stat().st_mtime_ns
    archive = tmp_path / "Set2" / "Set2Part0.zip"
    archive.write_bytes(server.files["/Set2/Set2Part0.zip"])
    server.asked.clear()
    told: list[str] = []

    def progress(what: str) -> object:
        return lambda done, total: told.append(f"{done}/{total} {what}")

    download_swedish_signs(tmp_path, progress, published, server.address, 0)  # type: ignore[arg-type]
    assert server.asked == []
    assert told == ["1/1 images of Set2"]
    assert archive.exists()
    assert (tmp_path / "Set2" / "Set2Image0.jpg").stat().st_mtime_ns == untouched


def test_damaged_archives_are_refused(server: Server, published: tuple[PublishedSet, ...], tmp_path: Path) -> None:
    server.files["/Set1/Set1Part0.zip"] = server.files["/Set1/Set1Part0.zip"][:-30]
    with pytest.raises(
        DataError, match=r"Set1Part0\.zip is damaged \(BadZipFile .*\): remove it and run this again to"
    ):
        download_swedish_signs(tmp_path, sets=published, address=server.address, pause=0)
    (tmp_path / "Set1" / "Set1Part0.zip").write_bytes(server.files["/Set2/Set2Part0.zip"])
    with pytest.raises(
        DataError, match=r"Set1Part0\.zip lacks 3 annotated images, the first is Set1Image0\.jpg: put th"
    ):
        download_swedish_signs(tmp_path, sets=published, address=server.address, pause=0)
