"""The hypervisor of a host: domains that hold their disks open, freeze, are saved and move, as libvirt's do."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Callable

import pytest

from linstor_sandbox import Sandbox
from linstor_sandbox.hosts.guests import GuestHeld
from linstor_sandbox.model import Snapshot
from linstor_sandbox.storage import MIB

from .rest import Rest

Ssh = Callable[..., subprocess.CompletedProcess[bytes]]
FOLDER = "/var/lib/one/datastores/0/7"
UUID = "8f2d3b0e-7a4c-4c59-9f5e-3f1f0a9f2b11"
TWO_PRIMARIES = {"DrbdOptions/Net/allow-two-primaries": "yes"}
CHECKPOINT = "/dev/drbd/by-res/memory/0"


def xml(memory_mib: int = 16, path: str = f"{FOLDER}/disk.0") -> bytes:
    return (
        f"<domain type='kvm'><name>one-7</name><uuid>{UUID}</uuid><memory unit='KiB'>{memory_mib * 1024}</memory>"
        f"<devices><disk type='block' device='disk'><source dev='{path}'/><target dev='vda'/></disk></devices>"
        "</domain>"
    ).encode()


@pytest.fixture
def hosts(box: Sandbox, rest: Rest, ssh: Ssh) -> Sandbox:
    """A volume `disk`, linked as a VM's disk on all hosts, and a volume `memory`."""
    for name, mib in (("disk", 8), ("memory", 64)):
        rest.spawn(name, mib * 1024)
    for node in ("node1", "node2", "node3"):
        rest.ok("POST", f"/v1/resource-definitions/disk/resources/{node}/make-available", {})
        rest.ok("POST", f"/v1/resource-definitions/memory/resources/{node}/make-available", {})
        assert ssh(node, f"mkdir -p {FOLDER} && ln -s /dev/drbd/by-res/disk/0 {FOLDER}/disk.0").returncode == 0
    return box


def start(ssh: Ssh, node: str = "node1", memory_mib: int = 16) -> None:
    done = ssh(node, "virsh", "create", "/dev/stdin", stdin=xml(memory_mib))
    assert done.returncode == 0, done.stderr


