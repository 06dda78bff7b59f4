"""An OpenNebula on a cluster whose entry scripts are measured."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lxml import etree

from bench.cluster import FIRST_DATASTORE_ID, PREFIX, Cluster
from bench.meter import install_ssh
from bench.scripts import MeteredScripts
from linstor_sandbox.opennebula import Cloud, LcmState, VirtualMachine, VmState, scripts
from linstor_sandbox.opennebula.backup_server import TEMPLATE, BackupServer
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.frontend import install_shell
from linstor_sandbox.opennebula.hypervisor import Hypervisor
from linstor_sandbox.opennebula.images import Image
from linstor_sandbox.opennebula.machines import Disk

CHECKOUT = Path(__file__).resolve().parent.parent
_TIMEOUTS = 'LOCK_TIMEOUT="600"\nREQUEST_TIMEOUT="600"\n'


class NoDomains(Hypervisor):
    """Real hosts, on which a benchmark starts no VM: what is measured does not need one."""

    def start(self, vm: VirtualMachine) -> None:
        """Only note where it would be."""
        self.running[vm.identifier] = vm.host

    def end(self, vm: VirtualMachine) -> None:
        """Only forget it."""
        self.running.pop(vm.identifier, None)

    def migrate(self, vm: VirtualMachine, source: str) -> None:  # noqa: ARG002
        """Only note where it would be."""
        self.running[vm.identifier] = vm.host

    def resize(self, vm: VirtualMachine, disk: Disk, size_mib: int) -> None:
        """Nothing has the disk open."""


@dataclass
class World:
    """A stand-in oned with the driver of `remotes`; VMs' disks are restored in `system` and copied in `copies`.

    Image files lie in `files`.
    """

    cluster: Cluster
    cloud: Cloud
    scripts: MeteredScripts
    images: Datastore
    system: Datastore
    copies: Datastore
    files: Path

    @cached_property
    def backups(self) -> Datastore:
        """A datastore of backups, whose server is here."""
        remotes = self.files.parent / "remotes"
        scripts.copy(self.scripts.remotes, remotes)
        BackupServer(remotes, self.files.parent / "backups")
        self.scripts.remotes = remotes
        return self.cloud.create_datastore(TEMPLATE)

    def instantiate(self, template: str, host: int = 0, datastore: Datastore | None = None) -> VirtualMachine:
        """A VM on the host of that number: 0 and 1 hold replicas, 2 does not."""
        return self.cloud.instantiate(template, self.cluster.nodes[host], datastore or self.system)

    def place(self, template: str, host: int) -> VirtualMachine:
        """A VM that oned has placed on a host and for which no script has run."""
        vm = self.cloud.create_vm(template, self.system)
        vm.place(self.cluster.nodes[host], host, self.system)
        vm.become(VmState.ACTIVE, LcmState.PROLOG)
        return vm

    def run(self, line: str) -> None:
        """One line of a transfer script; raises ActionFailed."""
        self.cloud.scripts.transfer([line])

    def export(self, image: Image) -> None:
        """Export an image for a marketplace, and do away with the file as that would."""
        answer = etree.fromstring(self.cloud.export_image(image).stdout.encode())
        command = ["sh", "-c", answer.findtext("DISPOSE_CMD", "")]
        subprocess.run(command, env=dict(self.cluster.environment), check=True, stdin=subprocess.DEVNULL)


@contextmanager
def world(cluster: Cluster, folder: Path, remotes: Path = CHECKOUT) -> Iterator[World]:
    """An OpenNebula for the length of the block."""
    for name in ("files", "locks"):
        (folder / name).mkdir()
    configuration = folder / "linstor_un.conf"
    configuration.write_text(f'LOCK_DIR="{folder / "locks"}"\nPREFIX="{PREFIX}"\n{_TIMEOUTS}', encoding="utf-8")
    environment = {**cluster.environment, "LINSTOR_UN_CONF": str(configuration)}
    # As an installation is: with bytecode.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if cluster.is_sandbox:
        environment["PATH"] = f"{install_shell(folder)}{os.pathsep}{environment['PATH']}"
    with Cloud(remotes, folder / "oned", hosts=cluster.nodes, environment=environment) as cloud:
        measured = install_ssh(folder / "ssh", cloud.scripts.environment)
        scripts = MeteredScripts(remotes, measured, cloud.scripts.directory, controller=cluster.uri)
        scripts.meters["oned"] = lambda: cloud.rpc.http_requests
        cloud.scripts = scripts
        cloud.first_datastore_id = FIRST_DATASTORE_ID
        if not cluster.is_sandbox:
            cloud.hypervisor = NoDomains(environment, cloud.release)
        files = folder / "files"
        images, system, copies = (cloud.create_datastore(template) for template in _templates(cluster, files))
        yield World(cluster, cloud, scripts, images, system, copies, files)


def _templates(cluster: Cluster, files: Path) -> Iterator[str]:
    common = f'STORAGE_POOL="{cluster.pool}" BRIDGE_LIST="{" ".join(cluster.nodes)}" TM_MAD="linstor_un"'
    # A sandbox has the pool on these nodes alone: that is how most volumes are placed.
    common += ' AUTO_PLACE="2"' if cluster.is_sandbox else f' NODE_LIST="{" ".join(cluster.holders)}"'
    yield f'NAME="images" TYPE="IMAGE_DS" DISK_TYPE="BLOCK" DS_MAD="linstor_un" SAFE_DIRS="{files}" {common}'
    for name, mode in (("system", "snapshot"), ("copies", "copy")):
        yield f'NAME="{name}" TYPE="SYSTEM_DS" CLONE_MODE="{mode}" CHECKPOINT_AUTO_PLACE="2" {common}'
