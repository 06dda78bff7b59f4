"""Routing: which function answers which request, and what every call has in common."""

from __future__ import annotations

import re
import traceback
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from .. import answers, properties
from ..answers import Answer, ApiError, Hang, ParseError, not_found
from ..model import (
    Cluster,
    Node,
    Resource,
    ResourceDefinition,
    ResourceGroup,
    Snapshot,
    VolumeDefinition,
    version_tuple,
)
from ..satellite import Satellites
from ..serialized import Serialized
from . import grammar


@dataclass
class Request:
    """One REST request; the path is percent-encoded, `params` are its variables, decoded."""

    method: str
    path: str
    query: dict[str, list[str]] = field(default_factory=dict)
    raw: bytes = b""
    content_type: str = "application/json"
    params: dict[str, str] = field(default_factory=dict)
    body: Any = None

    def flag(self, name: str) -> bool:
        """Whether a query parameter is `true`."""
        return self.query.get(name, [""])[-1].lower() == "true"

    def values(self, name: str) -> list[str]:
        """All values of a query parameter."""
        return self.query.get(name, [])


@dataclass
class Response:
    """What is sent back; None is an empty body. The connection ends after `breaks_after` bytes of it."""

    status: int
    body: Any = None
    content_type: str = "application/json"
    breaks_after: Optional[int] = None
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[["Controller", Request], Response]


@dataclass(frozen=True)
class Route:
    """Which function answers a method and path."""

    method: str
    segments: tuple[str, ...]
    handler: Handler
    schema: str
    parse_status: int
    optional_body: bool
    since: str

    def match(self, segments: tuple[str, ...]) -> Optional[dict[str, str]]:
        """The variables of a path that fits; None for one that does not."""
        params = {}
        for mine, theirs in zip(self.segments, segments):
            if mine == "{number}" and not theirs.isdecimal():
                return None
            if mine.startswith("{"):
                params[mine[1:-1]] = theirs
            elif mine != theirs:
                return None
        return params


ROUTES: dict[int, list[Route]] = {}


def route(
    method: str, path: str, *, schema: str = "", parse_status: int = 500, optional_body: bool = False, since: str = "0"
) -> Callable[[Handler], Handler]:
    """Register a function for a method and path; `schema` names the body's grammar."""
    segments = tuple(path.strip("/").split("/"))

    def register(handler: Handler) -> Handler:
        found = ROUTES.setdefault(len(segments), [])
        found.append(Route(method, segments, handler, schema, parse_status, optional_body, since))
        return handler

    return register


@contextmanager
def catching(answer: Answer) -> Iterator[Answer]:
    """An ApiError undoes the transaction: only its own entry remains."""
    try:
        yield answer
    except ApiError as exc:
        answer.entries.clear()
        answer.error(exc)


def respond(answer: Answer, success: int = 200) -> Response:
    """The answer, with the status that follows from its entries."""
    return Response(answer.status(success), answer.entries)


