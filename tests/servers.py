"""Servers on this machine, which tell what they sent and can be told to misbehave."""

import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


@dataclass
class FileServer:
    """An HTTP server of files in memory; use it in a with statement.

    Attributes:
        files: path → content, or what gives bytes when sliced: a file mapped into memory.
        ranges: whether it sends parts of files.
        drop_after: bytes of a body after which a connection is dropped, as often as `drops` says.
        drops: connections still to be dropped.
        failing: answers 503 still to be given.
        delay: seconds before every answer.
        pace: bytes of a body sent at a time, and seconds before the next; None sends as fast as it can.
        status: path → status it is answered with.
        sent: bytes of bodies sent.
        requests: (method, path, range header) of every request, in order of arrival.
        most_at_once: requests that were being answered at the same time.
    """

    files: dict[str, Any]
    ranges: bool = True
    drop_after: int = 0
    drops: int = 0
    failing: int = 0
    delay: float = 0
    pace: tuple[int, float] | None = None
    status: dict[str, int] = field(default_factory=dict)
    version: str = '"one"'
    sent: int = 0
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    most_at_once: int = 0

    def __enter__(self) -> "FileServer":
        self._lock = threading.Lock()
        self._now = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{path}"

    def forget(self) -> None:
        """Count from 0 again."""
        self.sent, self.requests, self.most_at_once = 0, [], 0


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            with server._lock:
                server.requests.append(("GET", self.path[1:], self.headers.get("Range")))
                server._now += 1
                server.most_at_once = max(server.most_at_once, server._now)
            try:
                time.sleep(server.delay)
                self.answer(unquote(self.path[1:].partition("?")[0]))
            except OSError:
                self.close_connection = True
            finally:
                with server._lock:
                    server._now -= 1

        def answer(self, path: str) -> None:
            status = server.status.get(path, 200 if path in server.files else 404)
            with server._lock:
                if server.failing:
                    server.failing -= 1
                    status = 503
            if status != 200:
                self.send_head(status, b"")
                return
            whole = server.files[path]
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            if asked is None or not server.ranges:
                self.send_head(200, whole)
                self.send_body(whole)
                return
            start, stop = int(asked[1]), min(int(asked[2]) + 1, len(whole))
            if start >= len(whole):
                self.send_head(416, b"", f"bytes */{len(whole)}")
                return
            self.send_head(206, whole[start:stop], f"bytes {start}-{stop - 1}/{len(whole)}")
            self.send_body(whole[start:stop])

        def send_head(self, status: int, body: bytes, content_range: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if content_range is not None:
                self.send_header("Content-Range", content_range)
            if server.version:
                self.send_header("ETag", server.version)
            self.end_headers()

        def send_body(self, body: bytes) -> None:
            with server._lock:
                drop = server.drops > 0 and len(body) > server.drop_after
                server.drops -= drop
            part = body[: server.drop_after] if drop else body
            each, wait = server.pace or (65536, 0)
            for start in range(0, len(part), each):
                time.sleep(wait)
                piece = part[start : start + each]
                with server._lock:  # before: whoever has got it may look at once
                    server.sent += len(piece)
                self.wfile.write(piece)
            if drop:
                self.close_connection = True

    return Handler
