"""What a host's tools say of the pools below LINSTOR: lvs, dmsetup, thin_delta, zfs send and zstream."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Callable
from xml.etree import ElementTree

import pytest

from linstor_sandbox import Sandbox
from linstor_sandbox.storage import CHUNK, MIB

from .rest import Rest

Ssh = Callable[..., "subprocess.CompletedProcess[bytes]"]
TPOOL, TMETA = "/dev/mapper/vg_data-data-tpool", "/dev/mapper/vg_data-data_tmeta"
END = 71249920 // CHUNK
"""The block in which the content ends and DRBD's meta-data begin."""
RUNS = dict[str, list[tuple[int, int]]]


@pytest.fixture
def vol(rest: Rest) -> str:
    rest.spawn("vol")
    return "vol"


def snapshot(rest: Rest, name: str, resource: str = "vol") -> None:
    rest.ok("POST", f"/v1/resource-definitions/{resource}/snapshots", {"name": name})


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def thin_ids(ssh: Ssh, node: str = "node1") -> dict[str, int]:
    done = ssh(
        node, "sudo", "-n", "lvs", "--noheadings", "--separator", "'|'", "-o", "lv_name,thin_id,pool_lv", "vg_data"
    )
    rows = [line.strip().split("|") for line in said(done).splitlines()]
    return {name: int(number) for name, number, pool in rows if pool == "data"}


def delta(ssh: Ssh, left: str, right: str) -> RUNS:
    """The runs of blocks by their kind."""
    ids = thin_ids(ssh)
    wanted = ("--thin1", str(ids[left]), "--thin2", str(ids[right]))
    tree = ElementTree.fromstring(said(ssh("node1", "thin_delta", "--metadata-snap", *wanted, TMETA)))
    assert tree.get("data_block_size") == "128"
    found: RUNS = {}
    for element in tree.findall("diff/*"):
        found.setdefault(element.tag, []).append((int(element.get("begin", "")), int(element.get("length", ""))))
    return found


def reserve(ssh: Ssh, what: str = "reserve") -> subprocess.CompletedProcess[bytes]:
    return ssh("node1", "sudo", "-n", "dmsetup", "message", TPOOL, "0", f"{what}_metadata_snap")


def test_lvs_lists_volumes_and_snapshots_with_their_thin_ids(ssh: Ssh, rest: Rest, vol: str) -> None:
    snapshot(rest, "one")
    rest.spawn("other")
    asked = ("sudo", "-n", "lvs", "--noheadings", "--separator", "'|'", "-o", "vg_name,lv_name,pool_lv,thin_id,origin")
    assert said(ssh("node1", *asked, "vg_data")).splitlines() == [
        "  vg_data|data|||",
        "  vg_data|other_00000|data|3|",
        "  vg_data|vol_00000|data|1|",
        "  vg_data|vol_00000_one|data|2|vol_00000",
    ]
    assert said(ssh("node1", *asked, "vg_data/vol_00000_one")) == "  vg_data|vol_00000_one|data|2|vol_00000\n"
    assert said(ssh("node1", *asked, "--select", "'origin=vol_00000 && thin_id=2'")).count("\n") == 1
    sizes = (
        "sudo",
        "-n",
        "lvs",
        "-o",
        "lv_size",
        "--units",
        "b",
        "--nosuffix",
        "--reportformat",
        "json",
        "vg_data/vol_00000",
    )
    assert json.loads(said(ssh("node1", *sizes))) == {"report": [{"lv": [{"lv_size": "71303168"}]}]}
    assert ssh("node1", "sudo", "-n", "lvs", "vg_data/none").returncode == 5
    attributes = ("sudo", "-n", "lvs", "--noheadings", "-o", "lv_attr", "vg_data/vol_00000_one")
    assert said(ssh("node1", *attributes)).strip() == "Vwi---tz-k"
    assert ssh("node1", "lvs").returncode == 5, "it is root's"


def test_ids_of_volumes_that_are_gone_are_not_those_of_others(ssh: Ssh, rest: Rest, vol: str) -> None:
    snapshot(rest, "one")
    snapshot(rest, "two")
    rest.ok("DELETE", "/v1/resource-definitions/vol/snapshots/one")
    snapshot(rest, "three")
    assert thin_ids(ssh) == {"vol_00000": 1, "vol_00000_two": 3, "vol_00000_three": 4}


