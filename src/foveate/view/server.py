"""HTTP server of the viewer page: on this machine alone, of what was named on the command line alone."""

import json
import os
import re
import socket
import socketserver
import sys
import traceback
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from foveate.errors import Changed, ConfigError, FoveateError
from foveate.view.description import dzi
from foveate.view.gallery import Gallery

HOST = "127.0.0.1"

Answer = tuple[str, bytes]
"""Kind and content of what is sent."""

PAGE = {
    "/": ("page/page.html", "text/html"),
    "/page.css": ("page/page.css", "text/css"),
    "/page.js": ("page/page.js", "text/javascript"),
    "/openseadragon.min.js": ("vendor/openseadragon.min.js", "text/javascript"),
}

NUMBER = r"(\d{1,9})"
"""Longer ones name nothing."""

HEADERS = {
    "Cache-Control": "no-store",  # the next gallery on this port has other pictures under the same numbers
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ViewServer(ThreadingHTTPServer):
    """HTTP server of the page and the pictures of a gallery at 127.0.0.1, until it is shut down.

    | address | what |
    |---|---|
    | `/`, `/page.css`, `/page.js`, `/openseadragon.min.js` | the page |
    | `/images.json` | all images, with what is known of them |
    | `/images/0.json` | image 0: what the model saw in it, or "error": why it cannot be shown |
    | `/images/0.dzi`, `/images/0_files/LEVEL/COLUMN_ROW.jpeg` | the image as a Deep Zoom pyramid, for any such viewer |
    | `/images/0_map/LEVEL/COLUMN_ROW.png` | the attention map over the tile of that name |
    | `/images/0_patches/1.jpeg` | patch 1, small |
    | `…?look=3` | the same of look 3, as the image's JSON names it; 409 where the file has changed since |

    Nothing else is answered, and only to whoever calls this machine by the name of 127.0.0.1 or localhost: a page of
    somebody else whose name leads here is refused (DNS rebinding).

    Arguments:
        gallery: what to show.
        port: to listen at; 0 for any that is free.

    Raises:
        ConfigError: if the port cannot be had.
    """

    daemon_threads = False  # one that is in C++ code while the interpreter ends would abort the process
    allow_reuse_address = os.name != "nt"  # there, it would let two servers share a port
    request_queue_size = 64

    def __init__(self, gallery: Gallery, port: int = 0) -> None:
        self.gallery = gallery
        self._connections: set[socket.socket] = set()
        if not 0 <= port <= 65535:
            raise ConfigError(f"--port must be from 0 to 65535, got {port}: 0 takes any that is free")
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"--port {port} cannot be had ({error.strerror}): choose another, or 0 for any that is free"
            ) from error

    def server_bind(self) -> None:
        """Take the port, without asking a name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Take no more questions, and wait until those that were asked are answered."""
        for connection in list(self._connections):
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RD)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away in the middle is nobody's fault."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def version_string(self) -> str:
        return "foveate"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if not self._is_for_this_machine():
            self._refuse(HTTPStatus.FORBIDDEN, "foveate view answers at 127.0.0.1 and localhost only")
            return
        try:
            answer = find(self.server.gallery, self.path)
        except Changed as change:
            self._refuse(HTTPStatus.CONFLICT, str(change))
        except (FoveateError, OSError) as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, " ".join(str(error).split()))
        except Exception as error:
            traceback.print_exc()
            told = " ".join(f"this is a fault of foveate, see its terminal: {type(error).__name__} {error}".split())
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, told)
        else:
            if answer is None:
                self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            else:
                self._send(HTTPStatus.OK, *answer)

    do_HEAD = do_GET  # noqa: N815

    def _is_for_this_machine(self) -> bool:
        named = self.headers.get_all("Host") or []
        return len(named) == 1 and re.fullmatch(r"(127\.0\.0\.1|localhost)(:\d{1,5})?", named[0].lower()) is not None

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._send(status, "text/plain", f"{message}\n".encode(errors="replace"))

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def find(gallery: Gallery, path: str) -> Answer | None:
    """Answer to an address: what lies there; None if nothing does.

    Arguments:
        gallery: what is shown.
        path: as it was asked for; matched letter by letter, so what is written in another way (`%2e`) is not there.

    Raises:
        FoveateError: if an image cannot be read.
    """
    path, _, query = path.partition("?")
    asked = re.fullmatch(rf"look={NUMBER}", query, re.ASCII)
    if path in PAGE:
        name, kind = PAGE[path]
        return kind, files("foveate.view").joinpath(name).read_bytes()
    if path == "/images.json":
        return _json(gallery.overview())
    found = re.fullmatch(rf"/images/{NUMBER}([._].+)", path, re.ASCII)
    if found is None or int(found[1]) >= len(gallery):
        return None
    return _of_image(gallery, int(found[1]), found[2], None if asked is None else int(asked[1]))


def _of_image(gallery: Gallery, number: int, rest: str, look: int | None) -> Answer | None:
    if rest == ".json":
        try:
            return _json(gallery.image_json(number))
        except FoveateError as error:  # an answer, too: the page shows it in the place of the image
            return _json({"error": " ".join(str(error).split())})
    if rest == ".dzi":
        return "application/xml", dzi(gallery.seen(number).pyramid).encode()
    if tile := re.fullmatch(rf"_(?:files|map)/{NUMBER}/{NUMBER}_{NUMBER}\.(jpeg|png)", rest, re.ASCII):
        level, column, row = (int(one) for one in tile.groups()[:3])
        if rest.startswith("_files") and rest.endswith("jpeg"):
            return _picture("jpeg", gallery.tile(number, level, row, column, look))
        if rest.startswith("_map") and rest.endswith("png"):
            return _picture("png", gallery.map_tile(number, level, row, column, look))
    if patch := re.fullmatch(rf"_patches/{NUMBER}\.jpeg", rest, re.ASCII):
        return _picture("jpeg", gallery.patch(number, int(patch[1]), look))
    return None


def _picture(kind: str, content: bytes | None) -> Answer | None:
    return None if content is None else (f"image/{kind}", content)


def _json(value: Any) -> Answer:
    return "application/json", json.dumps(value).encode()
