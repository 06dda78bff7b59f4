"""A cloud of LINBIT's add-on at work: its datastores, its volumes under its names, and VMs that run on them."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.model import Filter, ResourceGroup
from linstor_sandbox.opennebula import Cloud, Image, LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.frontend import install_shell
from linstor_sandbox.opennebula.machines import Disk, assign_targets, image_disk, volatile_disk
from linstor_un.cli.installation.oned_conf import TM_MAD_CONF
from linstor_un.cli.installation.oned_syntax import attributes
from tests.linstor_un.cli.trees import Tree

NODES = ("node1", "node2", "node3", "node4")
MIB = 8
GROUP = "opennebula"
# As LINBIT's guide has it.
CONF = {
    "NAME": "linstor",
    "LN_TARGET": "NONE",
    "CLONE_TARGET": "SELF",
    "SHARED": "yes",
    "ALLOW_ORPHANS": "yes",
}
MIXED = 'TM_MAD_SYSTEM="ssh,shared" LN_TARGET_SSH="NONE" CLONE_TARGET_SSH="SELF" DISK_TYPE_SSH="BLOCK"'


class AddOn:
    """Image 0 is cloned, image 1 persistent, image 2 a CDROM; VM 0 runs with each of them and a volatile disk."""

    def __init__(self, tree: Tree, sandbox: Sandbox, cloud: Cloud) -> None:
        self.tree, self.sandbox, self.cloud = tree, sandbox, cloud
        cloud.tm_mad_confs["linstor"] = CONF
        wanted = Filter(place_count=2, storage_pool_list=["data"], layer_stack=["DRBD", "STORAGE"])
        sandbox.cluster.groups[GROUP] = ResourceGroup(GROUP, "", wanted)
        where = f'LINSTOR_RESOURCE_GROUP="{GROUP}" LINSTOR_CONTROLLERS="{sandbox.uri}" TM_MAD="linstor"'
        self.images = cloud.create_datastore(
            f'NAME="lb-images" TYPE="IMAGE_DS" DS_MAD="linstor" DISK_TYPE="BLOCK" {MIXED} {where}'
        )
        self.system = cloud.create_datastore(f'NAME="lb-system" TYPE="SYSTEM_DS" {where}')
        scripts = tree.remotes / "tm/linstor"
        scripts.mkdir()
        for verb in ("mv", "clone", "premigrate", "delete", "prebackup"):
            (scripts / verb).write_text("#!/bin/sh\necho the add-on has no cluster here >&2\nexit 1\n")
            (scripts / verb).chmod(0o755)

    def image(self, persistent: bool = False, kind: str = "OS") -> Image:
        """An image as the add-on's `cp` leaves it."""
        image = self.cloud.register_image(self.images, "", MIB)
        image.persistent, image.type = persistent, kind
        image.source = f"OpenNebula-Image-{image.identifier}"
        self.volume(image.source)
        return image

    def volume(self, name: str, host: str = "") -> None:
        """A volume of the add-on, which says nothing of itself."""
        self.post(f"resource-groups/{GROUP}/spawn", {"resource_definition_name": name, "volume_sizes": [MIB * 1024]})
        self.sandbox.write(name, name.encode().ljust(4096, b"."))
        if host:
            self.post(f"resource-definitions/{name}/resources/{host}/make-available", {})

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        """POST to the controller, below /v1."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.sandbox.uri}/v1/{path}", data, {"Content-Type": "application/json"})
        urllib.request.urlopen(request).read()

    def machine(self, host: str, *images: Image) -> VirtualMachine:
        """A VM that runs, as the add-on's scripts leave it."""
        cloud = self.cloud
        vm = VirtualMachine(cloud.next_vm_id, f"vm-{cloud.next_vm_id}", f"one-{cloud.next_vm_id}", {"MEMORY": "128"})
        cloud.next_vm_id += 1
        vm.place(host, cloud.host_id(host), self.system)
        for number, image in enumerate(images):
            vm.disks.append(Disk({**image_disk({}, image, self.images), "DISK_ID": str(number)}))
            cloud.use_image(image, vm.identifier)
        wanted = {"TYPE": "fs", "FORMAT": "raw", "SIZE": str(MIB), "DISK_ID": str(len(images))}
        vm.disks.append(Disk(volatile_disk(wanted, self.system)))
        assign_targets(vm)
        for disk in vm.disks:
            self._disk(vm, disk)
        cloud.machines.append(vm)
        cloud.hypervisor.start(vm)
        vm.become(VmState.ACTIVE, LcmState.RUNNING)
        return vm

    def _disk(self, vm: VirtualMachine, disk: Disk) -> None:
        name = disk.attributes.get("SOURCE", "OpenNebula-Volatile")
        if disk.attributes.get("CLONE") != "NO":
            name = f"{name}-vm{vm.identifier}-disk{disk.disk_id}"
            self.volume(name, vm.host)
        else:
            self.post(f"resource-definitions/{name}/resources/{vm.host}/make-available", {})
        link = self.directory(vm) / f"disk.{disk.disk_id}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"{self.sandbox.host(vm.host)}/dev/drbd/by-res/{name}/0")

    def directory(self, vm: VirtualMachine) -> Path:
        """The directory of a VM on its host."""
        top = self.sandbox.host(vm.host) / "var/lib/one/datastores"
        return top / str(vm.current.datastore_id) / str(vm.identifier)

    def state(self) -> Any:
        """Everything that an adoption may change: oned's datastores, LINSTOR and the front-end's files."""
        stores = [(item.identifier, item.ds_mad, dict(item.attributes)) for item in self.cloud.datastores]
        files = {name: kept for name, kept in self.tree.content().items() if "__pycache__" not in name}
        return stores, self.sandbox.snapshot_of_state(), files


@contextmanager
def add_on(folder: Path) -> Iterator[AddOn]:
    """A front-end with the add-on at work and this driver installed; what is yielded is taken down at the end."""
    tree = Tree(folder / "one", packages=True)
    tree.done("install", "--yes")
    (folder / "locks").mkdir()
    stanza = {pair.name: pair.value for pair in attributes(TM_MAD_CONF)[0].pairs}
    with Sandbox(folder / "sandbox", nodes=NODES, pools=(Pool("data", "LVM_THIN", 20480),)) as sandbox:
        tree.configuration.write_text(f'LOCK_DIR="{folder}/locks"\nFAILOVER_TIMEOUT="1"\n')
        environment = {**os.environ, **sandbox.environment(), "LINSTOR_UN_CONF": str(tree.configuration)}
        environment["PATH"] = f"{install_shell(folder, '')}{os.pathsep}{environment['PATH']}"
        text = tree.oned_conf.read_text()
        with Cloud(
            tree.remotes, folder / "oned", NODES, environment=environment, tm_mad_conf=stanza, configuration=text
        ) as cloud:
            made = AddOn(tree, sandbox, cloud)
            base, own, cdrom = made.image(), made.image(persistent=True), made.image(kind="CDROM")
            made.machine("node1", base, own, cdrom)
            yield made
        assert sandbox.exceptions == []
