"""A cluster in a box with an OpenNebula beside it: what the tests of actions run the entry scripts against."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Optional, Union

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.opennebula import Cloud, Release, backup_server, other_storages, scripts
from linstor_sandbox.opennebula.backup_server import BackupServer
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.frontend import install_shell
from tests import specification

CHECKOUT = Path(__file__).resolve().parent.parent
SHARED = CHECKOUT.parent / "shared"
NODES = ("node1", "node2", "node3")
# What a real cluster does after it has answered, it does here after so many seconds; calls take their turn.
HONEST_TIMES = {
    "sync_seconds": 0.3,
    "clone_seconds": 0.3,
    "in_use_lag": 0.3,
    "connect_seconds": 0.5,
    "satellite_seconds": 0.1,
}
# The two datastores of the original article, letter by letter.
SYSTEM_TEMPLATE = (
    'NAME="linstor-system" TYPE="SYSTEM_DS" STORAGE_POOL="data" AUTO_PLACE="2" CLONE_MODE="snapshot" '
    'CHECKPOINT_AUTO_PLACE="1" BRIDGE_LIST="node1 node2 node3" TM_MAD="linstor_un"'
)
IMAGE_TEMPLATE = (
    'NAME="linstor-images" TYPE="IMAGE_DS" STORAGE_POOL="data" AUTO_PLACE="2" BRIDGE_LIST="node1 node2 node3" '
    'DISK_TYPE="BLOCK" DS_MAD="linstor_un" TM_MAD="linstor_un"'
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let whoever has more time than a test run try more."""
    parser.addoption("--chains", type=int, default=2, metavar="COUNT", help="chains of backups per kind of pool (2)")


def commit() -> str:
    """The commit that is tested, for tests that are others after each."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "no commit"


class World:
    """A sandbox, a stand-in oned driving the real entry scripts, and the article's two datastores."""

    def __init__(self, sandbox: Sandbox, cloud: Cloud, folder: Path) -> None:
        self.sandbox = sandbox
        self.cloud = cloud
        self.folder = folder
        # The front-end's /var/lib/one.
        self.frontend = folder.parent / "frontend"
        self.system: Datastore = cloud.create_datastore(SYSTEM_TEMPLATE)
        self.images: Datastore = cloud.create_datastore(f'{IMAGE_TEMPLATE} SAFE_DIRS="{folder}"')
        self._backups: Optional[tuple[Datastore, BackupServer]] = None
        cloud.scripts.meters["rest"] = lambda: len(sandbox.requests)
        cloud.scripts.meters["ssh"] = lambda: len(sandbox.connections)

    @property
    def location(self) -> str:
        """The directory that all datastores are below, on hosts and front-end, from their root."""
        return os.path.normpath(self.cloud.location).lstrip("/")

    def install_remotes(self) -> Path:
        """Let the drivers run from a remotes folder of their own, which says OpenNebula's release."""
        remotes = self.folder.parent / "remotes"
        if self.cloud.scripts.remotes != remotes:
            scripts.copy(CHECKOUT, remotes)
            (remotes / "VERSION").write_text(f"{self.cloud.release}\n", encoding="utf-8")
            self.cloud.scripts.remotes = remotes
        return remotes

    def install_backups(self, driver: str = "rsync") -> tuple[Datastore, BackupServer]:
        """Let the drivers run from a remotes folder of their own, which has a server of backups and a downloader."""
        if self._backups is None:
            server = BackupServer(self.install_remotes(), self.folder.parent / "backups", driver)
            self._backups = self.cloud.create_datastore(backup_server.TEMPLATES[driver]), server
        return self._backups

    def install_other_storages(self) -> None:
        """Let oned have the drivers ssh, local, shared and ceph beside this one, in a remotes folder of their own."""
        other_storages.install(self.install_remotes(), self.cloud.frontend)
        for driver in other_storages.VERBS:
            self.cloud.tm_mad_confs[driver] = other_storages.tm_mad_conf(driver)
        for host in self.cloud.hosts:
            other_storages.install_stock_actions(self.sandbox.host(host))

    def file(self, name: str, content: bytes) -> str:
        """Return the path of a file with this content in a directory that images may come from."""
        path = self.folder / name
        path.write_bytes(content)
        return str(path)


@pytest.fixture(autouse=True)
def _compiled_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the entry scripts keep their bytecode, as an installation does, whatever the caller's environment says."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)


def build_world(
    stack: ExitStack,
    folder: Path,
    nodes: Sequence[str] = NODES,
    pools: Sequence[Pool] = (Pool("data", "LVM_THIN", 20480),),
    rest_version: str = "1.27.0",
    release: Union[str, Release] = "7.4",
    configuration: Optional[str] = None,
    frontend_host: str = "",
    port: int = 0,
    one_location: str = "",
    **times: Any,
) -> World:
    """Build a World in a folder, to be taken down with the stack; with a `port` its controller has a second address."""
    sandbox = stack.enter_context(
        Sandbox(folder / "sandbox", tuple(nodes), tuple(pools), rest_version, port=port, **times)
    )
    files = folder / "files"
    files.mkdir()
    conf = folder / "linstor_un.conf"
    locks = folder / "locks"
    locks.mkdir()
    conf.write_text(f'LOCK_DIR="{locks}"\nFAILOVER_TIMEOUT="1"\n{configuration or ""}')
    environment = {**os.environ, **sandbox.environment(), "LINSTOR_UN_CONF": str(conf)}
    environment["LS_CONTROLLERS"] = sandbox.uris if port else sandbox.uri
    environment["PATH"] = f"{install_shell(folder, frontend_host)}{os.pathsep}{environment['PATH']}"
    cloud = stack.enter_context(
        Cloud(
            CHECKOUT,
            folder / "oned",
            hosts=tuple(nodes),
            environment=environment,
            release=release,
            one_location=one_location,
        )
    )
    return World(sandbox, cloud, files)


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Return a function that builds a World; what it built is checked for tracebacks and taken down at the end."""
    stack = ExitStack()
    sandboxes: list[Sandbox] = []
    wrong: list[str] = []

    def make(rest_version: str = "1.27.0", **wanted: Any) -> World:
        world = build_world(stack, tmp_path / f"world{len(sandboxes)}", rest_version=rest_version, **wanted)
        sandboxes.append(world.sandbox)
        if not specification.MISSING:
            world.sandbox.witness = lambda exchange: wrong.extend(specification.violations(exchange, rest_version))
        return world

    with stack:
        yield make
        for sandbox in sandboxes:
            assert sandbox.exceptions == [], "the sandbox itself has failed"
        assert wrong == [], "LINSTOR's OpenAPI description does not allow this"
        for locks in tmp_path.glob("world*/locks/*"):
            pytest.fail(f"a lock is left: {locks}")


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Return a World of three nodes with the thin pool `data`."""
    return make_world()
