"""datastore create makes both datastores as asked for, or says why not and makes none."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from click.testing import CliRunner, Result

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import Release
from linstor_sandbox.opennebula.errors import Refused
from linstor_un.cli.verbs import command
from tests.conftest import CHECKOUT, World, build_world

POOLS = (Pool("data", "LVM_THIN", 20480), Pool("thick", "LVM", 10240))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three nodes with a pool that has snapshots and one that has not; this process is a command there."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        world = build_world(stack, tmp_path_factory.mktemp("datastore"), pools=POOLS)
        for name, value in world.cloud.scripts.environment.items():
            environment.setenv(name, value)
        yield world
        assert world.sandbox.exceptions == []


@pytest.fixture
def world(cloud: World) -> World:
    """The same with the article's two datastores alone."""
    del cloud.cloud.datastores[2:]
    cloud.sandbox.repair()
    return cloud


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["datastore", "create", *arguments])


def state(world: World) -> Any:
    shown = [(item.identifier, item.name, dict(item.attributes)) for item in world.cloud.datastores]
    return shown, world.sandbox.snapshot_of_state()


def attributes(world: World, name: str) -> dict[str, str]:
    [found] = [item for item in world.cloud.datastores if item.name == name]
    return found.attributes


def test_both_are_made_and_vms_run_on_them(world: World) -> None:
    result = run("new", "--pool", "data", "--replicas", "3", "--set", f"safe_dirs={world.folder}", "--yes")
    assert result.exit_code == 0, result.output
    system, images = world.cloud.datastores[2:]
    assert (system.name, images.name) == ("new-system", "new-images")
    wanted = {"STORAGE_POOL": "data", "REPLICA_COUNT": "3", "CLONE_MODE": "snapshot", "DISK_TYPE": "BLOCK"}
    for found in (system, images):
        assert wanted.items() <= found.attributes.items()
    assert images.ds_mad == "linstor_un"
    assert "Room for 20.0 of 20.0 GiB" in result.output, "three replicas on three nodes"
    image = world.cloud.create_image(images, world.file("disk.raw", b"disk" * 1024))
    try:
        vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node1", system)
        placed = world.sandbox.snapshot_of_state()["resource_definitions"][f"one-vm-{vm.identifier}-disk-0"]
        assert len([item for item in placed["resources"].values() if "DISKLESS" not in item["flags"]]) == 3
        world.cloud.terminate(vm)
    finally:
        world.cloud.delete_image(image)


def test_a_dry_run_shows_the_attributes_and_the_room_and_changes_nothing(world: World) -> None:
    before = state(world)
    result = run("new", "--pool", "data", "--dry-run")
    assert result.exit_code == 0
    assert state(world) == before
    assert ["STORAGE_POOL", "data", "data"] in [line.split() for line in result.output.splitlines()]
    assert "GiB with these replicas" in result.output and "dry run" in result.output
    rows = json.loads(run("new", "--pool", "data", "--dry-run", "--json").output)
    assert [(row["datastore"], row["id"], row["outcome"]) for row in rows] == [
        ("new-system", None, "would"),
        ("new-images", None, "would"),
    ]


def test_run_twice_is_as_run_once_and_what_is_missing_is_made(world: World) -> None:
    assert run("new", "--pool", "data", "--checkpoint", "2", "--yes").exit_code == 0
    before = state(world)
    again = json.loads(run("new", "--pool", "data", "--checkpoint", "2", "--yes", "--json").output)
    assert [row["outcome"] for row in again] == ["left", "left"]
    assert state(world) == before
    del world.cloud.datastores[-1]
    rows = json.loads(run("new", "--pool", "data", "--checkpoint", "2", "--yes", "--json").output)
    assert [row["outcome"] for row in rows] == ["left", "made"]
    assert "CHECKPOINT_REPLICA_COUNT" in attributes(world, "new-system")
    assert "CHECKPOINT_REPLICA_COUNT" not in attributes(world, "new-images")


