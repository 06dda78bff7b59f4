"""The hosts: ssh, devices, tools, domains."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Callable

import pytest

from linstor_sandbox import Sandbox
from linstor_sandbox.hosts.shim import map_paths

from .rest import Rest

Ssh = Callable[..., "subprocess.CompletedProcess[bytes]"]
SIZE = 71249920
DEVICE = "/dev/drbd/by-res/vol/0"


@pytest.fixture
def vol(rest: Rest) -> str:
    rest.spawn("vol")
    rest.ok("POST", "/v1/resource-definitions/vol/resources/node3/make-available", {})
    return "vol"


@pytest.mark.parametrize(
    ("command", "mapped"),
    [
        ("cat /dev/drbd1000", "cat /h/dev/drbd1000"),
        ("dd of=/dev/drbd/by-res/x/0 if=/dev/zero", "dd of=/h/dev/drbd/by-res/x/0 if=/dev/zero"),
        (
            "sh -s -- '/var/lib/one/datastores/0/1' \"/var/tmp/x\"",
            "sh -s -- '/h/var/lib/one/datastores/0/1' \"/h/var/tmp/x\"",
        ),
        ("cat </dev/null >/dev/vg/lv 2>/dev/stderr", "cat </dev/null >/h/dev/vg/lv 2>/dev/stderr"),
        ("head /dev/urandom /dev/tty /dev/shm/x /dev/full", "head /dev/urandom /dev/tty /dev/shm/x /dev/full"),
        ("ls /var/lib/onedrive /usr/var/lib/one /etc", "ls /var/lib/onedrive /usr/var/lib/one /etc"),
        ("ls /r/hosts/h/dev/drbd1", "ls /r/hosts/h/dev/drbd1"),
    ],
)
def test_paths_of_a_host_lie_below_its_root(command: str, mapped: str) -> None:
    assert map_paths(command, "/h", "/r") == mapped


def test_ssh_runs_a_script_with_arguments(ssh: Ssh, box: Sandbox, vol: str) -> None:
    script = b'set -e\nd=$1\nmkdir -p "$2"\nln -s "$d" "$2/disk.0"\nreadlink "$2/disk.0"\nexit 3\n'
    done = ssh("oneadmin@node1", "sh", "-s", "--", f"'{DEVICE}'", "'/var/lib/one/datastores/0/7'", stdin=script)
    assert (done.returncode, done.stdout.decode().strip()) == (3, DEVICE)
    assert (box.host("node1") / "var/lib/one/datastores/0/7/disk.0").is_symlink()
    assert [(made.host, made.command.split()[0]) for made in box.connections] == [("node1", "sh")]


def test_ssh_passes_bytes_through(ssh: Ssh, vol: str) -> None:
    data = bytes(range(256)) * 64
    assert ssh("node1", "cat", stdin=data).stdout == data


def test_unknown_and_dead_hosts(ssh: Ssh, box: Sandbox) -> None:
    done = ssh("nowhere", "true")
    assert (done.returncode, done.stderr) == (
        255,
        b"ssh: Could not resolve hostname nowhere: Name or service not known\n",
    )
    box.set_node("node2", online=False)
    done = ssh("node2", "true")
    assert (done.returncode, done.stderr) == (255, b"ssh: connect to host node2 port 22: No route to host\n")
    box.set_node("node2", online=True)
    box.refuse_ssh("node2")
    assert ssh("node2", "true").stderr.endswith(b"Connection refused\n")


def test_ssh_is_fast(ssh: Ssh) -> None:
    times = []
    for _ in range(5):
        started = time.monotonic()
        assert ssh("node1", "true").returncode == 0
        times.append(time.monotonic() - started)
    assert min(times) < 0.1


def test_devices_come_and_go(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol", select_filter={"place_count": 1})
    device = box.host("node1") / "dev/drbd1000"
    assert device.stat().st_size == SIZE
    assert (box.host("node1") / "dev/drbd/by-res/vol/0").resolve() == device
    diskless = box.host("node2") / "dev/drbd1000"
    assert not diskless.exists()
    rest.ok("POST", "/v1/resource-definitions/vol/resources/node2/make-available", {})
    assert diskless.stat().st_size == SIZE
    rest.ok("DELETE", "/v1/resource-definitions/vol/resources/node2", query="keep_tiebreaker=true")
    assert not diskless.exists()
    rest.ok("DELETE", "/v1/resource-definitions/vol")
    assert not (box.host("node1") / "dev/drbd/by-res/vol").exists()


def test_what_one_host_writes_another_reads(ssh: Ssh, box: Sandbox, vol: str) -> None:
    assert ssh("node1", "dd", f"of={DEVICE}", "bs=1M", "seek=1", stdin=b"hello").returncode == 0
    done = ssh("node3", "dd", f"if={DEVICE}", "bs=1M", "skip=1", "count=1", "status=none")
    assert done.stdout[:5] == b"hello"
    assert box.device_size("vol") == SIZE
    assert box.read("vol", 1 << 20, 5) == b"hello"


def test_sizes(ssh: Ssh, vol: str) -> None:
    assert ssh("node3", "lsblk", "-bndo", "SIZE", DEVICE).stdout == b"71249920\n"
    assert ssh("node3", "lsblk", "-no", "NAME,SIZE,TYPE", "/dev/drbd1000").stdout == b"drbd1000 67.9M disk\n"
    assert ssh("node3", "blockdev", "--getsize64", DEVICE).stdout == b"71249920\n"
    assert ssh("node3", "blockdev", "--flushbufs", DEVICE).returncode == 0
    assert ssh("node3", "lsblk", "-bndo", "SIZE", "/dev/drbd1009").returncode == 32


def test_a_device_ends_where_it_ends(ssh: Ssh, box: Sandbox, vol: str) -> None:
    done = ssh("node1", "dd", f"of={DEVICE}", "bs=1M", "if=/dev/zero")
    assert done.returncode == 1
    assert box.device_size("vol") == (box.host("node1") / "dev/drbd1000").stat().st_size == SIZE


def test_opening_rules_reach_the_tools(ssh: Ssh, box: Sandbox, vol: str) -> None:
    opened = box.open("node2", "vol", "w")
    done = ssh("node1", "blockdev", "--getsize64", DEVICE)
    assert (done.returncode, done.stderr) == (1, b"blockdev: cannot open /dev/drbd/by-res/vol/0: Wrong medium type\n")
    done = ssh("node1", "dd", f"of={DEVICE}", stdin=b"x")
    assert done.stderr == b"dd: failed to open '/dev/drbd/by-res/vol/0': Read-only file system\n"
    assert ssh("node1", "lsblk", "-bndo", "SIZE", DEVICE).returncode == 0
    box.close(opened)
    assert ssh("node1", "dd", f"of={DEVICE}", stdin=b"x").returncode == 0


def test_a_tool_holds_the_device_while_it_runs(ssh: Ssh, box: Sandbox, rest: Rest, vol: str) -> None:
    writer = subprocess.Popen(
        ["ssh", "node1", "dd", f"of={DEVICE}", "status=none"], env=box.environment(), stdin=subprocess.PIPE
    )
    deadline = time.monotonic() + 5
    while not box.openings.all() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert rest.ok("GET", "/v1/resource-definitions/vol/resources/node1")["state"] == {"in_use": True}
    assert rest("DELETE", "/v1/resource-definitions/vol")[0] == 500
    writer.communicate(b"x")
    assert rest("DELETE", "/v1/resource-definitions/vol")[0] == 200


def test_qemu_img_converts_into_a_device(ssh: Ssh, box: Sandbox, vol: str, tmp_path: Path) -> None:
    image = box.host("node1") / "var/tmp/image.qcow2"
    raw = tmp_path / "raw"
    raw.write_bytes(b"image" * 1000)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(image)], check=True)
    done = ssh("node1", "qemu-img", "convert", "-O", "raw", "/var/tmp/image.qcow2", DEVICE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert box.read("vol", 0, 5000) == raw.read_bytes()
    assert box.device_size("vol") == SIZE
    info = json.loads(ssh("node1", "qemu-img", "info", "--output", "json", DEVICE).stdout)
    assert info["virtual-size"] == SIZE


def test_qemu_io_reads_and_writes_devices_and_images(ssh: Ssh, box: Sandbox, vol: str) -> None:
    done = ssh("node1", "nice", "-n19", "ionice", "-c3", "qemu-io", "-f", "raw", "-c", "'write -P 7 64k 4k'", DEVICE)
    assert done.returncode == 0 and b"wrote 4096/4096 bytes" in done.stdout, done.stderr
    assert box.read("vol", 65535, 2) == b"\0\7"
    beyond = ssh("node1", "qemu-io", "-f", "raw", "-c", f"'write {SIZE} 4k'", DEVICE)
    assert b"wrote" not in beyond.stdout
    box.open("node2", "vol", "w")
    refused = ssh("node1", "qemu-io", "-f", "raw", "-c", "'write 0 4k'", DEVICE)
    assert refused.returncode == 1 and b"Read-only file system" in refused.stderr
    image = "/var/tmp/image.qcow2"
    assert ssh("node1", "nice", "qemu-img", "create", "-f", "qcow2", image, "1M").returncode == 0
    assert ssh("node1", "qemu-io", "-c", "'write -P 9 0 4k'", "-c", "'read -P 9 0 4k'", image).returncode == 0
    mapped = json.loads(ssh("node1", "qemu-img", "map", "--output=json", image).stdout)
    assert [(part["start"], part["data"]) for part in mapped] == [(0, True), (65536, False)]


def test_target_is_zero_leaves_old_data_on_a_thick_pool(ssh: Ssh, box: Sandbox, rest: Rest, tmp_path: Path) -> None:
    """What a driver may not do: promise zeroes that are not there."""
    rest.spawn("vol", group="fat")
    (box.host("node1") / "var/tmp/image").write_bytes(bytes(1 << 20))
    convert = ["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw"]
    assert ssh("node1", *convert, "--target-is-zero", "/var/tmp/image", DEVICE).returncode == 0
    assert box.read("vol", 0, 8) != bytes(8)
    assert ssh("node1", *convert, "/var/tmp/image", DEVICE).returncode == 0
    assert box.read("vol", 0, 1 << 20) == bytes(1 << 20)


def test_file_systems(ssh: Ssh, box: Sandbox, vol: str) -> None:
    assert ssh("node1", "mkfs.ext4", "-q", DEVICE).returncode == 0
    assert box.read("vol", 0x438, 2) == b"\x53\xef"
    assert ssh("node1", "mkswap", DEVICE).returncode == 0
    assert b"SWAPSPACE2" in box.read("vol", 4086, 10)
    assert box.device_size("vol") == SIZE


def test_discard_gives_blocks_back_but_not_on_a_thick_pool(ssh: Ssh, box: Sandbox, rest: Rest, vol: str) -> None:
    box.write("vol", b"x" * (4 << 20))
    assert ssh("node1", "blkdiscard", DEVICE).returncode == 0
    assert box.allocated("vol") == 0
    rest.spawn("thick", group="fat")
    done = ssh("node1", "blkdiscard", "/dev/drbd/by-res/thick/0")
    assert done.returncode == 1 and b"Operation not supported" in done.stderr
    assert ssh("node1", "blkdiscard", "-z", "-o", "0", "-l", "1M", "/dev/drbd/by-res/thick/0").returncode == 0
    assert box.read("thick", 0, 1 << 20) == bytes(1 << 20)
    assert box.read("thick", 1 << 20, 8) != bytes(8)


def test_drbdsetup_shows_roles(ssh: Ssh, box: Sandbox, vol: str) -> None:
    box.open("node1", "vol", "w")
    status = json.loads(ssh("node2", "drbdsetup", "status", "vol", "--json").stdout)
    assert (status[0]["role"], status[0]["devices"][0]["disk-state"]) == ("Secondary", "UpToDate")
    assert {peer["name"]: peer["peer-role"] for peer in status[0]["connections"]} == {
        "node1": "Primary",
        "node3": "Secondary",
    }
    assert ssh("node2", "drbdsetup", "status", "none").returncode == 10


def domain(name: str, *paths: str) -> bytes:
    disks = "".join(
        f"<disk type='block'><source dev='{path}'/><target dev='vd{letter}'/></disk>"
        for path, letter in zip(paths, "ab")
    )
    return f"<domain><name>{name}</name><devices>{disks}</devices></domain>".encode()


def test_a_domain_opens_its_disks(ssh: Ssh, box: Sandbox, rest: Rest, vol: str) -> None:
    folder = box.host("node1") / "var/lib/one/datastores/0/7"
    folder.mkdir(parents=True)
    (folder / "disk.0").symlink_to(DEVICE)
    (folder / "deployment.0").write_bytes(domain("one-7", "/var/lib/one/datastores/0/7/disk.0"))
    done = ssh("node1", "virsh", "--connect", "qemu:///system", "create", "/var/lib/one/datastores/0/7/deployment.0")
    assert done.returncode == 0
    assert ssh("node1", "virsh", "list", "--name").stdout.split() == [b"one-7"]
    assert ssh("node1", "virsh", "domstate", "one-7").stdout.split() == [b"running"]
    assert b"State:          running" in ssh("node1", "virsh", "dominfo", "one-7").stdout
    assert rest.ok("GET", "/v1/resource-definitions/vol/resources/node1")["state"] == {"in_use": True}
    other = ssh("node2", "virsh", "create", "/dev/stdin", stdin=domain("one-8", DEVICE))
    assert other.returncode == 1 and b"Read-only file system" in other.stderr
    assert ssh("node1", "virsh", "destroy", "one-7").returncode == 0
    assert rest.ok("GET", "/v1/resource-definitions/vol/resources/node1")["state"] == {"in_use": False}
    assert ssh("node1", "virsh", "dominfo", "one-7").returncode == 1


def test_hosts_reach_each_other(ssh: Ssh, box: Sandbox, vol: str) -> None:
    script = b'printf x | ssh node3 dd of="$1" bs=1 seek=9 status=none\n'
    assert ssh("node1", "sh", "-s", "--", "/dev/drbd1000", stdin=script).returncode == 0
    assert box.read("vol", 9, 1) == b"x"


def test_the_state_says_what_lies_on_hosts(ssh: Ssh, box: Sandbox, vol: str) -> None:
    before = box.snapshot_of_state()
    assert ssh("node1", "dd", f"of={DEVICE}", stdin=b"x").returncode == 0
    assert box.snapshot_of_state() == before
    ssh("node1", "ln", "-s", DEVICE, "/var/lib/one/disk.0")
    changed = box.snapshot_of_state()
    assert changed != before
    assert "lib/one/disk.0" in changed["files"]["node1"]


def test_a_file_system_that_is_full(ssh: Ssh, box: Sandbox, vol: str) -> None:
    folder = "/var/lib/one//datastores/0/7"
    assert ssh("node1", "mkdir", "-p", f"{folder}/backup").returncode == 0
    box.write("vol", b"x" * (4 << 20))
    box.fill_directory("node1", folder, 1 << 20)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", DEVICE]
    full = ssh("node1", *convert, f"{folder}/backup/disk.0.0")
    assert full.returncode == 1 and b"No space left on device" in full.stderr
    copied = ssh("node1", f"cd {folder}/backup && head -c 3M /dev/zero | dd of=copy bs=64k")
    assert copied.returncode == 1 and b"copy': No space left on device" in copied.stderr
    assert ssh("node1", *convert, "/var/tmp/disk.0.0").returncode == 0
    assert ssh("node1", "dd", "if=/dev/zero", f"of={DEVICE}", "bs=1M", "count=8").returncode == 0
    assert ssh("node1", "rm", "-r", f"{folder}/backup").returncode == 0
    assert ssh("node1", "df", "--output=avail", "-B1", folder).stdout.split()[1] == b"1048576"
    assert ssh("node1", "df", "-Pk", folder).stdout.split()[-3] == b"1024"
    assert ssh("node1", f"head -c 1M /dev/zero | dd of={folder}/copy").returncode == 0
    assert ssh("node1", "df", "-Pk", folder).stdout.split()[-3] == b"0"
    box.fill_directory("node1", folder, -1)
    assert ssh("node1", *convert, f"{folder}/disk.0.0").returncode == 0


def test_sudo_and_udevadm_do_not_stand_in_the_way(ssh: Ssh, vol: str) -> None:
    assert ssh("node1", "sudo", "-n", "-u", "root", "--", "blockdev", "--getsize64", DEVICE).stdout == b"71249920\n"
    assert ssh("node1", "udevadm", "settle").returncode == 0
