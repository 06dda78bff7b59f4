"""LINSTOR's own description of its REST API, beside the project, and what recorded traffic has against it."""

from __future__ import annotations

import functools
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Optional

import yaml
from openapi_schema_validator import OAS30Validator

from linstor_sandbox import Exchange

SHARED = Path(__file__).resolve().parents[2] / "shared"
FILES = {"1.27.0": "linstor-rest_v1_openapi.yaml", "1.28.0": "linstor-rest_v1_openapi-newest.yaml"}
MISSING = None if (SHARED / FILES["1.27.0"]).exists() else f"no OpenAPI description of LINSTOR in {SHARED}"

# Where the description is wrong about the real controller, as the recordings show.
MISTAKES = [
    r"^GET /health 200: no such method",
    r"^DELETE /v1/controller/properties/\S+ \d+: no such method",
    r"'(SATELLITE|REMOTE_SPDK)' is not one of",
    r"/autoplace \d+: request at .: 'select_filter' is a required property",
    r"^GET /v1/encryption/passphrase 200: answer at .: \{'status': '\w+'\} is not of type 'array'",
    r"^GET /v1/resource-definitions/[^/]+/resource-connections/[^/]+/[^/]+ 200: .* is not of type 'array'",
    r"^GET /v1/view/storage-pools 500: answer at 0: 'message' is a required property",
    r"answer at \S*obj_refs\.\w+: None ",
]
# Newer than both descriptions, as linstor-contract.md tells.
NEWER = [
    r"'(auto_manage_dual_primary|volume_sizes)' was unexpected",
    r"/unmake-available \d+: no such method",
    r"^DELETE /v1/resource-definitions/[^/]+/resources \d+: no such method",
]


_EXCUSED = re.compile("|".join(MISTAKES + NEWER))


