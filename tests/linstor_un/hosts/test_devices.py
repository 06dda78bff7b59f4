"""Devices of volumes on a host, and the links by which the hypervisor finds them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_un.cluster import placement, volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.errors import CommandFailed, HostUnreachable
from linstor_un.hosts import devices
from linstor_un.naming import drbd_device
from linstor_un.settings import Settings, for_datastore
from tests.linstor_un.hosts.hosts_in_a_box import DATASTORES, below, host

MIB = 1 << 20
ATTRIBUTES = {"STORAGE_POOL": "data", "NODE_LIST": "node1 node2"}
DISK = f"{DATASTORES}/100/7/disk.0"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Return three hosts, and two volumes of 4 MiB with replicas on two of them."""
    pools = (Pool("data", "LVM_THIN"),)
    with Sandbox(tmp_path_factory.mktemp("devices"), nodes=("node1", "node2", "node3"), pools=pools) as made:
        way = Gateway(Settings(controllers=(made.uri,)))
        wanted = placement.of(for_datastore({}, ATTRIBUTES, "x"), "x")
        for name in ("one-image-1", "one-image-2"):
            volumes.create(way, name, 4 << 10, wanted, {})
        way.close()
        yield made
        assert made.exceptions == []


@pytest.fixture(autouse=True)
def _no_links_are_left(sandbox: Sandbox) -> Iterator[None]:
    yield
    for name in ("node1", "node2", "node3"):
        for path in below(sandbox, name, DATASTORES).rglob("*"):
            if not path.is_dir():
                path.unlink()


def link(sandbox: Sandbox, name: str, resource: str, path: str = DISK, size_bytes: int = 4 * MIB) -> None:
    """Link a volume on a host."""
    runner = host(sandbox, name)
    runner.run(f"Linking {path}", devices.link(runner, drbd_device(resource), path, size_bytes))


def target(sandbox: Sandbox, name: str, path: str = DISK) -> str:
    """Return where a link on a host leads to, as the host knows it."""
    return as_known(sandbox, name, str(below(sandbox, name, path).readlink()))


def as_known(sandbox: Sandbox, name: str, text: str) -> str:
    """Return what a host has printed with its paths as it knows them: ssh has put its root in front of them."""
    return text.replace(str(sandbox.host(name)), "")


def test_a_link_leads_to_the_device_and_its_directory_is_made(sandbox: Sandbox) -> None:
    link(sandbox, "node1", "one-image-1")
    assert target(sandbox, "node1") == "/dev/drbd/by-res/one-image-1/0"


def test_linking_twice_is_as_linking_once_and_nothing_else_is_left(sandbox: Sandbox) -> None:
    link(sandbox, "node1", "one-image-1")
    link(sandbox, "node1", "one-image-1")
    assert [path.name for path in below(sandbox, "node1", f"{DATASTORES}/100/7").iterdir()] == ["disk.0"]


def test_a_link_to_something_else_is_replaced(sandbox: Sandbox) -> None:
    path = below(sandbox, "node1", DISK)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/nowhere")
    link(sandbox, "node1", "one-image-2")
    assert target(sandbox, "node1") == "/dev/drbd/by-res/one-image-2/0"


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_no_link_is_never_replaced(sandbox: Sandbox, kind: str) -> None:
    path = below(sandbox, "node1", f"{DATASTORES}/100/8/disk.0")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious") if kind == "file" else path.mkdir()
    with pytest.raises(CommandFailed, match="exists and is no link: move it away"):
        link(sandbox, "node1", "one-image-1", f"{DATASTORES}/100/8/disk.0")
    assert not path.is_symlink()
    assert path.is_dir() or path.read_text() == "precious"
    if kind == "directory":
        path.rmdir()


def test_a_device_that_does_not_appear_is_a_sentence_and_no_link(sandbox: Sandbox) -> None:
    with pytest.raises(CommandFailed) as failure:
        link(sandbox, "node3", "one-image-1")
    sentence = as_known(sandbox, "node3", str(failure.value))
    assert "device /dev/drbd/by-res/one-image-1/0 has no bytes instead of 4194304 after 1 s" in sentence
    assert "drbdadm status" in sentence
    assert not below(sandbox, "node3", DISK).is_symlink()


def test_a_device_that_is_too_small_is_a_sentence_and_no_link(sandbox: Sandbox) -> None:
    with pytest.raises(CommandFailed, match=r"has \d+ bytes instead of 8388608 after 1 s"):
        link(sandbox, "node1", "one-image-1", size_bytes=8 * MIB)
    assert not below(sandbox, "node1", DISK).is_symlink()


