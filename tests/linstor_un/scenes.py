"""What tests of whole actions look at: where volumes, links and files are, and the same line run again."""

from __future__ import annotations

import json
import random
import re
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from linstor_sandbox import OLD_DATA
from linstor_sandbox.opennebula import ActionFailed, VirtualMachine
from linstor_sandbox.opennebula.images import Image
from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import World

MIB = 1 << 20
# What tells one run of the driver from another, and is no difference.
RUN_PROPERTIES = ("Aux/one/MADE_BY",)


def content(seed: int, mib: int = 4) -> bytes:
    """Bytes of a disk that nobody mistakes for another's: data, zeroes, data."""
    noise = random.Random(seed)
    return noise.randbytes(MIB) + bytes((mib - 2) * MIB) + noise.randbytes(MIB)


def share_directories(world: World, node: str, other: str) -> None:
    """Let one node see the system datastores of another, as over NFS."""
    seen = world.sandbox.host(other) / "var/lib/one/datastores"
    seen.rmdir()
    seen.symlink_to(world.sandbox.host(node) / "var/lib/one/datastores")


def cdrom_at(world: World) -> tuple[Image, str, str]:
    """A CDROM, a node that has no replica of it, and one that has."""
    cdrom = add_image(world, 3, type="CDROM")
    return cdrom, stranger(world, volume(cdrom)), sorted(replicas(world, volume(cdrom)))[0]


def post(world: World, path: str, body: Optional[Mapping[str, Any]], method: str = "POST") -> None:
    """POST to the controller, as an operator's `linstor` client does."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(world.sandbox.uri + path, data, headers, method=method)
    urllib.request.urlopen(request).read()


def add_image(world: World, seed: int = 1, persistent: bool = False, type: str = "OS", mib: int = 4) -> Image:
    """An image in the article's image datastore whose content is `content(seed)`, there without any action."""
    image = world.cloud.register_image(world.images, "", mib)
    image.source = f"/dev/drbd/by-res/{volume(image)}/0"
    image.persistent, image.type = persistent, type
    if "images" not in world.sandbox.snapshot_of_state()["resource_groups"]:
        placement = {"place_count": 2, "storage_pool_list": ["data"], "layer_stack": ["DRBD", "STORAGE"]}
        post(world, "/v1/resource-groups", {"name": "images", "select_filter": placement})
        # Older controllers spawn nothing without.
        post(world, "/v1/resource-groups/images/volume-groups", {})
    properties = {"Aux/one/IMAGE_ID": str(image.identifier), "Aux/one/REGTIME": str(image.registered)}
    body = {"resource_definition_name": volume(image), "volume_sizes": [mib * 1024]}
    post(world, "/v1/resource-groups/images/spawn", body)
    post(world, f"/v1/resource-definitions/{volume(image)}", {"override_props": properties}, "PUT")
    world.images.images.append(image.identifier)
    # As the driver leaves it: nothing of what a thick pool had before shows behind it.
    rest = world.sandbox.device_size(volume(image)) - mib * MIB
    has_old_data = OLD_DATA in world.sandbox.read(volume(image), mib * MIB)
    world.sandbox.write(volume(image), content(seed, mib) + bytes(rest if has_old_data else 0))
    return image


def write_behind(world: World, resource: str) -> bytes:
    """Have somebody write at the end of a volume's device, behind what OpenNebula knows of; return all that it has."""
    world.sandbox.write(resource, b"the last sector".ljust(512, b"."), world.sandbox.device_size(resource) - 512)
    return world.sandbox.read(resource)


def own(vm: VirtualMachine, disk_id: int = 0) -> str:
    """The volume of a VM's own disk."""
    return f"one-vm-{vm.identifier}-disk-{disk_id}"


def volume(image: Image) -> str:
    """The volume of an image."""
    return f"one-image-{image.identifier}"


def volumes(world: World) -> set[str]:
    """All resource definitions."""
    return set(world.sandbox.snapshot_of_state()["resource_definitions"])


def definition(world: World, resource: str) -> dict[str, Any]:
    """One resource definition as plain data."""
    found: dict[str, Any] = world.sandbox.snapshot_of_state()["resource_definitions"][resource]
    return found


def homes(world: World, resource: str) -> dict[str, str]:
    """Node by node whether it has a `replica`, is the `tie-breaker`, or has the volume `attached`."""
    return {node: _role(set(found["flags"])) for node, found in definition(world, resource)["resources"].items()}


def _role(flags: set[str]) -> str:
    if "TIE_BREAKER" in flags:
        return "tie-breaker"
    return "attached" if flags & {"DISKLESS", "DRBD_DISKLESS"} else "replica"


def replicas(world: World, resource: str) -> set[str]:
    """The nodes with a replica."""
    return {node for node, role in homes(world, resource).items() if role == "replica"}


def attached(world: World, resource: str) -> set[str]:
    """The nodes where the volume is only attached."""
    return {node for node, role in homes(world, resource).items() if role == "attached"}