def test_the_old_names_of_attributes_and_other_separators_are_no_difference(world: World) -> None:
    world.cloud.create_datastore(
        'NAME="new-system" TYPE="SYSTEM_DS" STORAGE_POOL="data" AUTO_PLACE="2" CLONE_MODE="snapshot" DISK_TYPE="BLOCK" '
        'BRIDGE_LIST="node1,node2" TM_MAD="linstor_un"'
    )
    rows = json.loads(run("new", "--pool", "data", "--bridge-list", "node1 node2", "--yes", "--json").output)
    assert [row["outcome"] for row in rows] == ["left", "made"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--replicas", "3"), 'has REPLICA_COUNT="2", where "3" is asked for'),
        (("--clone-mode", "copy"), 'has CLONE_MODE="snapshot", where "copy" is asked for'),
        (("--set", "PREFER_NODE=yes"), 'has PREFER_NODE="", where "yes" is asked for'),
        (("--set", "LS_TOKEN=secret-word"), "has LS_TOKEN=(hidden), where another is asked for"),
    ],
)
def test_a_datastore_of_the_name_that_is_another_is_refused(world: World, options: tuple[str, ...], says: str) -> None:
    assert run("new", "--pool", "data", "--yes").exit_code == 0
    before = state(world)
    result = run("new", "--pool", "data", "--yes", *options)
    assert result.exit_code == 1 and says in result.output, result.output
    assert "secret-word" not in result.output
    assert state(world) == before


def test_a_name_that_another_driver_has_is_refused(world: World) -> None:
    other = world.cloud.create_datastore('NAME="new-images" TYPE="SYSTEM_DS" TM_MAD="linstor_un"')
    other.attributes["TM_MAD"] = "ceph"
    before = state(world)
    result = run("new", "--pool", "data", "--yes")
    assert result.exit_code == 1 and 'has TYPE="SYSTEM_DS"' in result.output
    assert state(world) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--pool", "dta"), "No node has a storage pool dta"),
        (("--pool", "data", "--replicas", "4"), "asks for 4 replicas, and 3 nodes have its pools"),
        (("--pool", "data", "--checkpoint", "5"), "asks for 5 replicas of suspended VMs' memory"),
        (("--pool", "data", "--bridge-list", "node1 node9"), "names node9, which is not a node of LINSTOR"),
        (("--resource-group", "nowhere"), "LINSTOR has no resource group nowhere"),
        (("--resource-group", "DfltRscGrp", "--set", "DISKLESS_POOL=other"), "has no effect beside RESOURCE_GROUP"),
    ],
)
def test_what_check_would_find_wrong_is_not_made(world: World, options: tuple[str, ...], says: str) -> None:
    before = state(world)
    result = run("new", *options, "--yes")
    assert result.exit_code == 3 and says in result.output, result.output
    assert result.output.count(says) == 1 and "docs/check.md#" in result.output
    assert state(world) == before


def test_a_pool_without_snapshots_is_copied_from_and_said_to_be_so_where_it_is_asked_for(world: World) -> None:
    assert run("new", "--pool", "thick", "--yes").exit_code == 0
    assert attributes(world, "new-system")["CLONE_MODE"] == "copy"
    result = run("other", "--pool", "thick", "--clone-mode", "snapshot", "--yes")
    assert result.exit_code == 0 and "can have no snapshots" in result.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--pool", "data", "--replicas", "many"), 'REPLICA_COUNT="many"'),
        (("--pool", "data", "--set", "CLONE_MODE=fast"), 'CLONE_MODE="fast"'),
    ],
)
def test_an_attribute_that_makes_no_sense_is_named(world: World, options: tuple[str, ...], says: str) -> None:
    before = state(world)
    result = run("new", *options, "--yes")
    assert result.exit_code == 1 and says in result.output
    assert state(world) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--set", "STORAGE_POOLS=data"), "no attribute of a datastore"),
        (("--yes",), "Say --pool or --resource-group; LINSTOR has the pools: data, thick"),
        (("--pool", "data"), "There is no terminal to ask"),
    ],
)
def test_what_was_not_said_is_not_guessed(world: World, options: tuple[str, ...], says: str) -> None:
    before = state(world)
    result = run("new", *options)
    assert result.exit_code == 2 and says in " ".join(result.output.split()), result.output
    assert state(world) == before


