"""The HTTP side: LINSTOR's REST API, and the private paths of the hosts' tools."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
import traceback
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import answers
from .answers import Hang
from .controller import Request, Response
from .faults import Fault
from .serialized import Pieces

if TYPE_CHECKING:
    from .sandbox import Sandbox

REQUESTS_PER_CONNECTION = 256
IDLE_SECONDS = 30
COMPRESS_FROM = 1000
"""So many bytes are compressed where the client can read it."""
CHUNKED_FROM = 8192
"""So many bytes, and what is compressed, are sent without saying beforehand how many there are."""
_GZIP = 16 + zlib.MAX_WBITS
_MOVED = (
    "<html>\r\n<head><title>Document moved</title></head>\r\n<body><h1>Document moved</h1>\r\n"
    'This document has moved <a href="{0}">here</a>.<p>\r\n</body>\r\n</html>\r\n'
)


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
    query: dict[str, list[str]] = field(default_factory=dict)


class NoAnswer(Exception):
    """The connection ends without an answer."""


class Server(ThreadingHTTPServer):
    """A listener; one thread per connection."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self, sandbox: Sandbox, address: tuple[str, int], tls: Optional[ssl.SSLContext] = None, redirects: bool = False
    ) -> None:
        self.sandbox = sandbox
        self.tls = tls
        self.redirects = redirects
        self.wants_certificate = tls is not None and tls.verify_mode != ssl.CERT_NONE
        if tls is not None and self.wants_certificate:
            # As recorded: a client without one is let in, and its connection ends without a word.
            tls.verify_mode = ssl.CERT_OPTIONAL
        self.connections: list[socket.socket] = []
        super().__init__(address, Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; its thread is who shakes hands."""
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

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
                # Not SSLSocket's own, which would go on in plain text.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
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
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.do_handshake()
            if self.server.wants_certificate and not self.connection.getpeercert():
                raise NoAnswer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""
        pass

    def __getattr__(self, name: str) -> Callable[[], None]:
        """do_GET and the like: any method is the controller's to answer."""
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self._serve

    def _serve(self) -> None:
        try:
            raw = self._body()
        except ValueError:
            self.send_error(400)
            return
        self.served += 1
        if self.served >= REQUESTS_PER_CONNECTION:
            self.close_connection = True
        try:
            self._answer(self._respond(raw))
        except (NoAnswer, ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True
        except Exception:
            # In the middle of a list: too late for an answer that says so.
            self.close_connection = True
            self.server.sandbox.exceptions.append(traceback.format_exc())

    def _body(self) -> bytes:
        """What the request brings; ValueError when nobody can say how much that is."""
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            pieces = []
            while size := _number(self.rfile.readline().strip(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        length = _number((self.headers.get("Content-Length") or "0").encode(), 10)
        body = self.rfile.read(length)
        if len(body) < length:
            # Whoever asks was killed in the middle of it.
            raise ValueError(f"{len(body)} of {length} bytes")
        return body

    def _respond(self, raw: bytes) -> Response:
        path, _, query = self.path.partition("?")
        request = Request(
            "GET" if self.command == "HEAD" else self.command,
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
            response = self._elsewhere() or self._unauthorized() or _with_faults(sandbox, request)
            return response
        finally:
            took = (time.monotonic() - started) * 1000
            sandbox.requests.append(Recorded(self.command, path, query, _decoded(raw), response.status, took))

    def _elsewhere(self) -> Optional[Response]:
        """With HTTPS, the port of HTTP has everything there; the query is lost on the way."""
        path = self.path.partition("?")[0]
        if not self.server.redirects or not path.startswith("/v1"):
            return None
        target = f"https://127.0.0.1:{self.server.sandbox.port}{path}"
        return Response(302, _MOVED.format(target), "text/html;charset=ISO-8859-1", headers={"Location": target})

    def _unauthorized(self) -> Optional[Response]:
        """Without the token, where there is one, only these pages."""
        token, path = self.server.sandbox.token, self.path.partition("?")[0]
        given = self.headers.get("Authorization") or ""
        if not token or given == f"Bearer {token}" or path in ("/", "/health") or path.startswith("/ui"):
            return None
        entries = answers.plain_error(answers.FAIL_ACC_DENIED_COMMAND, "Unauthorized: token invalid or not provided")
        return Response(401, entries, headers={"WWW-Authenticate": 'Bearer realm="linstor-controller"'})

    def _answer(self, response: Response) -> None:
        body = response.body if isinstance(response.body, Pieces) else None
        first, more = (body.first, body.more) if body else (_encoded(response), False)
        packed = (more or len(first) > COMPRESS_FROM) and _reads_gzip(self.headers.get("Accept-Encoding") or "")
        open_ended = packed or more or len(first) > CHUNKED_FROM
        chunked = open_ended and self.request_version not in ("HTTP/0.9", "HTTP/1.0")
        # As recorded: the controller gives up a connection after each of these, but not after a 404 or a 405.
        self.close_connection = self.close_connection or response.status in (400, 500) or open_ended > chunked
        self.send_response(response.status)
        self.send_header("Access-Control-Allow-Origin", "*")
        for name, value in response.headers.items():
            self.send_header(name, value)
        if first:
            self.send_header("Content-Type", response.content_type)
        if packed:
            self.send_header("Content-Encoding", "gzip")
        if self.close_connection:
            self.send_header("Connection", "close")
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not open_ended:
            self.send_header("Content-Length", str(len(first)))
        self.end_headers()
        if self.command != "HEAD":
            pieces: Iterable[bytes] = body or (first,)
            self._send(_packed(pieces) if packed else pieces, chunked, response.breaks_after)
        self.wfile.flush()

    def _send(self, pieces: Iterable[bytes], chunked: bool, breaks_after: Optional[int]) -> None:
        for piece in filter(None, pieces):
            kept = piece[:breaks_after]
            self.wfile.write(b"%x\r\n" % len(piece) if chunked else b"")
            self.wfile.write(kept)
            if breaks_after is not None and len(kept) == breaks_after:
                raise NoAnswer
            breaks_after = None if breaks_after is None else breaks_after - len(kept)
            self.wfile.write(b"\r\n" if chunked else b"")
            self.wfile.flush()
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


def _number(text: bytes, base: int) -> int:
    if not re.fullmatch(b"[0-9a-fA-F]{1,18}", text):
        raise ValueError(text)
    return int(text, base)


def _reads_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding has gzip, and not only to refuse it."""
    return re.search(r"(^|,)\s*(gzip|\*)\s*(?!\s*;\s*q=0(\.0*)?\s*(,|$))", accepted, re.IGNORECASE) is not None


def _packed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces compressed, one after the other."""
    packer = zlib.compressobj(1, wbits=_GZIP)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")


def _encoded(response: Response) -> bytes:
    if response.body is None:
        return b""
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
    ended = sandbox.ended_controllers
    spoiled = None if fault.after_work else _spoil(sandbox, fault)
    if spoiled is not None:
        return spoiled
    if sandbox.ended_controllers != ended:
        # What hung in a controller that has ended meanwhile is never done.
        raise NoAnswer
    response = _work(sandbox, request)
    response.breaks_after = fault.breaks_after
    return (_spoil(sandbox, fault) or response) if fault.after_work else response


def _work(sandbox: Sandbox, request: Request) -> Response:
    try:
        response = sandbox.controller.handle(request)
    except Hang:
        sandbox.stopping.wait()
        raise NoAnswer from None
    if sandbox.satellite_seconds and _satellites_worked(response):
        # They do one thing after the other, whoever asked for it.
        with sandbox.one_at_a_time:
            sandbox.stopping.wait(sandbox.satellite_seconds)
    if sandbox.recorded_times is not None and _satellites_worked(response):
        sandbox.recorded_times.spend(f"{request.method} {request.path}", sandbox.stopping)
    if sandbox.witness is not None:
        answer = json.loads(response.body.keep()) if isinstance(response.body, Pieces) else response.body
        asked = request.method, request.path, _decoded(request.raw)
        sandbox.witness(Exchange(*asked, response.status, answer, request.query))
    return response


def _satellites_worked(response: Response) -> bool:
    """Whether a satellite says something in an answer: `(node1) ...`."""
    body = response.body
    entries = body.get("messages") if isinstance(body, dict) else body
    found = entries if isinstance(entries, list) else []
    return any(isinstance(entry, dict) and re.match(r"\(\S+\) ", str(entry.get("message"))) for entry in found)


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