def stranger(world: World, resource: str) -> str:
    """A node without a replica."""
    return next(node for node in world.cloud.hosts if node not in replicas(world, resource))


def path(world: World, vm: VirtualMachine, name: str, host: str = "", datastore_id: Optional[int] = None) -> Path:
    """A file of the VM's directory on a host: by default where the VM is."""
    identifier = vm.current.datastore_id if datastore_id is None else datastore_id
    top = world.sandbox.host(host or vm.host)
    return top / world.location / str(identifier) / str(vm.identifier) / name


def link(world: World, vm: VirtualMachine, disk_id: int, host: str = "", datastore_id: Optional[int] = None) -> str:
    """The volume that a disk's link leads to on a host; empty where there is no link."""
    found = path(world, vm, f"disk.{disk_id}", host, datastore_id)
    if not found.is_symlink():
        return ""
    match = re.search(r"/dev/drbd/by-res/([^/]+)/0$", str(found.readlink()))
    assert match, str(found.readlink())
    return match.group(1)


def links(world: World) -> dict[str, str]:
    """Every link to a volume on every host: `node:datastore/vm/disk.N` and the volume."""
    found = {}
    for node in world.cloud.hosts:
        top = world.sandbox.host(node) / world.location
        for disk in top.glob("*/*/disk.*"):
            if disk.is_symlink():
                found[f"{node}:{disk.relative_to(top)}"] = str(disk.readlink()).split("/by-res/")[1].split("/")[0]
    return found


def files(world: World, host: str) -> list[str]:
    """What lies below a host's datastores: directories, files and links, without their content."""
    top = world.sandbox.host(host) / world.location
    return sorted(str(found.relative_to(top)) for found in top.rglob("*"))


def state(world: World) -> dict[str, Any]:
    """Everything that exists, without what legitimately differs from run to run; ISO images carry their time."""
    found = world.sandbox.snapshot_of_state()
    for properties in (item["props"] for item in found["resource_definitions"].values()):
        for key in RUN_PROPERTIES:
            properties.pop(key, None)
    for below in found["files"].values():
        for name in below:
            if re.search(r"/disk\.\d+$", name) and not below[name].startswith("->"):
                below[name] = below[name].split()[0]
    return found


def what_is_left(world: World) -> dict[str, Any]:
    """Volumes, openings, domains and files of VMs: all that must be gone when everything was deleted."""
    found = state(world)
    below = {node: [name for name in files(world, node) if name.count("/")] for node in world.cloud.hosts}
    return {
        "volumes": sorted(found["resource_definitions"]),
        "open": found["open"],
        "domains": found["domains"],
        "files": {node: names for node, names in below.items() if names},
    }


NOTHING: Mapping[str, Any] = {"volumes": [], "open": [], "domains": [], "files": {}}


def run(world: World, line: str, driver: str = "linstor_un") -> Call:
    """Run one line of a transfer script, written without the driver's name, and return the call."""
    verb, _, rest = line.partition(" ")
    return world.cloud.scripts.transfer_line(f"{verb.upper()} {driver} {rest}")


def succeed(world: World, line: str) -> Call:
    """Run one line that must succeed."""
    call = run(world, line)
    assert call.succeeded, call.stderr
    return call


def sentence(call: Call) -> str:
    """The one sentence of a call that must have failed: the last line, behind lines that oned only logs."""
    assert not call.succeeded
    assert call.stdout == ""
    lines = call.stderr.splitlines()
    assert lines, "an error without a reason"
    assert all(re.match(r"(ERROR|INFO|WARN|WARNING): tm/\w+: ", line) for line in lines[:-1]), call.stderr
    assert "defect of the driver" not in lines[-1]
    return lines[-1]


def failure(attempt: Callable[[], object]) -> str:
    """The sentence with which an attempt of oned's fails."""
    try:
        attempt()
    except ActionFailed as failed:
        return sentence(failed.call)
    raise AssertionError("it did not fail")


def refuse_all(world: World, lines: Sequence[tuple[str, str]]) -> None:
    """Every line must be refused with a sentence that has this part, and none may change anything."""
    before = state(world)
    for line, part in lines:
        assert part in sentence(run(world, line)), line
    assert state(world) == before


def again(world: World, call: Call) -> Call:
    """Run a transfer action a second time with the same arguments."""
    assert call.kind == "tm"
    return world.cloud.scripts.transfer_line(" ".join([call.verb.upper(), "linstor_un", *call.argv]))


def requests(world: World, pattern: str, since: int = 0) -> list[str]:
    """The REST requests (`METHOD /path`) from number `since` on that match a regular expression."""
    made = [f"{request.method} {request.path}" for request in world.sandbox.requests[since:]]
    return [request for request in made if re.search(pattern, request)]


def last(world: World, verb: str) -> Call:
    """The last call of a verb."""
    return next(call for call in reversed(world.cloud.calls) if call.verb == verb)
