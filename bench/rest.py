"""Requests to LINSTOR by the benchmark itself."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


class Refused(RuntimeError):
    """LINSTOR did not do what a measurement needs."""


class Rest:
    """One connection to a controller, `http://host:port`, for one thread."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._connection = http.client.HTTPConnection(parts.hostname or "localhost", parts.port or 3370, timeout=600)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """Return the data of an answer; raises Refused, and OSError where nobody answers."""
        raw = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, raw, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        data = response.read()
        if response.status >= 400:
            raise Refused(f"{method} {path}: LINSTOR answers {response.status} {data.decode('utf-8', 'replace')[:500]}")
        return json.loads(data) if data else None

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()
