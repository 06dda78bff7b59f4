"""What a benchmark runs against: a sandbox in a process of its own, or a real controller and real hosts."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from bench.rest import Refused, Rest

NODES = ("node1", "node2", "node3")
POOL = "data"
PREFIX = "bench"
"""What all names begin with that a benchmark gives in LINSTOR."""
FIRST_DATASTORE_ID = 990_000
"""Datastores on hosts are beside real ones, and their directories are removed."""
_POOL_MIB = 1 << 20
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")


class NotPossible(RuntimeError):
    """A benchmark cannot be made there; the text says why, and what to do."""


@dataclass(frozen=True)
class Cluster:
    """A LINSTOR cluster: the first two nodes hold replicas in `pool`, the third is one without.

    `environment` is what reaches the hosts over ssh.
    """

    uri: str
    nodes: tuple[str, ...]
    pool: str
    environment: Mapping[str, str]
    is_sandbox: bool

    @property
    def holders(self) -> tuple[str, ...]:
        """The nodes on which replicas are placed."""
        return self.nodes[:2]

    def ssh(self, node: str, script: str, check: bool = True) -> str:
        """What a line of shell prints on a host; raises NotPossible where it fails and that matters."""
        done = subprocess.run(
            [*_SSH, node, script],
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(self.environment),
            check=False,
        )
        if check and done.returncode != 0:
            raise NotPossible(f"`{script}` on {node} failed: {done.stderr.strip()[-300:]}")
        return done.stdout


@contextmanager
def sandbox(
    folder: Path,
    nodes: Sequence[str] = NODES,
    holders: Sequence[str] = NODES[:2],
    volumes: int = 0,
    recorded_times: bool = False,
) -> Iterator[Cluster]:
    """Run a sandbox with so many volumes for the length of the block, its satellites fast or as recorded."""
    root = folder / "sandbox"
    command = [sys.executable, "-m", "linstor_sandbox", "--root", str(root), "--port", "0", "--nodes", ",".join(nodes)]
    command += ["--pool", f"{POOL}:LVM_THIN:{_POOL_MIB}:{','.join(holders)}", "--volumes", str(volumes)]
    command += ["--recorded-times"] if recorded_times else []
    library = str(Path(__file__).resolve().parent.parent / "lib")
    environment = {**os.environ, "PYTHONPATH": library}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            if words[:1] != ["ready"]:
                raise NotPossible("the sandbox does not start: see above")
            reaching = {**os.environ, "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"}
            reaching.pop("LINSTOR_SANDBOX_NODE", None)
            yield Cluster(words[1], tuple(nodes), POOL, reaching, True)
        finally:
            process.terminate()


@contextmanager
def real(controller: str, nodes: Sequence[str], pool: str) -> Iterator[Cluster]:
    """A real cluster for the length of the block; what a benchmark has left there is removed at its end.

    Raises NotPossible where anything is missing that a benchmark needs.
    """
    found = Cluster(_plain(controller), tuple(nodes), pool, dict(os.environ), False)
    _check(found)
    try:
        yield found
    finally:
        _sweep(found)


def _plain(controller: str) -> str:
    address = controller if "://" in controller else f"http://{controller}"
    parts = urlsplit(re.sub("^linstor://", "http://", address))
    if parts.scheme != "http":
        raise NotPossible(
            f"requests to {controller} are encrypted and cannot be counted: name the controller's plain address, such "
            "as http://controller:3370"
        )
    return f"http://{parts.hostname}:{parts.port or 3370}"


def _check(cluster: Cluster) -> None:
    if len(cluster.nodes) < 3:
        raise NotPossible("--nodes names fewer than three: two are for replicas, and one for a host without any")
    try:
        there = {pool["node_name"] for pool in _pools(cluster)}
        volumes = _volumes(cluster)
    except (OSError, http.client.HTTPException, Refused) as error:
        raise NotPossible(f"no LINSTOR answers at {cluster.uri} ({error}): correct --controller") from None
    without = [node for node in cluster.holders if node not in there]
    if without:
        raise NotPossible(
            f"{' and '.join(without)} has no pool {cluster.pool}: correct --pool, or name nodes that have it first"
        )
    if volumes:
        raise NotPossible(
            f"there are volumes that a benchmark has left or somebody else has made ({', '.join(volumes[:3])}, ...): "
            f"remove what begins with {PREFIX}- first"
        )
    for node in cluster.nodes:
        cluster.ssh(node, "command -v qemu-img dd lsblk setsid >/dev/null")


def _pools(cluster: Cluster) -> list[dict[str, str]]:
    found: list[dict[str, str]] = Rest(cluster.uri)(
        "GET", f"/v1/view/storage-pools?storage_pools={quote(cluster.pool)}"
    )
    return found


def _volumes(cluster: Cluster) -> list[str]:
    """The benchmark's own volumes."""
    found = Rest(cluster.uri)("GET", "/v1/resource-definitions")
    return [item["name"] for item in found if item["name"].startswith(f"{PREFIX}-")]


def _sweep(cluster: Cluster) -> None:
    """Remove volumes, groups and directories: by their names they are nobody else's."""
    rest = Rest(cluster.uri)
    for name in _volumes(cluster):
        for snapshot in rest("GET", f"/v1/resource-definitions/{name}/snapshots"):
            rest("DELETE", f"/v1/resource-definitions/{name}/snapshots/{quote(snapshot['name'])}")
        rest("DELETE", f"/v1/resource-definitions/{name}")
    for group in rest("GET", "/v1/resource-groups"):
        if group["name"].startswith(f"{PREFIX}-"):
            rest("DELETE", f"/v1/resource-groups/{quote(group['name'])}")
    for node in cluster.nodes:
        cluster.ssh(node, f"rm -rf /var/lib/one/datastores/{FIRST_DATASTORE_ID // 1000}[0-9][0-9][0-9]", check=False)
