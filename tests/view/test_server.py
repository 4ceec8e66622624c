"""What the server answers, to whom, and what it refuses."""

import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyramid_files import values, write_pyramid
from servers import FileServer

from foveate.errors import Changed, ConfigError
from foveate.explain.picture import Scale
from foveate.images import original
from foveate.models import DrawOptions, Model
from foveate.predict import find_rows
from foveate.view import Gallery, Pyramid, ViewServer
from foveate.view.server import find

Serving = Callable[[Gallery], AbstractContextManager[ViewServer]]


def ask(server: ViewServer, path: str, host: str | None = "127.0.0.1", method: str = "GET") -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


def told(server: ViewServer, path: str) -> Any:
    status, _, body = ask(server, path)
    assert status == 200
    return json.loads(body)


def picture(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)))


@pytest.mark.slow
def test_two_thousand_tiles_at_random_all_answer(server: ViewServer) -> None:
    random = np.random.default_rng(5)
    asked = []
    for number, size in enumerate([(613, 1107), (571, 389)]):
        pyramid = Pyramid(size)
        for _ in range(1000):
            level = int(random.integers(0, pyramid.last + 1))
            row, column = (int(random.integers(0, count)) for count in pyramid.grid(level))
            kind, ending = (("files", "jpeg"), ("map", "png"))[int(random.integers(0, 2))]
            asked.append((f"/images/{number}_{kind}/{level}/{column}_{row}.{ending}", pyramid.tile(level, row, column)))

    def check(one: tuple[str, Any]) -> tuple[int, tuple[int, int], tuple[int, int]]:
        status, _, body = ask(server, one[0])
        return status, picture(body).shape[:2], one[1].size

    with ThreadPoolExecutor(8) as pool:
        for status, got, expected in pool.map(check, asked):
            assert status == 200
            assert got == expected


def test_a_tile_is_most_like_its_own_place(server: ViewServer, folder: Path) -> None:
    whole = np.asarray(Image.open(folder / "a.png")).astype(float)
    pyramid = Pyramid((613, 1107))
    for row, column in [(0, 0), (2, 3), (1, 2)]:
        box = pyramid.tile(pyramid.last, row, column)
        assert box is not None
        tile = picture(ask(server, f"/images/0_files/{pyramid.last}/{column}_{row}.jpeg")[2]).astype(float)
        inner = tile[1:-1, 1:-1]
        top, left = box.top + 1, box.left + 1
        apart = {
            (down, along): np.abs(
                inner - whole[top + down :, left + along :][: inner.shape[0], : inner.shape[1]]
            ).mean()
            for down in (-1, 0, 1)
            for along in (-1, 0, 1)
        }
        assert min(apart, key=apart.__getitem__) == (0, 0), apart


def test_what_an_image_is_said_to_be(server: ViewServer, model: Model, folder: Path) -> None:
    said = told(server, "/images/0.json")
    prediction = model.predict(folder / "a.png", samples=2)
    assert said["size"] == [613, 1107]
    assert {each["name"]: each["value"] for each in said["probabilities"]} == prediction.probabilities
    boxes = [[box.top, box.left, box.height, box.width] for box in prediction.boxes]
    assert [patch["box"] for patch in said["patches"]] == boxes
    assert [patch["draw"] for patch in said["patches"]] == [0] * 4 + [1] * 4
    assert said["pyramid"] == {"tile": 254, "overlap": 1, "first": 8, "last": 11}
    for which in range(len(boxes)):
        assert picture(ask(server, f"/images/0_patches/{which}.jpeg")[2]).shape == (28, 36, 3)
    assert b'<Size Width="1107" Height="613"/>' in ask(server, "/images/0.dzi")[2]


def test_the_peak_of_the_map_lies_where_its_affine_map_says(server: ViewServer, model: Model, folder: Path) -> None:
    look = model.look(folder / "a.png", DrawOptions(2))
    assert look.output.attention is not None
    attention = look.output.attention[0].numpy()
    row, column = np.unravel_index(attention.argmax(), attention.shape)
    assert model.grid is not None
    a, _, c, _, e, f = model.grid.affine(look.grid_size, look.opened.size)
    y, x = int(f + (row + 0.5) * e), int(c + (column + 0.5) * a)
    tile = picture(ask(server, f"/images/0_map/11/{x // 254}_{y // 254}.png")[2])
    colour = tile[y % 254 + (y >= 254), x % 254 + (x >= 254)]
    brightest = Scale(0.0, 1.0, 1.0, 1.0).colour(np.ones((1, 1), np.float32), np.ones((1, 1), bool))[0, 0]
    assert colour.tolist() == brightest.tolist()


