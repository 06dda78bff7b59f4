"""The sandbox: a LINSTOR controller, satellites and hosts in a box."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Optional

from . import server
from .balance import Balance
from .controller import Controller
from .controller.pending import catch_up
from .faults import Faults
from .hosts.domains import Domains
from .hosts.guests import Guest
from .hosts.install import install, install_watched, uninstall
from .hosts.virsh import Virsh
from .model import KINDS, Cluster, Failure, Node, Pool, Resource, ResourceDefinition, version_tuple
from .openings import Opening
from .private import Connection, Private
from .recorded_times import RecordedTimes
from .storage import Content

_REBIND_SECONDS = 5.0

VERSIONS = ((1, 13, 0), (1, 29, 1))
"""The oldest and the newest REST API that can be chosen."""
OPERATIONS = ("create", "snapshot", "resize", "clone", "delete", "delete-silently")


class Sandbox:
    """Everything, in this process: a server thread, state in memory, bytes and hosts below `root`."""

    OPERATIONS = OPERATIONS

    def __init__(
        self,
        root: Path,
        nodes: Sequence[str] = ("node1", "node2", "node3"),
        pools: Sequence[Pool] = (Pool("data", "LVM_THIN"),),
        rest_version: str = "1.27.0",
        *,
        port: int = 0,
        tls: Optional[ssl.SSLContext] = None,
        redirect_port: int = 0,
        token: str = "",
        latency: float = 0.0,
        satellite_seconds: float = 0.0,
        sync_seconds: float = 0.0,
        auto_promote_timeout: float = 2.0,
        in_use_lag: float = 0.0,
        connect_seconds: float = 0.0,
        clone_seconds: float = 0.0,
        recorded_times: bool = False,
    ) -> None:
        if not VERSIONS[0] <= version_tuple(rest_version) <= VERSIONS[-1]:
            raise ValueError(f"REST version {rest_version} is not between 1.13.0 and 1.29.1: 1.27.0 is LINSTOR 1.33's")
        if token and version_tuple(rest_version) < (1, 28):
            raise ValueError(f"REST version {rest_version} knows no tokens: choose 1.28.0 or newer")
        self.root = Path(root).resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.cluster = Cluster(self.root, rest_version)
        self.cluster.sync_seconds = sync_seconds
        self.cluster.clone_seconds = clone_seconds
        self.connect_seconds = connect_seconds
        self.controller = Controller(self.cluster)
        self.satellites = self.controller.satellites
        self.devices = self.satellites.devices
        self.openings = self.satellites.openings
        self.openings.promote_timeout = auto_promote_timeout
        self.openings.in_use_lag = in_use_lag
        self.faults = Faults()
        self.faults.latency = latency
        self.satellite_seconds = satellite_seconds
        self.recorded_times = RecordedTimes() if recorded_times else None
        self.one_at_a_time = threading.Lock()
        self.requests: list[server.Recorded] = []
        self.witness: Optional[Callable[[server.Exchange], None]] = None
        self.connections: list[Connection] = []
        self.refusing_hosts: set[str] = set()
        # {host: (hang, exit, refuse or die, bytes until then)}
        self.ssh_faults: dict[str, tuple[str, int]] = {}
        # Asked before every ssh connection, as the command `ssh`, and every watched command: host, command, process id.
        self.watch: Callable[[str, str, int], bool] = lambda _host, _command, _process: True
        # What the ssh connection is to run of which `watch` is asked, in the thread in which it is.
        self.asking = threading.local()
        self.stopping = threading.Event()
        self._failing_over = threading.Lock()
        self.domains = Domains(self.cluster, self.openings, self.stopping, lambda: len(self.requests))
        self.virsh = Virsh(self.domains)
        self.private = Private(self)
        self._populate(nodes, pools)
        self.standby_port = 0
        self._standby: Optional[socket.socket] = None
        self._reserved: Optional[socket.socket] = None
        self._started = False
        self._servers: list[server.Server] = []
        self.ended_controllers = 0
        self._tools_server: Optional[server.Server] = None
        self.port = port
        self.tls = tls
        self.redirect_port = redirect_port
        self.token = token

    def _populate(self, nodes: Sequence[str], pools: Sequence[Pool]) -> None:
        for name in nodes:
            self.cluster.add_node(name)
        for pool in pools:
            if pool.kind not in KINDS:
                raise ValueError(f"Pool {pool.name} has kind {pool.kind}: use one of {', '.join(KINDS)}")
            for name in pool.nodes or nodes:
                if name not in self.cluster.nodes:
                    raise ValueError(f"Pool {pool.name} is on node {name}, which is none of {', '.join(nodes)}")
                made = self.cluster.add_pool(self.cluster.nodes[name], pool.name, pool.kind, pool.size_mib * 1024)
                made.zeroes = pool.zeroes

    def start(self) -> Sandbox:
        """Listen, and lay out the hosts."""
        self._tools_server = server.Server(self, ("127.0.0.1", 0))
        server.start(self._tools_server)
        self.start_controller()
        install(self.root, [node.name for node in self.cluster.nodes], self._tools_server.server_address[1])
        return self

    def stop(self) -> None:
        """End the server and all waiting requests; the files stay."""
        self.stopping.set()
        self.faults.clear()
        self.stop_controller()
        if self._standby is not None:
            self._standby.close()
            self._standby = None
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        if self._tools_server is not None:
            self._tools_server.shutdown()
            self._tools_server.server_close()
            self._tools_server = None

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self, kind: Optional[type[BaseException]], exc: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.stop()

    def pause(self) -> None:
        """Stop all threads, so that this process may be forked; the addresses stay this sandbox's."""
        self.stop_controller()
        self._reserved = _bound(self.port)
        if self._tools_server is not None:
            self._tools_server.shutdown()

    def resume(self) -> None:
        """Go on, in this process or in a fork of it."""
        if self._tools_server is not None:
            server.start(self._tools_server)
        self.start_controller()

    def watch_command(self, node: str, command: str, directory: Optional[Path] = None) -> None:
        """Let `watch` be asked before every run of a command on a host, or of one that is found in a directory."""
        assert self._tools_server is not None
        folder = directory or self.host(node) / "steps"
        install_watched(self.root, folder, node, command, self._tools_server.server_address[1])

    def start_controller(self) -> None:
        """Listen on the controller's port (again); with `connect_seconds` its satellites come back step by step."""
        if self._servers:
            return
        if self.connect_seconds and self._started:
            with self.cluster.lock:
                for node in [found for found in self.cluster.nodes if found.online]:
                    node.reported = False
                    self._come_back(node)
        self._started = True
        self.port = self._listen(server.Server(self, ("127.0.0.1", self.port), self.tls))
        if self.tls is not None:
            self.redirect_port = self._listen(server.Server(self, ("127.0.0.1", self.redirect_port), redirects=True))

    def _listen(self, listener: server.Server) -> int:
        self._servers.append(listener)
        server.start(listener)
        return int(listener.server_address[1])

    def _come_back(self, node: Node) -> None:
        """OFFLINE, after half the time CONNECTED, then ONLINE."""
        self.cluster.connect(node, "OFFLINE")
        steps = ((self.connect_seconds / 2, "CONNECTED"), (self.connect_seconds, "ONLINE"))
        for seconds, connection in steps if self.connect_seconds else ((0, "ONLINE"),):
            self.cluster.later(seconds, functools.partial(self._arrive, node, connection))

    def _arrive(self, node: Node, connection: str) -> None:
        if node.connection in ("OFFLINE", "CONNECTED") and node.satellite_up:
            self.set_connection(node.name, connection)

    def fail_over(self) -> None:
        """Stop here and go on at the other address, with the same state."""
        with self._failing_over:
            standby, stopped = self._hold_standby(), self._stop_listening()
            self.standby_port, self.port = self.port, self.standby_port
            standby.close()
            self._standby = None
            self.start_controller()
            self._hold_standby()
        # Last, so that whoever is cut off finds the other address.
        for listener in stopped:
            listener.cut()

    def _hold_standby(self) -> socket.socket:
        """Keep the second address for this sandbox: nobody listens there."""
        if self._standby is None:
            self._standby = _bound(self.standby_port)
            self.standby_port = self._standby.getsockname()[1]
        return self._standby

    @property
    def uris(self) -> str:
        """Both addresses of the controller, for LS_CONTROLLERS: it listens at one of them."""
        self._hold_standby()
        return ",".join(f"{self._scheme}://127.0.0.1:{port}" for port in sorted((self.port, self.standby_port)))

    def stop_controller(self) -> None:
        """Connections are refused, those that are open end; the hosts live on. A restart locks the passphrase."""
        for listener in self._stop_listening():
            listener.cut()

    def _stop_listening(self) -> list[server.Server]:
        stopped, self._servers = self._servers, []
        self.ended_controllers += 1
        self.cluster.passphrase.unlocked = False
        for listener in stopped:
            listener.shutdown()
            listener.server_close()
        return stopped

    @property
    def uri(self) -> str:
        """What LS_CONTROLLERS is set to."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def _scheme(self) -> str:
        return "https" if self.tls is not None else "http"

    def environment(self, **extra: str) -> dict[str, str]:
        """Environment for a process on the front-end: its ssh is the sandbox's."""
        env = dict(os.environ)
        env["PATH"] = f"{self.root / 'bin'}:{env.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"
        env["LS_CONTROLLERS"] = self.uri
        env.pop("LINSTOR_SANDBOX_NODE", None)
        env.update(extra)
        return env

    def host(self, node: str) -> Path:
        """The root of a host's files."""
        return self.devices.host(node)

    def clear_requests(self) -> None:
        """Forget the recorded REST requests."""
        self.requests.clear()

    def clear_connections(self) -> None:
        """Forget the recorded ssh connections."""
        self.connections.clear()

    @property
    def exceptions(self) -> list[str]:
        """Tracebacks of what went wrong inside the sandbox itself."""
        return self.controller.exceptions

    def definition(self, name: str) -> ResourceDefinition:
        """A resource definition by name; KeyError when there is none."""
        return self.cluster.definitions[name]

    def resource(self, name: str, node: str) -> Optional[Resource]:
        """A resource by name and node, or None."""
        found = self.cluster.definitions.get(name)
        return found.resources.get(node) if found else None

    def _content(self, resource: str, volume: int = 0, node: Optional[str] = None) -> Content:
        definition = self.cluster.definitions[resource]
        for replica in definition.diskful():
            content = replica.content(volume)
            if content is not None and node in (None, replica.node.name):
                return content
        raise KeyError(f"Resource {resource} has no bytes: it has no replica")

    def read(
        self,
        resource: str,
        offset: int = 0,
        length: Optional[int] = None,
        *,
        volume: int = 0,
        node: Optional[str] = None,
    ) -> bytes:
        """Bytes of a volume, whoever has it open."""
        with self.cluster.lock, self._content(resource, volume, node).path.open("rb") as file:
            file.seek(offset)
            return file.read() if length is None else file.read(length)

    def write(self, resource: str, data: bytes, offset: int = 0, *, volume: int = 0) -> None:
        """Put bytes into a volume, whoever has it open."""
        with self.cluster.lock:
            content = self._content(resource, volume)
            content.written = True
            content.stamp(offset, len(data))
            self.cluster.touch([resource])
            with content.path.open("r+b") as file:
                file.seek(offset)
                file.write(data)

    def allocated(self, resource: str, *, volume: int = 0) -> int:
        """Allocated bytes of a volume."""
        with self.cluster.lock:
            return self._content(resource, volume).allocated()

    def device_size(self, resource: str, *, volume: int = 0) -> int:
        """Bytes of the device."""
        with self.cluster.lock:
            return self._content(resource, volume).size

    def open(self, node: str, resource: str, mode: str = "w", holder: str = "", *, volume: int = 0) -> Opening:
        """Open a device as a process on a host would ("r" or "w"); OSError when DRBD refuses."""
        with self.cluster.lock:
            definition = self.cluster.definitions[resource]
            found = definition.resources.get(node)
            path = "" if found is None else self.devices.path(found, definition.volumes[volume])
        return self.openings.open(self.cluster.nodes[node], path, mode == "w", holder=holder or "sandbox")

    def close(self, opening: Opening) -> None:
        """Close what open() opened."""
        self.openings.close(opening.serial)

    def guest(self, vm: str) -> Guest:
        """What runs in a domain (`one-7`): choose its agent, write to its disks, see whether it is held."""
        return self.domains.guest(vm)

    def fail_virsh(
        self, command: str, step: str = "", message: str = "internal error: injected failure", times: int = 1
    ) -> None:
        """Let the next virsh commands of a kind fail; see Domains.fail for `step`."""
        self.domains.fail(command, step, message, times)

    def set_connection(self, node: str, connection: str) -> None:
        """OFFLINE, CONNECTED (the satellite is there and is being told everything), ONLINE (it knows)."""
        with self.cluster.lock:
            found = self.cluster.nodes[node]
            self.cluster.connect(found, connection)
            self.cluster.touch()
            if found.online:
                catch_up(self.controller, found)
            self.cluster.lock.notify_all()

    def set_node(self, node: str, online: bool, *, satellite_only: bool = False) -> None:
        """Take a host down or bring it back; or only its satellite (ssh and what is open there live on)."""
        with self.cluster.lock:
            found = self.cluster.nodes[node]
            if not satellite_only:
                found.host_up = online
                if not online:
                    self.domains.drop_host(found.name)
                    self.openings.drop_host(found.name)
            elif online:
                found.host_up = True
            found.satellite_up = online
            if online and self.connect_seconds:
                self._come_back(found)
            else:
                self.set_connection(node, "ONLINE" if online else "OFFLINE")

    def set_ssh(self, node: str, fault: str, after: int = 0) -> None:
        """ssh to a host will `hang`, `refuse`, `exit` (255), `die` after so many bytes; or is `ok` again."""
        self.ssh_faults[self.cluster.nodes[node].name] = (fault, after)

    def refuse_ssh(self, node: str, refuse: bool = True) -> None:
        """A host whose sshd does not answer while its satellite does."""
        (self.refusing_hosts.add if refuse else self.refusing_hosts.discard)(node.lower())

    def refuse_sudo(self, node: str, *commands: str) -> None:
        """A host whose sudo has no rule for these commands, or with `ALL` for none; without any it allows all."""
        (self.host(node) / "etc" / "sudo-refused").write_text("\n".join(commands))

    def remove_tool(self, node: str, tool: str) -> None:
        """A host that lacks a tool, thin_delta for instance."""
        uninstall(self.host(node), tool)

    def fill_directory(self, node: str, directory: str, free_bytes: int = 0) -> None:
        """Leave only so much for files below a directory of a host, as though it were a file system of its own.

        For what dd, cp, qemu-img and qemu-io write there, and for df; a negative number is no limit any more.
        """
        top = self.host(node) / os.path.normpath(directory).lstrip("/")
        taken = sum(path.lstat().st_blocks * 512 for path in top.rglob("*") if not path.is_dir())
        limit = f"{top} {taken + free_bytes}\n" if free_bytes >= 0 else ""
        (self.host(node) / "etc" / "filled").write_text(limit)

    def hang_satellite(self, node: str, hung: bool = True) -> None:
        """A satellite that does not answer while its connection stays: an uncached pool list is an error then."""
        names = self.controller.hung_satellites
        if hung and node not in names:
            names.append(node)
        elif not hung and node in names:
            names.remove(node)

    def break_satellite(self, node: str, operation: str, times: int = 1) -> Failure:
        """Let the next commands of a kind fail on a node; set `remaining` of the result to 0 to mend it."""
        if operation not in OPERATIONS:
            raise ValueError(f"{operation} is no operation: use one of {', '.join(OPERATIONS)}")
        failure = Failure(node, operation, times)
        with self.cluster.lock:
            self.cluster.failures.append(failure)
        return failure

    def mend(self) -> None:
        """No more failures on any node; what stayed DELETING goes."""
        with self.cluster.lock:
            self.cluster.failures.clear()
            self.cluster.touch()
            for node in self.cluster.nodes:
                if node.online:
                    catch_up(self.controller, node)

    def repair(self) -> None:
        """No more faults of any kind, but for hosts that are down and pools that are full."""
        self.faults.clear()
        self.ssh_faults.clear()
        self.mend()

    def fill_pool(self, node: str, pool: str, free_mib: int = 0) -> None:
        """Leave only so much free in a pool."""
        with self.cluster.lock:
            found = self.cluster.nodes[node].pools[pool]
            found.withheld = 0
            found.withheld = max(0, found.free() - free_mib * 1024)

    def set_disk_state(self, resource: str, node: str, state: Optional[str]) -> None:
        """Force a replica's disk state, e.g. Inconsistent or Outdated; None is back to normal."""
        with self.cluster.lock:
            self.cluster.definitions[resource].resources[node].disk_state = state
            self.cluster.touch()

    def stand_alone(self, resource: str, node: str, alone: bool = True) -> None:
        """Have a replica unconnected with all others, as after a split brain: each calls itself up to date."""
        with self.cluster.lock:
            nodes = self.cluster.definitions[resource].standing_alone
            (nodes.add if alone else nodes.discard)(node)
            self.cluster.touch()

    def run_balance(self) -> tuple[int, int]:
        """LINSTOR's BalanceResourcesTask, once: (definitions that grew, replicas removed)."""
        self.cluster.touch()
        return Balance(self.controller).run()

    def snapshot_of_state(self) -> dict[str, Any]:
        """All that exists, as plain data without what changes from run to run (ids, times)."""
        with self.cluster.lock:
            return {
                "resource_definitions": {rd.name: _definition(rd) for rd in self.cluster.definitions},
                "resource_groups": {
                    group.name: {"select_filter": group.filter.to_json(), "props": dict(group.props)}
                    for group in self.cluster.groups
                },
                "key_values": {kvs.name: dict(kvs.props) for kvs in self.cluster.key_values},
                "open": sorted(
                    [opening.node, opening.definition.name, "w" if opening.write else "r"]
                    for opening in self.openings.all()
                ),
                "metadata_snapshots": sorted(
                    f"{node.name}/{pool.name}"
                    for node in self.cluster.nodes
                    for pool in node.pools
                    if pool.metadata_snapshot is not None
                ),
                "domains": sorted(f"{domain.node}/{domain.name}" for domain in self.domains.all.values()),
                "files": {node.name: _files(self.host(node.name) / "var") for node in self.cluster.nodes},
            }