def test_thin_delta_says_what_was_written_and_discarded(ssh: Ssh, box: Sandbox, rest: Rest, vol: str) -> None:
    box.write("vol", b"a" * (4 * CHUNK))
    box.write("vol", b"b" * CHUNK, 100 * CHUNK)
    snapshot(rest, "one")
    device = "/dev/drbd/by-res/vol/0"
    assert ssh("node1", "dd", f"of={device}", f"bs={CHUNK}", "seek=1", stdin=b"c").returncode == 0
    # The same bytes in a new block of the pool.
    box.write("vol", b"a" * 512, 2 * CHUNK)
    box.write("vol", b"d", 200 * CHUNK)
    assert ssh("node1", "blkdiscard", "-o", str(100 * CHUNK), "-l", str(CHUNK), device).returncode == 0
    snapshot(rest, "two")
    assert reserve(ssh).returncode == 0
    found = delta(ssh, "vol_00000_one", "vol_00000_two")
    metadata = (END, 71303168 // CHUNK - END)
    assert found == {
        "same": [(0, 1), (3, 1)],
        "different": [(1, 2), metadata],
        "left_only": [(100, 1)],
        "right_only": [(200, 1)],
    }
    assert delta(ssh, "vol_00000_two", "vol_00000") == {"same": [(0, 4), (200, 1)], "different": [metadata]}


def test_a_volume_that_grew_has_its_meta_data_elsewhere(ssh: Ssh, box: Sandbox, rest: Rest, vol: str) -> None:
    snapshot(rest, "one")
    rest.ok("PUT", "/v1/resource-definitions/vol/volume-definitions/0", {"size_kib": 131072})
    box.write("vol", b"x", END * CHUNK)
    snapshot(rest, "two")
    reserve(ssh)
    found = delta(ssh, "vol_00000_one", "vol_00000_two")
    assert found["different"] == [(END, 1)]
    assert box.device_size("vol") // CHUNK in range(*_ends(found["right_only"][0]))


def _ends(run: tuple[int, int]) -> tuple[int, int]:
    return run[0], run[0] + run[1]


def test_the_meta_data_of_a_pool_are_reserved_once(ssh: Ssh, box: Sandbox, rest: Rest, vol: str) -> None:
    snapshot(rest, "one")
    ids = thin_ids(ssh)
    asked = ("thin_delta", "-m", f"--snap1={ids['vol_00000']}", f"--snap2={ids['vol_00000_one']}", TMETA)
    done = ssh("node1", *asked)
    assert (done.returncode, done.stderr) == (1, b"no current metadata snap\n")
    assert reserve(ssh).returncode == 0
    assert box.snapshot_of_state()["metadata_snapshots"] == ["node1/data"]
    assert b"/" in ssh("node1", "sudo", "-n", "dmsetup", "status", "vg_data-data-tpool").stdout
    again = reserve(ssh)
    assert (again.returncode, again.stderr.decode().splitlines()) == (
        1,
        ["device-mapper: message ioctl on vg_data-data-tpool  failed: Device or resource busy", "Command failed."],
    )
    assert said(ssh("node1", *asked)).startswith("<superblock")
    snapshot(rest, "late")
    late = ("thin_delta", "-m", "--thin1", "1", "--thin2", str(thin_ids(ssh)["vol_00000_late"]), TMETA)
    assert b"Unable to find mapping tree for snap2" in ssh("node1", *late).stderr
    assert reserve(ssh, "release").returncode == 0
    assert reserve(ssh, "release").returncode == 1
    assert box.snapshot_of_state()["metadata_snapshots"] == []
    assert b"busy" in ssh("node1", "thin_delta", "--thin1", "1", "--thin2", "2", TMETA).stderr, "the pool is in use"
    assert ssh("node1", "dmsetup", "message", TPOOL, "0", "reserve_metadata_snap").returncode == 1, "it is root's"


def test_names_with_a_dash(tmp_path: object, box: Sandbox, ssh: Ssh, rest: Rest) -> None:
    node = box.cluster.nodes["node1"]
    box.cluster.add_pool(node, "dashed", "LVM_THIN", 1 << 20, "linstor-vg/thin-pool")
    done = ssh("node1", "sudo", "-n", "dmsetup", "message", "/dev/mapper/linstor--vg-thin--pool-tpool", "0", "x")
    assert b"Invalid argument" in done.stderr
    done = ssh("node1", "sudo", "-n", "dmsetup", "message", "/dev/mapper/linstor-vg-thin-pool-tpool", "0", "x")
    assert b"No such device or address" in done.stderr


def test_a_host_without_a_rule_and_a_host_without_a_tool(ssh: Ssh, box: Sandbox, vol: str) -> None:
    box.refuse_sudo("node1", "dmsetup")
    assert reserve(ssh).stderr == b"sudo: a password is required\n"
    assert ssh("node1", "sudo", "-n", "-l", "dmsetup").returncode == 1
    assert ssh("node1", "sudo", "-n", "-l", "lvs").returncode == 0
    assert ssh("node1", "sudo", "-n", "lvs").returncode == 0
    box.refuse_sudo("node1", "ALL")
    assert ssh("node1", "sudo", "-n", "lvs").returncode == 1
    box.refuse_sudo("node1")
    assert reserve(ssh).returncode == 0
    for tool in ("thin_delta", "dmsetup"):
        box.remove_tool("node1", tool)
        done = ssh("node1", tool)
        assert done.returncode == 127 and b"not found" in done.stderr


def send(ssh: Ssh, left: str, right: str, dump: str = "zstream dump -v") -> str:
    dataset = "zp_zdata/vol_00000"
    return said(ssh("node1", f"sudo -n zfs send -i {dataset}@{left} {dataset}@{right} | {dump}"))


@pytest.fixture
def zvol(rest: Rest, box: Sandbox) -> str:
    rest.group("zgroup", "zdata")
    rest.spawn("vol", group="zgroup")
    box.write("vol", b"a" * 32768)
    box.write("vol", b"b" * 16384, 8 * MIB)
    snapshot(rest, "one")
    return "vol"


def test_zfs_send_says_what_was_written_and_freed(ssh: Ssh, box: Sandbox, rest: Rest, zvol: str) -> None:
    box.write("vol", b"a", 8192)
    device = "/dev/drbd/by-res/vol/0"
    assert ssh("node1", "blkdiscard", "-o", str(8 * MIB), "-l", "16384", device).returncode == 0
    snapshot(rest, "two")
    dumped = send(ssh, "one", "two")
    writes = re.findall(r"^WRITE object = 1 .* offset = (\d+) logical_size = 8192 ", dumped, re.M)
    end = box.device_size("vol")
    assert int(writes[0]) == 8192
    assert all(int(offset) >= end // 8192 * 8192 for offset in writes[1:]), "DRBD's own"
    frees = re.findall(r"^FREE object = 1 offset = (\d+) length = (-?\d+)$", dumped, re.M)
    assert frees[0][1] == "-1" and int(frees[0][0]) >= end
    assert frees[1:] == [(str(8 * MIB), "16384")]
    older = send(ssh, "one", "two", "zstreamdump -v")
    assert re.findall(r"^WRITE object = 1 [^\n]*\n    offset = (\d+) logical_size = 8192 ", older, re.M) == writes
    assert "WRITE object" not in send(ssh, "one", "two", "zstream dump")


def test_zfs_send_fails_as_zfs_does(ssh: Ssh, rest: Rest, zvol: str) -> None:
    snapshot(rest, "two")
    name = "zp_zdata/vol_00000"
    for command, text in (
        (f"sudo -n zfs send -i {name}@none {name}@two", b"does not exist"),
        (f"sudo -n zfs send -i {name}@one {name}@none", b"dataset does not exist"),
        (f"sudo -n zfs send -i {name}@two {name}@one", b"not an earlier snapshot"),
        (f"zfs send -i {name}@one {name}@two", b"permission denied"),
        ("echo | zstream dump -v", b"bad magic number"),
    ):
        done = ssh("node1", command)
        assert done.returncode and text in done.stderr, command


def test_a_volume_without_drbd(tmp_path: object, ssh: Ssh, rest: Rest, box: Sandbox) -> None:
    rest.spawn("vol", select_filter={"place_count": 1, "layer_stack": ["STORAGE"]})
    snapshot(rest, "one")
    snapshot(rest, "two")
    reserve(ssh)
    assert delta(ssh, "vol_00000_one", "vol_00000_two") == {}


def test_a_thick_pool_has_no_thin_ids(ssh: Ssh, rest: Rest) -> None:
    rest.spawn("vol", group="fat")
    asked = ("sudo", "-n", "lvs", "--noheadings", "--separator", "'|'", "-o", "lv_name,pool_lv,thin_id", "vg_thick")
    assert said(ssh("node1", *asked)) == "  vol_00000||\n"
