"""One disk, offered over HTTP to the driver on this machine, and to nobody else."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Optional

from linstor_un.errors import DriverError
from linstor_un.hosts import sources
from linstor_un.hosts.origins import Origin
from linstor_un.hosts.sources import AS_IT_IS

_LOCAL, _REMOTE, _UID = 1, 2, 7


class Offer:
    """A disk at a URL that nobody can guess.

    `was_asked_for` says whether anybody has found it, `sent_bytes` is how far its present reader is, `digest` the
    SHA-256 of what one reader gets whole, `failure` why the disk could not be read.
    """

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.path = f"/{secrets.token_urlsafe(32)}"
        self.was_asked_for = False
        self.sent_bytes = 0
        self.digest = ""
        self.failure: Optional[DriverError] = None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.offer = self
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def url(self) -> str:
        """Return what an image's PATH is to be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.path}{AS_IT_IS}"

    def withdraw(self) -> None:
        """Offer it no more; who reads it at this moment gets no further."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def offered(origin: Origin) -> Iterator[Offer]:
    """Offer a disk for the length of the block."""
    offer = Offer(origin)
    try:
        yield offer
    finally:
        offer.withdraw()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    offer: Offer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: the driver reads the beginning first, and goes away."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    # Who connects and says nothing holds nothing up for ever.
    timeout = 60

    def log_message(self, format: str, *args: object) -> None:
        """Write no log: the URL is a secret while it is good for anything."""

    def do_HEAD(self) -> None:  # noqa: N802
        """Answer how long it is."""
        self._begin()

    def do_GET(self) -> None:  # noqa: N802
        """Send all of it."""
        if self._begin():
            try:
                self._send(self.server.offer)
            except DriverError as failure:
                self.server.offer.failure = failure
                self.close_connection = True

    def _begin(self) -> bool:
        offer = self.server.offer
        if not secrets.compare_digest(self.path, offer.path) or not self._is_from_us():
            self.send_error(404)
            return False
        offer.was_asked_for = True
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(offer.origin.size_bytes))
        self.end_headers()
        return True

    def _is_from_us(self) -> bool:
        """Tell whether the other end is root's or our user's: other users see the URL in the list of processes."""
        there = user_of_connection(self.client_address[1], self.server.server_address[1])
        return there in (0, os.geteuid())

    def _send(self, offer: Offer) -> None:
        found, read, last = hashlib.sha256(), 0, b""
        with closing(offer.origin.open()) as reader:
            for block in sources.blocks(reader):
                found.update(block)
                self.wfile.write(last)
                offer.sent_bytes = read
                read, last = read + len(block), block
        # Before the last bytes are sent: whoever has them may ask at once.
        if read == offer.origin.size_bytes:
            offer.digest = found.hexdigest()
        self.wfile.write(last)
        offer.sent_bytes = read


def user_of_connection(port: int, to_port: int) -> Optional[int]:
    """Return the user whose connection this is, by its ports on this machine; None where the kernel does not say."""
    ends = f"0100007F:{port:04X}", f"0100007F:{to_port:04X}"
    try:
        with open("/proc/net/tcp", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return None
    return next((int(row[_UID]) for row in rows if (row[_LOCAL], row[_REMOTE]) == ends), None)
