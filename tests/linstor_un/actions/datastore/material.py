"""What tests of datastore actions are made of: images in every form, calls as oned makes them, and what is left."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import subprocess
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

from linstor_sandbox import OLD_DATA, Pool
from linstor_sandbox.opennebula import markup
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import World

MIB = 1 << 20
REGISTERED = 1700000000
PACKINGS = ("gz", "bz2", "xz", "zst")
# A form of image: qemu-img's format and its options.
FORMS: Mapping[str, tuple[str, ...]] = {
    "raw": ("raw",),
    "qcow2": ("qcow2",),
    "qcow2 of the first version": ("qcow2", "-o", "compat=0.10"),
    "compressed qcow2": ("qcow2", "-c"),
    "vmdk": ("vmdk", "-o", "subformat=monolithicSparse"),
    "stream-optimised vmdk": ("vmdk", "-o", "subformat=streamOptimized"),
    "vhdx": ("vhdx",),
    "vdi": ("vdi",),
    "vpc": ("vpc",),
}
THIN_AND_THICK = (Pool("data", "LVM_THIN", 20480), Pool("thick", "LVM", 20480))


def noise(seed: int, size: int) -> bytes:
    """The same random bytes for the same seed."""
    return random.Random(seed).randbytes(size)


def disk(seed: int, size: int) -> bytes:
    """The bytes of a disk: data at its beginning and its end, and zeroes between."""
    edge = min(size // 2, 300_000)
    return noise(seed, edge) + bytes(size - 2 * edge) + noise(seed + 1, edge)


def in_form(raw: Path, form: str) -> Path:
    """An image of the raw disk in one of FORMS."""
    image = raw.with_name(f"{raw.name}.{form.replace(' ', '-')}")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", *FORMS[form], raw, image], check=True)
    return image


def in_package(image: Path, packing: str) -> Path:
    """The image compressed, under a name that does not say so."""
    package = image.with_name(f"{image.name}-{packing}")
    if packing == "zst":
        subprocess.run(["zstd", "-q", "-1", "-o", package, image], check=True)
    else:
        packers: Mapping[str, Callable[[bytes], bytes]] = {
            "gz": gzip.compress,
            "bz2": bz2.compress,
            "xz": lzma.compress,
        }
        pack = packers[packing]
        package.write_bytes(pack(image.read_bytes()))
    return package


def as_qemu_reads_it(image: Path, form: str) -> bytes:
    """The disk in the image as `qemu-img convert` brings it out: the judge of every import."""
    converted = image.with_name(f"{image.name}.converted")
    subprocess.run(["qemu-img", "convert", "-f", FORMS[form][0], "-O", "raw", image, converted], check=True)
    return converted.read_bytes()


def add_datastore(world: World, name: str, text: str) -> Datastore:
    """An image datastore that images may come to from the world's own directory."""
    return world.cloud.create_datastore(
        f'NAME="{name}" TYPE="IMAGE_DS" DISK_TYPE="BLOCK" DS_MAD="linstor_un" TM_MAD="linstor_un" '
        f'SAFE_DIRS="{world.folder}" RESTRICTED_DIRS="/" {text}'
    )


def image_element(
    identifier: Optional[int], elements: Mapping[str, object], attributes: Optional[Mapping[str, str]] = None
) -> str:
    """An IMAGE as oned writes it; `elements` are PATH, SIZE, SOURCE, FS ..., `attributes` its TEMPLATE."""
    return markup.element(
        "IMAGE",
        "" if identifier is None else markup.text("ID", identifier) + markup.text("REGTIME", REGISTERED),
        *(markup.cdata(name, value) for name, value in elements.items()),
        markup.element("TEMPLATE", markup.attributes(attributes or {})),
    )


def act(world: World, verb: str, datastore: Datastore, image: str, identifier: int) -> Call:
    """Run a datastore action on this IMAGE element in the form of the world's release."""
    arguments = world.cloud.action_arguments(image + datastore.xml(), identifier)
    return world.cloud.scripts.datastore("linstor_un", verb, *arguments)


def cp(
    world: World,
    path: str,
    size: int,
    identifier: int = 7,
    datastore: Optional[Datastore] = None,
    attributes: Optional[Mapping[str, str]] = None,
) -> Call:
    """`cp` of a path into an image of `size` MiB."""
    image = image_element(identifier, {"PATH": path, "SIZE": size}, attributes)
    return act(world, "cp", datastore or world.images, image, identifier)