def test_a_broken_image_is_told_in_a_line(server: ViewServer) -> None:
    said = told(server, "/images/2.json")
    assert list(said) == ["error"]
    assert "c.png: broken image" in said["error"]
    assert "\n" not in said["error"]
    told(server, "/images/0.json")
    states = [image["state"] for image in told(server, "/images.json")]
    assert (states[0], states[2]) == ("seen", "failed")
    status, headers, body = ask(server, "/images/2_files/0/0_0.jpeg")
    assert (status, headers.get_content_type()) == (500, "text/plain")
    assert len(body.splitlines()) == 1


def test_an_image_that_was_let_go_of_is_opened_again(model: Model, folder: Path) -> None:
    gallery = Gallery(model, find_rows([folder / "a.png", folder / "b.tif"]))
    first = gallery.tile(0, 11, 0, 0)
    gallery.image_json(1)
    gallery._open.cache_clear()
    gallery._pictures.close()
    assert gallery.tile(0, 11, 0, 0) == first


@pytest.mark.parametrize("name", ["a.png", "b.tif", "c.npy"])
def test_no_pixels_of_another_file_are_shown_under_a_prediction(model: Model, tmp_path: Path, name: str) -> None:
    """A file is replaced while a page shows it: what was said of the old one is not shown over the new one."""

    def write(seed: int) -> None:
        pixels = values((130, 171), seed=seed)
        if name == "c.npy":
            np.save(tmp_path / name, pixels)
        elif name == "b.tif":
            write_pyramid(tmp_path / name, [pixels])
        else:
            Image.fromarray(pixels).save(tmp_path / name)
        os.utime(tmp_path / name, (seed, seed))

    write(1)
    gallery = Gallery(model, find_rows([tmp_path / name]))
    before = gallery.image_json(0)
    page, patch = f"/images/0_files/8/0_0.jpeg?look={before['look']}", f"/images/0_patches/0.jpeg?look={before['look']}"
    assert find(gallery, page) is not None
    write(2)
    for old in (page, patch, page.replace("files", "map").replace("jpeg", "png")):
        with pytest.raises(Changed, match=f"{name}: the file has changed since it was looked at: look again"):
            find(gallery, old)
    after, fresh = gallery.image_json(0), Gallery(model, find_rows([tmp_path / name]))
    assert after["look"] == before["look"] + 1
    assert after | {"look": 1} == fresh.image_json(0)
    assert after["patches"] != before["patches"]
    assert gallery.tile(0, 8, 0, 0, after["look"]) == fresh.tile(0, 8, 0, 0)
    assert gallery.tile(0, 8, 0, 0) == fresh.tile(0, 8, 0, 0)


def test_a_page_is_told_that_a_file_has_changed(served: Serving, model: Model, tmp_path: Path) -> None:
    Image.fromarray(values((130, 171))).save(tmp_path / "a.png")
    with served(Gallery(model, find_rows([tmp_path / "a.png"]))) as server:
        look = told(server, "/images/0.json")["look"]
        assert ask(server, f"/images/0_files/8/0_0.jpeg?look={look}")[0] == 200
        Image.fromarray(values((130, 171), seed=1)).save(tmp_path / "a.png")
        status, _, body = ask(server, f"/images/0_files/8/0_0.jpeg?look={look}")
        assert (status, body.count(b"\n")) == (409, 1)
        (tmp_path / "a.png").unlink()
        assert told(server, "/images/0.json")["error"] == f"{tmp_path / 'a.png'}: no such file: check the path"