class Controller:
    """LINSTOR's controller: answers requests on the cluster, one at a time."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.satellites = Satellites(cluster)
        self.serialized = Serialized(cluster)
        self.exceptions: list[str] = []
        self.hung_satellites: list[str] = []

    def handle(self, request: Request) -> Response:
        """The answer to a request. Hang when there is none."""
        segments = tuple(urllib.parse.unquote(part) for part in request.path.strip("/").split("/"))
        routes = [
            (found, params)
            for found in ROUTES.get(len(segments), ())
            if self.cluster.at_least(found.since if found.since != "0" else "0.0")
            and (params := found.match(segments)) is not None
        ]
        literal = sorted(routes, key=lambda pair: len(pair[1]))
        chosen = next((pair for pair in literal if pair[0].method == request.method), None)
        if chosen is None:
            return self.no_route(request, bool(routes))
        request.params = chosen[1]
        return self._run(chosen[0], request)

    @staticmethod
    def no_route(request: Request, known: bool) -> Response:
        """The answer to a method that a path has not, or to a path that is none."""
        if known:
            text = f"Method '{request.method}' not allowed on path '{request.path}'."
            return Response(405, answers.plain_error(answers.FAIL_UNKNOWN_ERROR, text, "HTTP 405 Method Not Allowed"))
        text = f"Path '{request.path}' not found on server."
        return Response(404, answers.plain_error(answers.FAIL_UNKNOWN_ERROR, text, "HTTP 404 Not Found"))

    def _run(self, found: Route, request: Request) -> Response:
        try:
            if found.schema:
                if request.content_type and not request.content_type.startswith("application/json"):
                    return Response(
                        500,
                        answers.plain_error(
                            answers.FAIL_UNKNOWN_ERROR,
                            "An unknown error occurred.",
                            "HTTP 415 Unsupported Media Type",
                            report=True,
                        ),
                    )
                request.body = grammar.parse(
                    found.schema, request.raw, found.optional_body, version_tuple(self.cluster.version)
                )
                self._check_properties(request.body)
            with self.cluster.lock:
                self.cluster.pass_time()
                response = found.handler(self, request)
                if request.method != "GET":
                    self.cluster.touch(_concerned(found, request))
                self.cluster.lock.notify_all()
                return response
        except ParseError as exc:
            if found.parse_status == 0:
                raise Hang from exc
            return Response(found.parse_status, answers.parse_error(str(exc)))
        except ApiError as exc:
            answer = Answer(answers.Context(0, 0))
            exc.bare = True
            answer.error(exc)
            return respond(answer)
        except OSError as exc:
            # This machine's disk or file system, not the pool: a volume of 16 TiB and more, for example.
            text = f"The sandbox cannot store this: {exc.strerror}"
            return Response(500, answers.plain_error(answers.FAIL_UNKNOWN_ERROR, text))
        except Exception as exc:
            self.exceptions.append(traceback.format_exc())
            text = f"An unhandled exception of type {type(exc).__name__} occurred. {exc}"
            return Response(500, answers.plain_error(answers.FAIL_UNKNOWN_ERROR, text))

    def _check_properties(self, body: Any) -> None:
        """ApiError for what a release before 1.26, which balances nothing, has not in its list of properties."""
        if self.cluster.at_least("1.21.0") or not isinstance(body, dict):
            return
        if "BalanceResourcesEnabled" in body:
            properties.refuse_key("BalanceResourcesEnabled")
        for below in body.values():
            self._check_properties(below)

    def definition(self, name: str) -> ResourceDefinition:
        """A resource definition by name; ApiError 301."""
        found = self.cluster.definitions.get(name)
        if found is None:
            raise not_found(answers.FAIL_NOT_FOUND_RSC_DFN, "resource definition", name)
        return found

    def read_definition(self, name: str) -> ResourceDefinition:
        """As definition(), for GET requests, which say less."""
        found = self.cluster.definitions.get(name)
        if found is None:
            raise ApiError(answers.FAIL_NOT_FOUND_RSC_DFN, f"Resource definition '{name}' not found.", bare=True)
        return found

    def node(self, name: str, *, bare: bool = False) -> Node:
        """A node by name; ApiError 300."""
        found = self.cluster.nodes.get(name)
        if found is None:
            raise not_found(answers.FAIL_NOT_FOUND_NODE, "node", name, bare=bare)
        return found

    def group(self, name: str) -> ResourceGroup:
        """A resource group by name; ApiError 317."""
        found = self.cluster.groups.get(name)
        if found is None:
            raise not_found(answers.FAIL_NOT_FOUND_RSC_GRP, "resource group", name)
        return found

    def resource(self, definition: ResourceDefinition, node: str) -> Resource:
        """A resource of a definition by node; ApiError 302."""
        found = definition.resources.get(node)
        if found is None:
            exc = ApiError(
                answers.FAIL_NOT_FOUND_RSC,
                f"Resource '{definition.name}' on node '{node}' not found.",
                cause=f"The specified resource '{definition.name}' on node '{node}' could not be found in the database",
                correction=f"Create a resource with the name '{definition.name}' on node '{node}' first.",
            )
            raise exc
        return found

    def snapshot(self, definition: ResourceDefinition, name: str) -> Snapshot:
        """A snapshot of a definition by name; ApiError 313."""
        found = definition.snapshots.get(name)
        if found is None:
            raise ApiError(
                answers.FAIL_NOT_FOUND_SNAPSHOT_DFN, f"Snapshot '{name}' of resource '{definition.name}' not found."
            )
        return found

    def volume(self, definition: ResourceDefinition, number: str) -> VolumeDefinition:
        """A volume definition by number; ApiError 303."""
        found = definition.volumes.get(int(number)) if number.isdigit() else None
        if found is None:
            name = definition.name
            described = f"volume definition '{name}' with volume number '{number}'"
            raise ApiError(
                answers.FAIL_NOT_FOUND_VLM_DFN,
                f"{described[0].upper()}{described[1:]} not found.",
                cause=f"The specified {described} could not be found in the database",
                correction=f"Create a volume definition with the name '{name}' first.",
            )
        return found


def _concerned(found: Route, request: Request) -> Optional[list[str]]:
    """The definitions that a request may have changed; None is "any"."""
    if {"query-size-info", "query-all-size-info", "key-value-store"} & set(found.segments):
        return []
    if not {"resource-definitions", "spawn", "snapshot"} & set(found.segments):
        return None
    return [*request.params.values(), *_names(request.body)]


def _names(body: Any) -> Iterator[str]:
    """All texts in a body, where the names of definitions are."""
    if isinstance(body, str):
        yield body
    for value in body.values() if isinstance(body, dict) else body if isinstance(body, list) else ():
        yield from _names(value)


def paginate(request: Request, items: list[Any]) -> list[Any]:
    """limit and offset; an offset without a limit is ignored."""
    limit, offset = (_number(request, key) for key in ("limit", "offset"))
    return items if limit <= 0 else items[max(0, offset) : max(0, offset) + limit]


def _number(request: Request, key: str) -> int:
    text = (request.values(key) or ["0"])[-1]
    if not re.fullmatch("-?[0-9]{1,10}", text):
        message = "An unknown error occurred."
        raise ApiError(answers.FAIL_UNKNOWN_ERROR, message, details="HTTP 404 Not Found", report=True, bare=True)
    return int(text)


def name_filter(request: Request, key: str) -> Callable[[str], bool]:
    """Whether a name is among the values of a query parameter; without any, every name is."""
    wanted = {value.upper() for value in request.values(key)}
    return lambda name: not wanted or name.upper() in wanted