class Specification:
    """One version of the description; objects are closed: a key that it does not name is an error."""

    def __init__(self, file: Path) -> None:
        text = file.read_text(encoding="utf-8")
        self.document = _closed(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        self.paths = [(tuple(path.strip("/").split("/")), item) for path, item in self.document["paths"].items()]
        self.words = {part for path, _ in self.paths for part in path}
        self._add_single_objects()
        self.enumerated = set(self._enumerated(self.document))
        self._seen: set[str] = set()

    def check(self, recorded: Exchange) -> list[str]:
        """One sentence for each thing in a request or its answer that the description does not allow."""
        kinds = [part for part in recorded.path.split("/") if part in self.words]
        shapes = [self._shape(recorded.body), self._shape(recorded.answer), sorted(recorded.query)]
        key = repr((recorded.method, kinds, recorded.status, shapes))
        if key in self._seen:
            return []
        self._seen.add(key)
        found = [f"{recorded.method} {recorded.path} {recorded.status}: {text}" for text in self._problems(recorded)]
        return [text for text in found if not _EXCUSED.search(text)]

    def _problems(self, recorded: Exchange) -> Iterable[str]:
        operation = self._operation(recorded.method, recorded.path)
        if operation is None:
            yield "no such method on this path"
            return
        for name in sorted(set(recorded.query) - set(operation["queried"])):
            yield f"request: no query parameter {name} is described"
        if recorded.body is not None:
            schema = _content(self._followed(operation.get("requestBody", {})))
            yield from self._errors("request", schema, recorded.body) if schema else ["request: no body is described"]
        responses = operation["responses"]
        # The description says 201 for some calls that answer 200, and names few of the errors.
        found = responses.get(str(recorded.status)) or (
            next((responses[code] for code in ("200", "201") if code in responses), {}) if recorded.status < 300 else {}
        )
        schema = _content(self._followed(found)) or {"$ref": "#/components/schemas/ApiCallRcList"}
        if recorded.status and recorded.answer is not None:
            if recorded.status >= 400 and isinstance(recorded.answer, list):
                schema = {"$ref": "#/components/schemas/ApiCallRcList"}
            elif recorded.status >= 400:
                schema = _content(self._followed(responses.get("201", {}))) or schema
            yield from self._errors("answer", schema, recorded.answer)

    def _operation(self, method: str, path: str) -> Optional[dict[str, Any]]:
        segments = tuple(urllib.parse.unquote(part) for part in path.strip("/").split("/"))
        fitting = [
            (known, item)
            for known, item in self.paths
            if len(known) == len(segments)
            and all(one == other or one.startswith("{") for one, other in zip(known, segments))
        ]
        for _, item in sorted(fitting, key=lambda pair: sum(part.startswith("{") for part in pair[0])):
            if method.lower() in item:
                operation: dict[str, Any] = item[method.lower()]
                known = [
                    self._parameter(found) for found in [*item.get("parameters", ()), *operation.get("parameters", ())]
                ]
                return {**operation, "queried": [found["name"] for found in known if found["in"] == "query"]}
        return None

    def _add_single_objects(self) -> None:
        """What all controllers know and no description does: a GET of one object, which is an item of its list."""
        paths = self.document["paths"]
        for path, item in paths.items():
            listed = paths.get(path.rsplit("/", 1)[0], {}).get("get", {}).get("responses", {}).get("200", {})
            schema = (_content(listed) or {}).get("items")
            if path.endswith("}") and schema is not None:
                answer = {"200": {"content": {"application/json": {"schema": schema}}}}
                item.setdefault("get", {"responses": answer})

    def _parameter(self, item: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.document["components"]["parameters"].get(
            item.get("$ref", "").rsplit("/", 1)[-1], item
        )
        return found

    def _enumerated(self, item: Any) -> Iterator[str]:
        """The keys whose values, or the items of them, are some and no others."""
        for key, value in item.get("properties", {}).items() if isinstance(item, dict) else ():
            schema = value.get("items", value)
            name = schema.get("$ref", "").rsplit("/", 1)[-1]
            if "enum" in schema or "enum" in self.document["components"]["schemas"].get(name, ()):
                yield key
        for below in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
            yield from self._enumerated(below)

    def _shape(self, value: Any, key: str = "") -> Any:
        """Keys and types without values, but for those that are enumerated: what was valid is not validated again."""
        if isinstance(value, dict):
            return tuple((key, self._shape(value[key], key)) for key in sorted(value))
        if isinstance(value, list):
            return tuple(sorted({repr(self._shape(item, key)) for item in value}))
        return value if key in self.enumerated else type(value).__name__

    def _followed(self, item: dict[str, Any]) -> dict[str, Any]:
        for part in item["$ref"].split("/")[1:] if "$ref" in item else ():
            item = self.document[part] if part in ("components",) else item if part == "#" else item[part]
        return item

    def _errors(self, what: str, schema: dict[str, Any], value: Any) -> Iterable[str]:
        validator = OAS30Validator({**schema, "components": self.document["components"]})
        for error in validator.iter_errors(value):
            yield f"{what} at {'.'.join(str(part) for part in error.absolute_path) or '.'}: {error.message[:300]}"


def _content(item: dict[str, Any]) -> Optional[dict[str, Any]]:
    schema: Optional[dict[str, Any]] = item.get("content", {}).get("application/json", {}).get("schema")
    return schema


def _closed(document: dict[str, Any]) -> dict[str, Any]:
    """The description with `additionalProperties: false` wherever it names the properties of an object."""
    schemas = document["components"]["schemas"]
    for name, schema in list(schemas.items()):
        if "allOf" in schema:
            parts = [schemas[part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part for part in schema["allOf"]]
            merged = {key: value for part in parts for key, value in part.get("properties", {}).items()}
            schemas[name] = schema = {"type": "object", "properties": merged}
    _close(document)
    return document


def _close(item: Any) -> None:
    if isinstance(item, dict):
        if item.get("type") == "object" and isinstance(item.get("properties"), dict):
            item.setdefault("additionalProperties", False)
        if "oneOf" in item:
            # Several of them may fit: the layers' data have no key that tells them apart.
            item["anyOf"] = item.pop("oneOf")
        for value in item.values():
            _close(value)
    elif isinstance(item, list):
        for value in item:
            _close(value)


@functools.cache
def specification(rest_version: str) -> Specification:
    """The description nearest to a REST version."""
    newest = tuple(map(int, rest_version.split("."))) >= (1, 28)
    return Specification(SHARED / FILES["1.28.0" if newest else "1.27.0"])


def violations(exchange: Exchange, rest_version: str) -> list[str]:
    """What LINSTOR's description does not allow in a request or its answer."""
    return specification(rest_version).check(exchange)