def test_a_file_behind_an_address_that_changes_is_looked_at_again(model: Model, tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tif", [values((300, 410), seed=1)])
    content = (tmp_path / "a.tif").read_bytes()
    with FileServer({"a.tif": content}) as files:
        gallery = Gallery(model, find_rows([files.address("a.tif")]))
        before = gallery.image_json(0)
        files.version = '"two"'
        original(gallery._open(0))._owner = None  # of the tiles that are decoded there is nothing to ask for
        with pytest.raises(Changed, match="the file has changed since it was opened"):
            gallery.tile(0, 9, 1, 1)
        assert gallery.image_json(0)["look"] == before["look"] + 1
        assert gallery.tile(0, 9, 1, 1) is not None


OUTSIDE = [
    "/images/0_files/12/0_0.jpeg",
    "/images/0_files/11/5_0.jpeg",
    "/images/0_files/11/0_3.jpeg",
    "/images/0_files/11/-1_0.jpeg",
    "/images/0_files/11/0_0.png",
    "/images/0_map/11/0_0.jpeg",
    "/images/0_map/11/5_0.png",
    "/images/0_files/11/0_0.jpeg/",
    "/images/0_files/11/٣_0.jpeg".encode().decode("latin-1"),
    "/images/0_files/99999999999999999999/0_0.jpeg",
    "/images/0_patches/8.jpeg",
    "/images/3.json",
    "/images/3_files/0/0_0.jpeg",
    "/images/00000000003.json",
    "/images/-1.json",
    "/images/secret.txt",
    "/images/../secret.txt",
    "/../secret.txt",
    "/images/0_files/../../secret.txt",
    "/%2e%2e/secret.txt",
    "/images/%2e%2e%2fsecret.txt",
    "/images/..%5csecret.txt",
    "/images/0_files/%2e%2e/%2e%2e/a.png",
    "/page/../page.js",
    "/./page.js",
    "/a.png",
    "/server.py",
    "/page.html",
    "/etc/passwd",
    "//etc/passwd",
    "http://127.0.0.1/page.js",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_else_is_there(path: str, server: ViewServer, folder: Path) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as raw:  # as it is, never made tidy
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode("latin-1"))
        reply = b"".join(iter(lambda: raw.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.1 404 ")
    assert b"not yours" not in reply


def test_a_path_of_the_machine_is_not_there(server: ViewServer, folder: Path) -> None:
    for path in (f"{folder}/secret.txt", f"/images{folder}/a.png", f"/images/0_files{folder}/secret.txt"):
        assert ask(server, path)[0] == 404


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8000", "127.0.0.1:9"])
def test_this_machine_is_answered(host: str, server: ViewServer) -> None:
    assert ask(server, "/images.json", host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [None, "", "example.org", "127.0.0.1.example.org", "localhost.example.org", "example.org:8000", "0.0.0.0", "[::1]"],
)
def test_other_names_of_it_are_refused(host: str | None, server: ViewServer) -> None:
    for path in ("/", "/images.json", "/images/0_files/0/0_0.jpeg", "/nothing"):
        status, _, body = ask(server, path, host)
        assert status == 403
        assert body == b"foveate view answers at 127.0.0.1 and localhost only\n"


def test_two_hosts_are_refused(server: ViewServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\nConnection: close\r\n\r\n")
        assert raw.recv(65536).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_taken(method: str, server: ViewServer) -> None:
    assert ask(server, "/images.json", method=method)[0] == 501


def test_head_is_get_without_the_body(server: ViewServer) -> None:
    status, headers, body = ask(server, "/page.css", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(ask(server, "/page.css")[2])


def test_the_page_may_load_from_here_alone(server: ViewServer) -> None:
    for path in ("/", "/nothing"):
        headers = ask(server, path)[1]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
    page = b"".join(ask(server, path)[2] for path in ("/", "/page.css", "/page.js"))
    assert b"://" not in page
    assert b'="/' not in page


def test_openseadragon_is_served(server: ViewServer) -> None:
    status, headers, body = ask(server, "/openseadragon.min.js")
    assert (status, headers.get_content_type()) == (200, "text/javascript")
    assert body.startswith(b"//! openseadragon 6.1.1")


def test_only_this_machine_is_listened_to(server: ViewServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken(server: ViewServer, gallery: Gallery) -> None:
    with pytest.raises(ConfigError) as caught:
        ViewServer(gallery, server.server_port)
    assert str(caught.value) == (
        f"--port {server.server_port} cannot be had (Address already in use): choose another, or 0 for any that is free"
    )
    with pytest.raises(ConfigError, match="--port must be from 0 to 65535, got 65536: 0 takes any that is free"):
        ViewServer(gallery, 65536)


def test_a_browser_that_goes_away_is_nobodys_fault(server: ViewServer, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.server_port)) as raw:
            raw.sendall(b"GET /images/0_files/11/0_0.jpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert ask(server, "/images.json")[0] == 200
    assert capfd.readouterr().err == ""


def test_it_ends_at_once_though_a_browser_keeps_its_connection(gallery: Gallery, served: Serving) -> None:
    with served(gallery) as server:
        browser = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        browser.request("GET", "/images.json")
        assert json.loads(browser.getresponse().read())
        begun = time.monotonic()
    assert time.monotonic() - begun < 10  # not the minute for which an idle connection is kept
    browser.close()


def test_what_was_asked_is_answered_before_it_ends(
    gallery: Gallery, served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, overview = threading.Event(), Gallery.overview

    def slow(self: Gallery) -> list[Any]:
        began.set()
        time.sleep(0.5)
        return overview(self)

    monkeypatch.setattr(Gallery, "overview", slow)
    answers: list[Any] = []
    with served(gallery) as server:
        asking = threading.Thread(target=lambda: answers.append(told(server, "/images.json")))
        asking.start()
        assert began.wait(30)
    asking.join(30)
    assert len(answers) == 1
    assert len(answers[0]) == len(gallery)
