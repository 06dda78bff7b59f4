"""Requests to LINSTOR by the benchmark itself."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 600


class Refused(RuntimeError):
    """LINSTOR did not do what a measurement needs."""


class Rest:
    """A controller, `http://host:port`; each request has a connection of its own."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._address = parts.hostname or "localhost", parts.port or 3370

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """Return the data of an answer; raises Refused, and OSError or HTTPException where nobody answers."""
        raw = None if body is None else json.dumps(body).encode()
        with closing(http.client.HTTPConnection(*self._address, timeout=_TIMEOUT_SECONDS)) as connection:
            connection.request(method, path, raw, {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read()
        if response.status >= 400:
            raise Refused(f"{method} {path}: LINSTOR answers {response.status} {data.decode('utf-8', 'replace')[:500]}")
        return json.loads(data) if data else None
