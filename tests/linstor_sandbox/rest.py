"""A plain REST client for a sandbox."""

from __future__ import annotations

import http.client
import json
from typing import Any, Optional

from linstor_sandbox import Sandbox
from linstor_sandbox.answers import CODE_BITS, is_error, unsigned
from linstor_sandbox.conformance.comparison import entries


class Rest:
    def __init__(self, sandbox: Sandbox, timeout: float = 5) -> None:
        self.sandbox = sandbox
        self.connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=timeout)

    def __call__(self, method: str, path: str, body: Any = None, query: str = "") -> tuple[int, Any]:
        raw = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        target = path + (f"?{query}" if query else "")
        self.connection.request(method, target, raw, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else None

    def ok(self, method: str, path: str, body: Any = None, query: str = "") -> Any:
        status, answer = self(method, path, body, query)
        assert status in (200, 201), (status, answer)
        return answer

    def group(self, name: str, pool: str = "data", **select: Any) -> None:
        wanted = {"place_count": 2, "storage_pool_list": [pool], **select}
        self.ok("POST", "/v1/resource-groups", {"name": name, "select_filter": wanted})
        self.ok("POST", f"/v1/resource-groups/{name}/volume-groups", {})

    def spawn(self, name: str, size_kib: int = 65536, group: str = "group", **more: Any) -> Any:
        body = {"resource_definition_name": name, "volume_sizes": [size_kib], **more}
        return self.ok("POST", f"/v1/resource-groups/{group}/spawn", body)

    def flags(self, name: str) -> dict[str, set[str]]:
        """{node: flags} of all resources."""
        found = self.ok("GET", f"/v1/resource-definitions/{name}/resources")
        return {item["node_name"]: set(item.get("flags", ())) for item in found}

    def props(self, name: str) -> dict[str, str]:
        return dict(self.ok("GET", f"/v1/resource-definitions/{name}").get("props", {}))


def codes(answer: Any) -> set[int]:
    """All return codes, unsigned."""
    return {unsigned(entry["ret_code"]) for entry in entries(answer)}


def low_codes(answer: Any) -> set[int]:
    """The low 15 bits of all return codes."""
    return {code & CODE_BITS for code in codes(answer)}


def error_code(answer: Any) -> Optional[int]:
    """The low 15 bits of the first error."""
    return next(
        (unsigned(entry["ret_code"]) & CODE_BITS for entry in entries(answer) if is_error(entry["ret_code"])), None
    )