def _bound(port: int) -> socket.socket:
    """A socket that keeps an address and does not listen there.

    A process that is just being started holds the listener of before until it has become another program.
    """
    deadline = time.monotonic() + _REBIND_SECONDS
    while True:
        kept = socket.socket()
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            kept.bind(("127.0.0.1", port))
            return kept
        except OSError as failure:
            kept.close()
            if failure.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _definition(definition: ResourceDefinition) -> dict[str, Any]:
    return {
        "group": definition.group.name,
        "props": dict(sorted(definition.props.items())),
        "flags": sorted(definition.flags),
        "layers": list(definition.layers),
        "volumes": {str(number): volume.size for number, volume in sorted(definition.volumes.items())},
        "resources": {
            res.node.name: {"pool": res.pool.name, "flags": sorted(res.flags), "layers": list(res.layers)}
            for res in definition.resources
        },
        "snapshots": {
            snap.name: {"nodes": [rep.node.name for rep in snap.replicas], "flags": sorted(snap.flags)}
            for snap in definition.snapshots
        },
        "connections": {"/".join(sorted(pair)): dict(props) for pair, props in definition.connections.items() if props},
    }


def _files(top: Path) -> dict[str, str]:
    """What lies below a directory: links with their target, files with size and digest, directories."""
    found = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        else:
            data = path.read_bytes()
            found[name] = f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"
    return found


def parse_pool(text: str) -> Pool:
    """NAME:KIND:SIZE_MIB[:node,node]."""
    match = re.fullmatch(r"([^:]+):([A-Za-z_]+):(\d+)(?::([^:]+))?", text)
    if match is None or match.group(2).upper() not in KINDS:
        raise ValueError(f"{text!r} is no pool: write NAME:KIND:SIZE_MIB[:node,node], KIND one of {', '.join(KINDS)}")
    nodes = tuple(match.group(4).split(",")) if match.group(4) else None
    return Pool(match.group(1), match.group(2).upper(), int(match.group(3)), nodes)