def test_a_device_that_appears_late_is_waited_for(sandbox: Sandbox) -> None:
    way = Gateway(Settings(controllers=(sandbox.uri,)))
    runner = host(sandbox, "node3", device_timeout_seconds=20)
    late = threading.Timer(0.3, lambda: way.make_available("one-image-2", "node3"))
    late.start()
    try:
        devices.wait(runner, drbd_device("one-image-2"), 4 * MIB)
    finally:
        late.join()
        way.delete_resource("one-image-2", "node3")
        way.close()


def test_a_device_that_somebody_else_writes_to_is_there_all_the_same(sandbox: Sandbox) -> None:
    opened = sandbox.open("node2", "one-image-1", "w")
    try:
        link(sandbox, "node1", "one-image-1")
    finally:
        sandbox.close(opened)
    assert target(sandbox, "node1") == "/dev/drbd/by-res/one-image-1/0"


def test_unlinking_tells_what_was_linked(sandbox: Sandbox) -> None:
    link(sandbox, "node1", "one-image-2")
    unlinked = devices.unlink(host(sandbox, "node1"), drbd_device("one-image-1"), DISK)
    assert unlinked == devices.Unlinked("/dev/drbd/by-res/one-image-2/0", False)
    assert not below(sandbox, "node1", DISK).is_symlink()


def test_unlinking_what_is_not_linked_is_done(sandbox: Sandbox) -> None:
    for path in (DISK, f"{DATASTORES}/100/99/disk.0", "/var/lib/one/elsewhere/100/7/disk.0"):
        unlinked = devices.unlink(host(sandbox, "node1"), drbd_device("one-image-1"), path)
        assert as_known(sandbox, "node1", unlinked.device) == "/dev/drbd/by-res/one-image-1/0"
        assert not unlinked.is_used_by_others


@pytest.mark.parametrize("is_linked", [True, False])
@pytest.mark.parametrize("other", ["100/8/disk.0", "101/7/disk.3", "100/7/disk.10"])
def test_another_vms_link_on_the_same_host_is_seen(sandbox: Sandbox, other: str, is_linked: bool) -> None:
    link(sandbox, "node1", "one-image-1", f"{DATASTORES}/{other}")
    if is_linked:
        link(sandbox, "node1", "one-image-1")
    unlinked = devices.unlink(host(sandbox, "node1"), drbd_device("one-image-1"), DISK)
    assert unlinked.is_used_by_others
    assert target(sandbox, "node1", f"{DATASTORES}/{other}") == "/dev/drbd/by-res/one-image-1/0"


def test_links_to_other_volumes_and_on_other_hosts_do_not_count(sandbox: Sandbox) -> None:
    link(sandbox, "node1", "one-image-1")
    link(sandbox, "node1", "one-image-2", f"{DATASTORES}/100/8/disk.0")
    link(sandbox, "node2", "one-image-1", f"{DATASTORES}/100/9/disk.0")
    assert not devices.unlink(host(sandbox, "node1"), drbd_device("one-image-1"), DISK).is_used_by_others


def test_what_is_no_link_is_never_unlinked(sandbox: Sandbox) -> None:
    path = below(sandbox, "node1", DISK)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("context")
    devices.unlink(host(sandbox, "node1"), drbd_device("one-image-1"), DISK)
    assert path.read_text() == "context"


def test_a_dead_host_is_named(sandbox: Sandbox) -> None:
    with pytest.raises(HostUnreachable, match="Unlinking .* host node9"):
        devices.unlink(host(sandbox, "node9"), drbd_device("one-image-1"), DISK)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_directory_that_cannot_be_read_is_no_failure() -> None:
    with tempfile.TemporaryDirectory() as folder:
        datastores = Path(folder, "datastores")
        for name in ("lost+found/0", "100/7"):
            (datastores / name).mkdir(parents=True)
        (datastores / "100/7/disk.0").symlink_to("/dev/drbd/by-res/one-image-1/0")
        (datastores / "lost+found").chmod(0o700)
        Path(folder).chmod(0o755)
        for besides, found in (("8", str(datastores / "100/7/disk.0")), ("7", "")):
            script = f"set -eu\n{devices.FIND_LINK}\nfind_link {datastores} /dev/drbd/by-res/one-image-1/0 {besides}"
            done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, user=65534, cwd="/")
            assert (done.stdout.strip(), done.stderr) == (found, "")