def virsh(ssh: Ssh, *words: str, node: str = "node1") -> str:
    done = ssh(node, "virsh", "--connect", "qemu:///system", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def refused(ssh: Ssh, *words: str, node: str = "node1") -> str:
    done = ssh(node, "virsh", "--connect", "qemu:///system", *words)
    assert done.returncode == 1, done.stdout
    return done.stderr.decode()


def test_a_domain_does_not_start_without_its_disk(ssh: Ssh, hosts: Sandbox) -> None:
    done = ssh("node1", "virsh", "create", "/dev/stdin", stdin=xml(path=f"{FOLDER}/disk.1"))
    assert done.returncode == 1
    assert f"Could not open '{FOLDER}/disk.1': No such file or directory" in done.stderr.decode()
    assert hosts.snapshot_of_state()["open"] == []


def test_a_frozen_guest_does_not_write(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    guest = hosts.guest("one-7")
    guest.write("vda", b"before")
    assert "Froze" in virsh(ssh, "domfsfreeze", UUID)
    with pytest.raises(GuestHeld, match="one-7 is frozen and cannot write"):
        guest.write("vda", b"meanwhile")
    assert "Thawed 1" in virsh(ssh, "domfsthaw", UUID)
    guest.write("vda", b"after!")
    assert hosts.read("disk", 0, 6) == b"after!"
    assert [event.what for event in hosts.domains.events] == ["freeze", "thaw"]


def test_a_suspended_guest_waits_with_what_it_writes(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    virsh(ssh, "suspend", UUID)
    assert virsh(ssh, "domstate", UUID).split() == ["paused"]
    guest = hosts.guest("one-7")
    writer = threading.Thread(target=lambda: guest.write("vda", b"late", wait=True))
    writer.start()
    time.sleep(0.1)
    assert hosts.read("disk", 0, 4) == bytes(4)
    virsh(ssh, "resume", UUID)
    writer.join(5)
    assert hosts.read("disk", 0, 4) == b"late"


def test_a_guest_gives_blocks_back(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    guest = hosts.guest("one-7")
    guest.write("vda", b"x" * MIB)
    guest.discard("vda", 0, MIB)
    assert hosts.allocated("disk") == 0
    virsh(ssh, "suspend", UUID)
    with pytest.raises(GuestHeld):
        guest.discard("vda", 0, MIB)


def test_snapshots_of_several_disks_are_of_one_instant(ssh: Ssh, hosts: Sandbox, rest: Rest) -> None:
    other = "<disk type='block'><source dev='/dev/drbd/by-res/memory/0'/><target dev='vdb'/></disk></devices>"
    done = ssh("node1", "virsh", "create", "/dev/stdin", stdin=xml().replace(b"</devices>", other.encode()))
    assert done.returncode == 0, done.stderr
    guest, ended = hosts.guest("one-7"), threading.Event()

    def count() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            for target in ("vda", "vdb"):
                guest.write(target, number.to_bytes(8, "big"))

    counter = threading.Thread(target=count)
    counter.start()
    for number in range(6):
        both = [{"resource_name": name, "name": f"snap{number}"} for name in ("disk", "memory")]
        rest.ok("POST", "/v1/actions/snapshot/multi", {"snapshots": both})
    ended.set()
    counter.join()
    for number in range(6):
        snapshots = [hosts.definition(name).snapshots[f"snap{number}"] for name in ("disk", "memory")]
        first, second = (int.from_bytes(_content(found).read_bytes()[:8], "big") for found in snapshots)
        assert first - second in (0, 1)


def _content(snapshot: Snapshot) -> Path:
    (content,) = snapshot.contents.values()
    return content.path


def test_what_a_file_system_writes_together_is_never_frozen_half_way(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    guest = hosts.guest("one-7")
    with guest.at_once():
        freeze = threading.Thread(target=guest.freeze)
        guest.write("vda", b"one")
        freeze.start()
        freeze.join(0.1)
        assert freeze.is_alive()
        guest.write("vda", b"two", 4096)
    freeze.join(5)
    assert guest.frozen


def test_guest_agents_that_are_off_hung_or_late(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    guest = hosts.guest("one-7")
    guest.agent = "off"
    assert "QEMU guest agent is not connected" in refused(ssh, "domfsfreeze", UUID)
    guest.agent, guest.agent_seconds = "hung", 0.1
    assert "didn't respond" in refused(ssh, "domfsfreeze", UUID)
    guest.agent, guest.agent_seconds = "late", 0.6
    assert ssh("node1", "timeout", "0.2", "virsh", "domfsfreeze", UUID).returncode == 124
    assert not guest.frozen
    # The thaw waits its turn behind the freeze whose client has gone.
    assert "Thawed 1" in virsh(ssh, "domfsthaw", UUID)
    assert not guest.frozen


def test_memory_on_a_device_is_restored_on_another_host(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    virsh(ssh, "save", UUID, CHECKPOINT)
    assert hosts.snapshot_of_state()["open"] == [] and hosts.snapshot_of_state()["domains"] == []
    assert hosts.allocated("memory") > 16 * 4096
    shown = virsh(ssh, "save-image-dumpxml", CHECKPOINT, node="node3")
    assert f"{hosts.host('node3')}{FOLDER}/disk.0" in shown
    virsh(ssh, "restore", CHECKPOINT, node="node3")
    assert hosts.guest("one-7").state == "running"
    assert hosts.snapshot_of_state()["domains"] == ["node3/one-7"]
    hosts.guest("one-7").write("vda", b"here")


def test_memory_that_does_not_fit_leaves_the_domain_running(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh, memory_mib=48)
    told = refused(ssh, "save", UUID, CHECKPOINT)
    assert "No space left on device" in told
    assert virsh(ssh, "domstate", UUID).split() == ["running"]
    assert "save image is incomplete" in refused(ssh, "save-image-dumpxml", CHECKPOINT)


def test_damaged_memory_and_that_of_an_earlier_life_are_refused(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    virsh(ssh, "save", UUID, CHECKPOINT)
    whole = hosts.read("memory")
    hosts.write("memory", b"x", (5 << 20) + 4096)
    assert "damaged" in refused(ssh, "restore", CHECKPOINT)
    hosts.write("memory", whole)
    start(ssh)
    virsh(ssh, "destroy", UUID)
    assert "an earlier life" in refused(ssh, "restore", CHECKPOINT)


def test_memory_in_a_file(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    virsh(ssh, "save", UUID, f"{FOLDER}/checkpoint")
    virsh(ssh, "restore", f"{FOLDER}/checkpoint")
    assert "Failed to create" not in virsh(ssh, "domstate", UUID)
    assert "No such file" in refused(ssh, "restore", f"{FOLDER}/nothing", node="node2")


def test_a_migration_needs_two_primaries(ssh: Ssh, hosts: Sandbox, rest: Rest) -> None:
    start(ssh)
    there = "qemu+ssh://node2/system"
    assert "Could not open" in refused(ssh, "migrate", "--live", UUID, there)
    assert virsh(ssh, "domstate", UUID).split() == ["running"]
    rest.ok("PUT", "/v1/resource-definitions/disk/resource-connections/node1/node2", {"override_props": TWO_PRIMARIES})
    virsh(ssh, "migrate", "--live", UUID, there)
    assert hosts.snapshot_of_state()["domains"] == ["node2/one-7"]
    assert hosts.snapshot_of_state()["open"] == [["node2", "disk", "w"]]
    hosts.guest("one-7").write("vda", b"moved")


@pytest.mark.parametrize("step", ["prepare", "perform", "finish"])
def test_a_migration_that_fails_leaves_the_domain_where_it_is(ssh: Ssh, hosts: Sandbox, rest: Rest, step: str) -> None:
    start(ssh)
    rest.ok("PUT", "/v1/resource-definitions/disk/resource-connections/node1/node2", {"override_props": TWO_PRIMARIES})
    hosts.fail_virsh("migrate", step)
    assert "injected failure" in refused(ssh, "migrate", "--live", UUID, "qemu+ssh://node2/system")
    assert hosts.snapshot_of_state()["open"] == [["node1", "disk", "w"]]
    assert "failed to get domain" in refused(ssh, "--connect", "qemu+ssh://node2/system", "destroy", UUID)
    hosts.guest("one-7").write("vda", b"still")
    virsh(ssh, "migrate", "--live", UUID, "qemu+ssh://node2/system")


def test_a_domain_that_is_ended_while_it_migrates_runs_nowhere(
    ssh: Ssh, hosts: Sandbox, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(ssh)
    rest.ok("PUT", "/v1/resource-definitions/disk/resource-connections/node1/node2", {"override_props": TWO_PRIMARIES})

    def check(command: str, step: str = "") -> None:
        if step == "finish":
            hosts.domains.drop_host("node1")

    monkeypatch.setattr(hosts.domains, "check", check)
    assert "no longer running" in refused(ssh, "migrate", "--live", UUID, "qemu+ssh://node2/system")
    assert hosts.snapshot_of_state()["domains"] == hosts.snapshot_of_state()["open"] == []


def test_a_host_that_is_down_is_no_destination(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    hosts.set_node("node2", online=False)
    assert "No route to host" in refused(ssh, "migrate", "--live", UUID, "qemu+ssh://node2/system")


def test_a_disk_grows_no_further_than_its_device(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    assert "Block device 'vda' is resized" in virsh(ssh, "blockresize", UUID, "vda", "8M")
    assert "Cannot grow device files" in refused(ssh, "blockresize", UUID, "vda", "96M")
    assert "disk.0" in virsh(ssh, "domblklist", UUID)
    assert "actual 16384" in virsh(ssh, "dommemstat", UUID)


def test_a_disk_is_plugged_and_unplugged_while_the_domain_runs(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    more = "<disk type='block' device='disk'><source dev='/dev/drbd/by-res/memory/0'/><target dev='vdb'/></disk>"
    for _ in range(2):
        assert plug(ssh, more).returncode == 0
        hosts.guest("one-7").write("vdb", b"more")
        assert {opening.definition.name for opening in hosts.openings.all()} == {"disk", "memory"}
        assert b"vdb already exists" in plug(ssh, more).stderr
        assert "Disk detached" in virsh(ssh, "detach-disk", "--domain", UUID, "--target", "vdb")
        assert {opening.definition.name for opening in hosts.openings.all()} == {"disk"}
    assert hosts.read("memory", 0, 4) == b"more"
    assert "No disk found" in refused(ssh, "detach-disk", "--domain", UUID, "--target", "vdb")


def test_a_disk_that_cannot_be_opened_is_not_plugged(ssh: Ssh, hosts: Sandbox) -> None:
    start(ssh)
    taken = hosts.open("node2", "memory")
    more = "<disk type='block' device='disk'><source dev='/dev/drbd/by-res/memory/0'/><target dev='vdb'/></disk>"
    assert b"Could not open the disk: Read-only file system" in plug(ssh, more).stderr
    hosts.close(taken)
    assert "vdb" not in virsh(ssh, "domblklist", UUID)


def plug(ssh: Ssh, disk: str) -> subprocess.CompletedProcess[bytes]:
    return ssh("node1", "virsh", "attach-device", UUID, "/dev/stdin", stdin=disk.encode())
