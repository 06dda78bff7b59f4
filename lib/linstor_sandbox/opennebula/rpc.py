"""oned's XML-RPC: the calls with which a driver asks about VMs, datastores, images and hosts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn
from typing import Any, Callable, Union
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

from linstor_sandbox.opennebula.errors import Refused

SUCCESS, AUTHENTICATION, NO_EXISTS, INTERNAL = 0x0000, 0x0100, 0x0400, 0x2000

Answer = tuple[Any, ...]
# Asked before every request is answered; where it says no, nothing else is said than what it has written itself.
Watch = Callable[[BaseHTTPRequestHandler], bool]


@dataclass(frozen=True)
class Request:
    """One call that was answered; those inside a system.multicall are recorded one by one, after it."""

    method: str
    arguments: tuple[Any, ...]


class _Handler(SimpleXMLRPCRequestHandler):
    rpc_paths = ("/RPC2",)
    server: _Server

    def do_POST(self) -> None:  # noqa: N802
        """Answer, unless whoever watches has done so."""
        if self.server.watch(self):
            super().do_POST()
        else:
            self.close_connection = True


class _Server(ThreadingMixIn, SimpleXMLRPCServer):
    daemon_threads = True
    watch: Watch

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of what has failed, but not of clients that have gone away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    # A driver of 15 VMs at once must not be refused.
    request_queue_size = 64


class Endpoint:
    """An XML-RPC server in a thread.

    Methods get the arguments after the session; they return XML or an id, or raise KeyError or Refused.
    """

    def __init__(self, session: str, methods: Mapping[str, tuple[str, Callable[..., Union[str, int]]]]) -> None:
        self._session = session
        self._methods = methods
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.http_requests = 0
        self.multicall_allowed = True
        self._server = _Server(("127.0.0.1", 0), _Handler, logRequests=False, allow_none=False)
        self.set_watch(lambda _: True)
        self._server.register_instance(self)
        self._server.register_function(self._multicall, "system.multicall")
        self.resume()

    @property
    def uri(self) -> str:
        """Where ONE_XMLRPC points."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/RPC2"

    def set_watch(self, watch: Watch) -> None:
        """Let this be asked before every request is answered."""
        self._server.watch = watch

    def resume(self) -> None:
        """Answer, in this process or in a fork of one that has paused."""
        # A short interval, because closing takes as long.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="oned", daemon=True).start()

    def pause(self) -> None:
        """Stop answering for a while; the address stays ours."""
        self._server.shutdown()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def _dispatch(self, method: str, parameters: tuple[Any, ...]) -> Answer:
        """Answer a call that came alone; the name is what SimpleXMLRPCServer looks for."""
        with self._lock:
            self.http_requests += 1
        return self._answer(method, parameters)

    def _multicall(self, calls: Any) -> list[Any]:
        """Answer several calls of one request; an unknown method inside is a fault of its own."""
        with self._lock:
            self.http_requests += 1
            self.requests.append(Request("system.multicall", (len(calls),)))
        if not self.multicall_allowed:
            raise NotImplementedError("Requested method system.multicall not found")
        return [self._inside(call["methodName"], tuple(call["params"])) for call in calls]

    def _inside(self, method: str, parameters: tuple[Any, ...]) -> Any:
        try:
            return [self._answer(method, parameters)]
        except NotImplementedError as error:
            return {"faultCode": -506, "faultString": str(error)}

    def _answer(self, method: str, parameters: tuple[Any, ...]) -> Answer:
        with self._lock:
            self.requests.append(Request(method, parameters[1:]))
        if method not in self._methods:
            raise NotImplementedError(f"Requested method {method} not found")
        kind, function = self._methods[method]
        if not parameters or parameters[0] != self._session:
            return _failure(AUTHENTICATION, f"[{method}] User couldn't be authenticated, aborting call.")
        try:
            return (True, function(*parameters[1:]), SUCCESS)
        except KeyError as error:
            return _failure(NO_EXISTS, f"[{method}] Error getting {kind} [{error.args[0]}].")
        except Refused as refused:
            return _failure(INTERNAL, f"[{method}] {refused}")


def _failure(code: int, message: str) -> Answer:
    return (False, message, code, -1, "")