@pytest.fixture
def without_ds_mad(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """oned.conf has no DS_MAD_CONF of linstor_un."""
    create = world.cloud.create_datastore

    def refuse_images(template: str) -> Any:
        if "IMAGE_DS" in template:
            raise Refused('DS_MAD named "linstor_un" is not defined in oned.conf')
        return create(template)

    monkeypatch.setattr(world.cloud, "create_datastore", refuse_images)


@pytest.mark.usefixtures("without_ds_mad")
def test_where_the_second_fails_the_first_is_taken_back(world: World) -> None:
    before = state(world)
    result = run("new", "--pool", "data", "--yes")
    assert result.exit_code == 1 and 'DS_MAD named "linstor_un" is not defined' in result.output
    assert state(world) == before
    methods = [request.method for request in world.cloud.rpc.requests]
    assert "one.datastore.delete" in methods


@pytest.mark.usefixtures("without_ds_mad")
def test_where_the_first_cannot_be_taken_back_it_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(_: object) -> None:
        raise Refused("Datastore is busy")

    monkeypatch.setattr(world.cloud, "datastore", keep)
    result = run("new", "--pool", "data", "--yes")
    assert result.exit_code == 1 and "is not defined" in result.output
    assert "(new-system) is there without it" in result.output


def test_a_cluster_that_does_not_exist_is_oneds_to_refuse(world: World) -> None:
    before = state(world)
    result = run("new", "--pool", "data", "--cluster", "7", "--yes")
    assert result.exit_code == 1 and "there is no cluster 7; see `onecluster list`" in result.output
    assert state(world) == before
    assert run("new", "--pool", "data", "--cluster", "0", "--yes").exit_code == 0
    elsewhere = run("new", "--pool", "data", "--cluster", "7", "--yes")
    assert elsewhere.exit_code == 1 and "onecluster adddatastore 7 " in elsewhere.output


def test_a_resource_group_takes_the_place_of_a_pool(world: World) -> None:
    assert run("new", "--resource-group", "DfltRscGrp", "--yes").exit_code == 0
    assert attributes(world, "new-system")["RESOURCE_GROUP"] == "DfltRscGrp"
    assert "REPLICA_COUNT" not in attributes(world, "new-system")


def test_somebody_at_a_terminal_is_asked_with_the_choices_that_linstor_has(world: World) -> None:
    terminal, theirs = pty.openpty()
    line = [sys.executable, "-m", "linstor_un.cli", "datastore", "create", "asked"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "lib"), "TERM": "dumb", "COLUMNS": "200"}
    process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    for until, answer in (
        (b"Storage pool", b"nowhere\n"),
        (b"Storage pool", b"data\n"),
        (b"Replicas of each volume", b"9\n"),
        (b"Replicas of each volume", b"3\n"),
        (b"made of images", b"\n"),
        (b"suspended VM's memory", b"1\n"),
        (b"[y/N]", b"y\n"),
    ):
        part = b""
        while until not in part or not part.rstrip(b" ").endswith((b":", b"]:")):
            part += os.read(terminal, 4096)
        shown += part
        os.write(terminal, answer)
    while process.poll() is None:
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            break
    assert process.wait() == 0, shown.decode()
    os.close(terminal)
    assert b"LVM_THIN" in shown and b"node1 node2 node3" in shown
    found = attributes(world, "asked-system")
    assert (found["STORAGE_POOL"], found["REPLICA_COUNT"], found["CLONE_MODE"]) == ("data", "3", "snapshot")
    assert found["CHECKPOINT_REPLICA_COUNT"] == "1"


@pytest.mark.parametrize(("release", "kind"), [("5.12.0", "FILE"), ("6.4.0", "FILE"), ("6.4.1", "BLOCK")])
def test_the_datastore_for_vms_is_one_that_the_release_takes(
    world: World, monkeypatch: pytest.MonkeyPatch, release: str, kind: str
) -> None:
    monkeypatch.setattr(world.cloud, "release", Release.parse(release))
    for _ in range(2):
        result = run("new", "--pool", "data", "--yes")
        assert result.exit_code == 0, result.output
        assert attributes(world, "new-system")["DISK_TYPE"] == kind
        assert attributes(world, "new-images")["DISK_TYPE"] == "BLOCK"
