"""The HTTP side: LINSTOR's REST API, and the private paths of the hosts' tools."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import urllib.parse
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Optional

from .answers import Hang
from .controller import Request, Response
from .faults import Fault
from .serialized import Joined

if TYPE_CHECKING:
    from .sandbox import Sandbox

REQUESTS_PER_CONNECTION = 256
IDLE_SECONDS = 30
COMPRESS_FROM = 1000


@dataclass
class Recorded:
    """One REST request as it came in and was answered; status 0 is "no answer"."""

    method: str
    path: str
    query: str
    body: Any
    status: int
    milliseconds: float

    @property
    def line(self) -> str:
        """Method and path, as the patterns of faults see them."""
        return f"{self.method} {self.path}"


@dataclass
class Exchange:
    """What a witness of all requests is told: a request and the controller's own answer, whatever became of it."""

    method: str
    path: str
    body: Any
    status: int
    answer: Any


class NoAnswer(Exception):
    """The connection ends without an answer."""


class Server(ThreadingHTTPServer):
    """A listener; one thread per connection."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, sandbox: Sandbox, address: tuple[str, int]) -> None:
        self.sandbox = sandbox
        self.connections: list[socket.socket] = []
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember a new connection."""
        self.connections.append(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that ends."""
        if request in self.connections:
            self.connections.remove(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End all connections, as a controller does that dies."""
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are nothing to report."""


class Handler(BaseHTTPRequestHandler):
    """One connection: up to 256 requests, 30 s idle."""

    protocol_version = "HTTP/1.1"
    server_version = "linstor_sandbox"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = IDLE_SECONDS
    server: Server

    def setup(self) -> None:
        """Begin a connection."""
        super().setup()
        self.served = 0

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""
        pass

    def do_GET(self) -> None:
        """Any method."""
        self._serve()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_GET  # noqa: N815 - the base class names them

    def _serve(self) -> None:
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal():
            self.send_error(400)
            return
        raw = self.rfile.read(int(length))
        self.served += 1
        if self.served >= REQUESTS_PER_CONNECTION:
            self.close_connection = True
        try:
            self._answer(self._respond(raw))
        except (NoAnswer, ConnectionError, TimeoutError):
            self.close_connection = True

    def _respond(self, raw: bytes) -> Response:
        path, _, query = self.path.partition("?")
        request = Request(
            self.command,
            path,
            urllib.parse.parse_qs(query, keep_blank_values=True),
            raw,
            self.headers.get("Content-Type") or "",
        )
        sandbox = self.server.sandbox
        if path.startswith("/sandbox/"):
            return sandbox.private.handle(request)
        started = time.monotonic()
        response = Response(0)
        try:
            response = _with_faults(sandbox, request)
            return response
        finally:
            took = (time.monotonic() - started) * 1000
            sandbox.requests.append(Recorded(self.command, path, query, _decoded(raw), response.status, took))

    def _answer(self, response: Response) -> None:
        content = _encoded(response)
        self.send_response(response.status)
        self.send_header("Access-Control-Allow-Origin", "*")
        if content:
            self.send_header("Content-Type", response.content_type)
        if len(content) > COMPRESS_FROM and "gzip" in (self.headers.get("Accept-Encoding") or ""):
            content = gzip.compress(content, 1)
            self.send_header("Content-Encoding", "gzip")
        # As recorded: the controller gives up a connection after each of these, but not after a 404 or a 405.
        self.close_connection = self.close_connection or response.status in (400, 500)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")
        self.wfile.flush()


def _plain(body: Any) -> Any:
    return json.loads(bytes(body)) if isinstance(body, Joined) else body


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")


def _encoded(response: Response) -> bytes:
    if response.body is None:
        return b""
    if isinstance(response.body, Joined):
        return bytes(response.body)
    if response.content_type == "application/json":
        return json.dumps(response.body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return str(response.body).encode()


def _wait(sandbox: Sandbox, fault: Fault) -> None:
    """Hold a request for the fault's time; the sandbox's end lets go of all."""
    deadline = None if fault.seconds is None else time.monotonic() + fault.seconds
    while not fault.released.is_set() and (deadline is None or time.monotonic() < deadline):
        if sandbox.stopping.wait(0.01):
            raise NoAnswer


def _with_faults(sandbox: Sandbox, request: Request) -> Response:
    """Do the work of a request, with what is to go wrong with it."""
    fault = sandbox.faults.take(f"{request.method} {request.path}")
    if sandbox.faults.latency:
        time.sleep(sandbox.faults.latency)
    if fault is None:
        return _work(sandbox, request)
    spoiled = None if fault.after_work else _spoil(sandbox, fault)
    if spoiled is not None:
        return spoiled
    response = _work(sandbox, request)
    return (_spoil(sandbox, fault) or response) if fault.after_work else response


def _work(sandbox: Sandbox, request: Request) -> Response:
    try:
        response = sandbox.controller.handle(request)
    except Hang:
        sandbox.stopping.wait()
        raise NoAnswer from None
    if sandbox.witness is not None:
        answer = _plain(response.body)
        sandbox.witness(Exchange(request.method, request.path, _decoded(request.raw), response.status, answer))
    return response


def _spoil(sandbox: Sandbox, fault: Fault) -> Optional[Response]:
    """Let a fault happen: NoAnswer, an answer of its own, or None when the request may go on."""
    if fault.kind in ("hang", "delay"):
        _wait(sandbox, fault)
    if fault.kind == "do" and fault.action is not None:
        fault.action()
    if fault.kind == "drop" or fault.ends:
        raise NoAnswer
    return Response(fault.status, fault.body) if fault.kind == "answer" else None


def start(server: Server) -> threading.Thread:
    """Serve in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    return thread
