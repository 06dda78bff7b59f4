"""A cloud at rest that no request and no action has made: images and VMs, in oned, in LINSTOR and on the hosts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from linstor_sandbox import Sandbox
from linstor_sandbox.model import Filter, Node, ResourceDefinition, ResourceGroup
from linstor_sandbox.opennebula import Cloud, Image, ImageState, LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.machines import Disk, image_disk, volatile_disk
from linstor_sandbox.seeding import place, take

MIB = 64
GROUP = "one-data-x2-seeded"
NODES = ("node1", "node2", "node3", "node4")


class Estate:
    """Images and VMs that are as the driver's actions leave them, on a cluster with the pool `data`."""

    def __init__(self, sandbox: Sandbox, cloud: Cloud, system: Datastore, images: Datastore) -> None:
        self.sandbox, self.cloud, self.system, self.images = sandbox, cloud, system, images
        self.nodes: Sequence[str] = [node.name for node in sandbox.cluster.nodes]
        wanted = Filter(place_count=2, storage_pool_list=["data"], layer_stack=["DRBD", "STORAGE"])
        sandbox.cluster.groups[GROUP] = ResourceGroup(GROUP, "", wanted)

    def _placed(self, number: int, host: str = "") -> tuple[list[str], list[str], str]:
        """Return the nodes with a replica, those where it is attached, and the one with the tie-breaker."""
        count = len(self.nodes)
        holders = [self.nodes[number % count], self.nodes[(number + 1) % count]]
        others = [node for node in self.nodes if node not in (*holders, host)]
        attached = [host] if host and host not in holders else []
        return holders, attached, "" if attached else others[0]

    def volume(self, name: str, number: int, host: str = "", **props: str) -> ResourceDefinition:
        """A volume of MIB that says of itself Aux/one/<key>=<value>."""
        holders, attached, tie_breaker = self._placed(number, host)
        said = {f"Aux/one/{key}": value for key, value in props.items()}
        where = {"attached": attached, "tie_breaker": tie_breaker}
        return place(self.sandbox, name, holders, size_kib=MIB * 1024, group=GROUP, props=said, **where)  # type: ignore[arg-type]

    def image(self, persistent: bool = False, host: str = "") -> Image:
        """An image; a persistent one may be attached on a host."""
        image = self.cloud.register_image(self.images, "", MIB)
        image.persistent = persistent
        name = f"one-image-{image.identifier}"
        image.source = f"/dev/drbd/by-res/{name}/0"
        image.become(ImageState.READY)
        self.images.images.append(image.identifier)
        identity = {"IMAGE_ID": str(image.identifier), "REGTIME": str(image.registered)}
        definition = self.volume(name, image.identifier, host, **identity)
        if not persistent:
            take(self.sandbox, definition, "linstor_un-base")
        return image

    def machine(self, host: str, *images: Image, volatile: bool = False) -> VirtualMachine:
        """A VM that runs, with a disk of each image and, if asked for, a volatile one; all are linked on its host."""
        identifier = self.cloud.next_vm_id
        self.cloud.next_vm_id += 1
        vm = VirtualMachine(identifier, f"vm-{identifier}", f"one-{identifier}", {"MEMORY": "128"})
        vm.place(host, self.cloud.host_id(host), self.system)
        vm.become(VmState.ACTIVE, LcmState.RUNNING)
        for number, image in enumerate(images):
            vm.disks.append(Disk({**image_disk({}, image, self.images), "DISK_ID": str(number)}))
            image.vms.append(identifier)
            image.become(ImageState.USED_PERS if image.persistent else ImageState.USED)
        if volatile:
            wanted = {"TYPE": "fs", "FORMAT": "raw", "SIZE": str(MIB), "DISK_ID": str(len(images))}
            vm.disks.append(Disk(volatile_disk(wanted, self.system)))
        for disk in vm.disks:
            self._disk(vm, disk)
        self.cloud.machines.append(vm)
        return vm

    def _disk(self, vm: VirtualMachine, disk: Disk) -> None:
        name = f"one-vm-{vm.identifier}-disk-{disk.disk_id}"
        if disk.attributes.get("CLONE") == "NO":
            name = disk.attributes["SOURCE"].split("/")[-2]
        else:
            said = {"VM_ID": str(vm.identifier), "DISK_ID": str(disk.disk_id), "DS_ID": str(self.system.identifier)}
            self.volume(name, vm.identifier, vm.host, **said)

    def directory(self, vm: VirtualMachine, host: str = "") -> Path:
        """The directory of a VM on a host."""
        top = self.sandbox.host(host or vm.host) / "var/lib/one/datastores"
        return top / str(vm.current.datastore_id) / str(vm.identifier)

    def lay_out(self) -> None:
        """Have devices and links on all hosts, as they are where somebody looks at the hosts too."""
        with self.sandbox.cluster.lock:
            for definition in self.sandbox.cluster.definitions:
                self.sandbox.satellites.refresh(definition)
        for vm in self.cloud.machines:
            for disk in vm.disks:
                is_image = disk.attributes.get("CLONE") == "NO"
                name = f"one-vm-{vm.identifier}-disk-{disk.disk_id}"
                name = disk.attributes["SOURCE"].split("/")[-2] if is_image else name
                self.link(vm, disk.disk_id, name)

    def link(self, vm: VirtualMachine, disk_id: int, resource: str, host: str = "") -> Path:
        """Make a disk's link as the driver does."""
        directory = self.directory(vm, host)
        directory.mkdir(parents=True, exist_ok=True)
        link = directory / f"disk.{disk_id}"
        link.unlink(missing_ok=True)
        link.symlink_to(f"{self.sandbox.host(host or vm.host)}/dev/drbd/by-res/{resource}/0")
        return link

    def clear(self) -> None:
        """Forget all images, VMs and volumes, and what lies on the hosts."""
        cluster = self.sandbox.cluster
        with cluster.lock:
            for definition in list(cluster.definitions):
                _forget(self.sandbox, definition)
            for node in cluster.nodes:
                _forget_node(self.sandbox, node)
            cluster.touch()
        self.cloud.images.clear()
        self.cloud.machines.clear()
        self.images.images.clear()
        self.cloud.next_image_id = self.cloud.next_vm_id = 0


def _forget(sandbox: Sandbox, definition: ResourceDefinition) -> None:
    for resource in list(definition.resources):
        definition.resources.pop(resource.node.name)
    if definition.uuid in sandbox.devices.known:
        sandbox.devices.refresh(definition)
    sandbox.cluster.definitions.pop(definition.name)


def _forget_node(sandbox: Sandbox, node: Node) -> None:
    node.resource_count = 0
    for pool in node.pools:
        pool.members.clear()
    for folder in ("var/lib/one/datastores", "dev/drbd/by-res"):
        for path in sorted((sandbox.host(node.name) / folder).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
