"""The private paths of the server: what the hosts' tools, and tests in other processes, ask."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from . import script
from .controller import Request, Response
from .hosts import lvm, status, zfs

if TYPE_CHECKING:
    from .sandbox import Sandbox


@dataclass(frozen=True)
class Connection:
    """One ssh connection."""

    host: str
    command: str


class Private:
    """Answers /sandbox/...; not a part of LINSTOR."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._handlers: dict[str, Callable[[Request], Response]] = {
            "ssh": self._ssh,
            "open": self._open,
            "tool": self._tool,
            "step": self._step,
            "state": self._state,
            "requests": self._requests,
            "faults": self._faults,
            "fault": self._fault,
            "node": self._node,
            "balance": self._balance,
        }

    def handle(self, request: Request) -> Response:
        """The answer to a private request."""
        handler = self._handlers.get(request.path[len("/sandbox/") :])
        if handler is None:
            return Response(404, f"{request.path} is none of {', '.join(self._handlers)}\n", "text/plain")
        return handler(request)

    @staticmethod
    def _lines(request: Request) -> list[str]:
        return request.raw.decode("utf-8", "surrogateescape").split("\n")

    def _text(self, *lines: str) -> Response:
        return Response(200, "\n".join(lines), "text/plain")

    def _ssh(self, request: Request) -> Response:
        host, _, command = request.raw.decode("utf-8", "surrogateescape").partition("\n")
        node = self.sandbox.cluster.nodes.get(host)
        if node is None:
            return self._text("unknown")
        self.sandbox.connections.append(Connection(node.name, command))
        self.sandbox.asking.command = command
        if not self.sandbox.watch(node.name, "ssh", 0):
            return self._text("exit")
        if host.lower() in self.sandbox.refusing_hosts:
            return self._text("refused")
        if not node.host_up:
            return self._text("offline")
        fault, after = self.sandbox.ssh_faults.get(node.name, ("ok", 0))
        while fault == "hang" and not self.sandbox.stopping.wait(0.05):
            fault, after = self.sandbox.ssh_faults.get(node.name, ("ok", 0))
        return self._text(
            {"refuse": "refused", "exit": "exit"}.get(fault, "ok"), node.name, *([str(after)] if fault == "die" else [])
        )

    def _open(self, request: Request) -> Response:
        """node, pid, then "mode path" lines; for each a line: `device size zeroed file`, `error number text` or `-`."""
        node_name, pid, *wanted = self._lines(request)
        node = self.sandbox.cluster.nodes[node_name]
        answer = []
        for line in wanted:
            mode, _, path = line.partition(" ")
            answer.append(self._open_one(node.name, int(pid), mode, path))
        return self._text(*answer)

    def _open_one(self, node_name: str, pid: int, mode: str, path: str) -> str:
        sandbox = self.sandbox
        host = f"{sandbox.host(node_name)}/"
        inside = path[len(host) :] if path.startswith(host) else path
        with sandbox.cluster.lock:
            device = sandbox.devices.find(node_name, inside)
            if device is None:
                return "-"
            zeroed = all(res.pool.kind.zeroed for res in device.definition.diskful())
        try:
            if mode in ("r", "w"):
                sandbox.openings.open(sandbox.cluster.nodes[node_name], inside, mode == "w", pid=pid)
        except OSError as exc:
            return f"error {exc.errno} {os.strerror(exc.errno or 0)}"
        file = sandbox.host(node_name) / sandbox.devices.real_path(node_name, inside)
        return f"device {device.content.size} {'zeroed' if zeroed else 'dirty'} {file}"

    def _tool(self, request: Request) -> Response:
        node_name, tool, user, count, *rest = self._lines(request)
        arguments, text = rest[: int(count)], "\n".join(rest[int(count) :])
        node, is_root = self.sandbox.cluster.nodes[node_name], user == "root"
        if tool == "virsh":
            code, output, errors = self.sandbox.virsh.run(node, arguments, text)
        else:
            with self.sandbox.cluster.lock:
                if tool in ("lvs", "dmsetup", "thin_delta"):
                    code, output, errors = lvm.run(self.sandbox.cluster, node, tool, arguments, is_root)
                elif tool == "zfs":
                    code, output, errors = zfs.run(self.sandbox.cluster, node, arguments, is_root)
                else:
                    code, output, errors = status.run(self.sandbox.satellites, node, tool, arguments)
        return self._text(str(code), str(len(output)), output + errors)

    def _step(self, request: Request) -> Response:
        """node, command, pid: a command of a host that is watched is about to run; `fail` when it shall not."""
        node, command, pid = self._lines(request)
        return self._text("go" if self.sandbox.watch(node, command, int(pid)) else "fail")

    def _state(self, _request: Request) -> Response:
        return Response(200, self.sandbox.snapshot_of_state())

    def _requests(self, _request: Request) -> Response:
        return Response(200, [dataclasses.asdict(recorded) for recorded in self.sandbox.requests])

    def _faults(self, request: Request) -> Response:
        """{"kind": "answer" | "hang" | "delay" | "drop-before" | "drop-after", "pattern", "times", ...}."""
        if request.method == "DELETE":
            self.sandbox.faults.clear()
            return Response(200, {})
        try:
            self.sandbox.faults.from_json(json.loads(request.raw))
        except (ValueError, TypeError) as exc:
            return Response(400, {"error": str(exc)})
        return Response(200, {})

    def _fault(self, request: Request) -> Response:
        """A fault in words."""
        try:
            script.play(self.sandbox, request.raw.decode())
        except ValueError as exc:
            return Response(400, f"{exc}\n", "text/plain")
        return self._text("")

    def _node(self, request: Request) -> Response:
        """{"node", "online", "satellite_only"}."""
        body = json.loads(request.raw)
        self.sandbox.set_node(
            str(body["node"]), online=bool(body["online"]), satellite_only=bool(body.get("satellite_only"))
        )
        return Response(200, {})

    def _balance(self, _request: Request) -> Response:
        adjusted, removed = self.sandbox.run_balance()
        return Response(200, {"adjusted": adjusted, "removed": removed})
