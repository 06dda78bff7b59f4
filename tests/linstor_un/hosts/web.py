"""A web server that has images, and every way in which a server can be of no use."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable


class Web(ThreadingHTTPServer):
    """Serves `files`; the first folder of a path says how: /whole/NAME, /half/NAME, /chunked/NAME, /status/404 ..."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.stalled = threading.Event()
        self.released = threading.Event()
        # Asked before every request is answered; where it says no, there is no other answer.
        self.watch: Callable[[BaseHTTPRequestHandler], bool] = lambda _: True
        super().__init__(("127.0.0.1", port), _Handler)

    def url(self, manner: str, name: str) -> str:
        """The URL of a file, served in this manner."""
        return f"http://127.0.0.1:{self.server_address[1]}/{manner}/{name}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    server: Web

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if not self.server.watch(self):
            return
        _, manner, name = self.path.split("/", 2)
        getattr(self, f"_{manner}")(name)

    def _head(self, status: int, headers: Mapping[str, object]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()

    def _status(self, name: str) -> None:
        self._head(int(name), {"Content-Length": 0})

    def _moved(self, name: str) -> None:
        self._head(302, {"Location": f"/whole/{name}", "Content-Length": 0})

    def _circle(self, name: str) -> None:
        self._head(302, {"Location": f"/circle/{name}", "Content-Length": 0})

    def _elsewhere(self, name: str) -> None:
        self._head(302, {"Location": "file:///etc/hostname", "Content-Length": 0})

    def _whole(self, name: str) -> None:
        content = self.server.files[name]
        self._head(200, {"Content-Length": len(content)})
        self.wfile.write(content)

    def _lengthy(self, name: str) -> None:
        length, _, name = name.partition("/")
        self._head(200, {"Content-Length": length})
        self.wfile.write(self.server.files[name])

    def _half(self, name: str) -> None:
        content = self.server.files[name]
        self._head(200, {"Content-Length": len(content)})
        self.wfile.write(content[: len(content) // 2])

    def _stall(self, name: str) -> None:
        content = self.server.files[name]
        self._head(200, {"Content-Length": len(content)})
        self.wfile.write(content[: len(content) // 2])
        self.server.stalled.set()
        self.server.released.wait(60)

    def _silent(self, _: str) -> None:
        self.server.stalled.set()
        self.server.released.wait(60)

    def _chunked(self, name: str) -> None:
        self._chunks(name, b"0\r\n\r\n")

    def _broken(self, name: str) -> None:
        self._chunks(name, b"1000\r\nhalf a chunk")

    def _chunks(self, name: str, end: bytes) -> None:
        content = self.server.files[name]
        self._head(200, {"Transfer-Encoding": "chunked"})
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content) + end)


@contextmanager
def serving() -> Iterator[Web]:
    """A server for the length of the block."""
    server = Web()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