def stat(world: World, path: str, datastore: Optional[Datastore] = None) -> Call:
    """`stat` of a path; its id is a request's."""
    return act(world, "stat", datastore or world.images, image_element(None, {"PATH": path, "SIZE": ""}), 3)


def remove(world: World, source: str, identifier: int = 7, datastore: Optional[Datastore] = None) -> Call:
    """`rm` of an image with this SOURCE."""
    image = image_element(identifier, {"SOURCE": source, "SIZE": 1})
    return act(world, "rm", datastore or world.images, image, identifier)


def mkfs(
    world: World,
    size: int,
    elements: Optional[Mapping[str, str]] = None,
    identifier: int = 7,
    datastore: Optional[Datastore] = None,
) -> Call:
    """`mkfs` of a datablock of `size` MiB; FORMAT and FS, or FSTYPE, are elements."""
    image = image_element(identifier, {"SIZE": size, **(elements or {})})
    return act(world, "mkfs", datastore or world.images, image, identifier)


def clone(world: World, original: str, size: int, identifier: int, datastore: Optional[Datastore] = None) -> Call:
    """`clone` of the image with the SOURCE `original`."""
    image = image_element(identifier, {"PATH": original, "SIZE": size, "CLONING_ID": 7})
    return act(world, "clone", datastore or world.images, image, identifier)


def source(identifier: int) -> str:
    """The SOURCE that an image gets."""
    return f"/dev/drbd/by-res/one-image-{identifier}/0"


def definitions(world: World) -> dict[str, Any]:
    """All resource definitions as plain data."""
    found: dict[str, Any] = world.sandbox.snapshot_of_state()["resource_definitions"]
    return found


def replicas(world: World, resource: str) -> dict[str, str]:
    """The nodes with a replica and its pool."""
    return {
        node: found["pool"]
        for node, found in definitions(world)[resource]["resources"].items()
        if not set(found["flags"]) & {"DISKLESS", "DRBD_DISKLESS", "TIE_BREAKER"}
    }


def request(world: World, method: str, path: str, body: Optional[Mapping[str, Any]] = None) -> Any:
    """What an administrator asks of the controller; the answer's data."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(world.sandbox.uri + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(asked) as answer:
        return json.loads(answer.read() or b"null")


def succeeded(call: Call, stdout: str, warning: str = "") -> None:
    """Check that the action printed exactly this, and nothing on stderr but a warning where there is to be one."""
    outcome = (call.exit_code, call.stdout, call.stderr)
    assert outcome[:2] == (0, stdout), outcome
    assert [line[: len("WARN:")] for line in call.stderr.splitlines()] == (["WARN:"] if warning else []), outcome
    assert warning in call.stderr, outcome


def refused(call: Call, *phrases: str) -> str:
    """Check that the action failed with one sentence for a person, which has all these phrases; return it."""
    assert call.exit_code == 1, (call.exit_code, call.stdout, call.stderr)
    assert call.stdout == ""
    *log, sentence = call.stderr.splitlines()
    assert all(line.split(":")[0] in ("INFO", "WARN", "ERROR") for line in log), call.stderr
    assert "Traceback" not in call.stderr
    assert not sentence.startswith(("Unexpected", "INFO", "WARN", "ERROR")), sentence
    for phrase in phrases:
        assert phrase in sentence, sentence
    return sentence


def nothing_left(world: World) -> None:
    """Check that no volume, no open device and no staged file is anywhere."""
    state = world.sandbox.snapshot_of_state()
    assert state["resource_definitions"] == {}
    assert state["open"] == []
    assert {node: [name for name in below if "linstor_un." in name] for node, below in state["files"].items()} == {
        node: [] for node in state["files"]
    }


def holds(world: World, resource: str, content: bytes) -> None:
    """Check the whole device: the content, and nothing but zeroes behind it."""
    device = world.sandbox.read(resource)
    assert len(device) == world.sandbox.device_size(resource)
    assert device[: len(content)] == content, f"{resource} differs from byte {_first_difference(device, content)} on"
    tail = device[len(content) :]
    assert OLD_DATA[:64] not in tail, "old data of the pool shows behind the image"
    assert tail.count(0) == len(tail)


def _first_difference(one: bytes, other: bytes) -> int:
    return next(number for number, pair in enumerate(zip(one, other)) if pair[0] != pair[1])
