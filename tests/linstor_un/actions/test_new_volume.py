"""New volumes: made as asked, kept as asked, and gone again when anything fails while they are filled."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import World
from tests.linstor_un.actions.datastore.material import (
    MIB,
    add_datastore,
    clone,
    cp,
    definitions,
    disk,
    holds,
    image_element,
    in_form,
    mkfs,
    noise,
    nothing_left,
    refused,
    replicas,
    request,
    source,
    succeeded,
)
from tests.linstor_un.hosts.web import Web, serving

MakeWorld = Callable[..., World]
CONTENT = disk(1, 3 * MIB)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


# --- What is in the pool ---------------------------------------------------------------------------------------------


@pytest.fixture
def unzeroed(make_world: MakeWorld) -> World:
    """A thin pool that was made with -Zn, which the datastores say."""
    world = make_world(pools=(Pool("data", "LVM_THIN", 20480, zeroes=False),), configuration='THIN_POOL_ZERO="no"\n')
    world.system.attributes["CLONE_MODE"] = "copy"
    return world


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_zeroes_are_written_where_a_thin_pool_does_not_zero(unzeroed: World, form: str) -> None:
    raw = Path(unzeroed.file("raw", CONTENT))
    path = str(raw) if form == "raw" else str(in_form(raw, form))
    succeeded(cp(unzeroed, path, 4), f"{source(7)} raw\n")
    holds(unzeroed, "one-image-7", CONTENT)
    succeeded(clone(unzeroed, source(7), 4, 8), f"{source(8)}\n")
    holds(unzeroed, "one-image-8", CONTENT)


def test_a_vms_disk_is_its_image_where_a_thin_pool_does_not_zero(unzeroed: World) -> None:
    image = unzeroed.cloud.create_image(unzeroed.images, unzeroed.file("raw", CONTENT))
    unzeroed.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node1", unzeroed.system)
    holds(unzeroed, "one-vm-0-disk-0", CONTENT)


# --- What is deployed ------------------------------------------------------------------------------------------------


def layers(world: World, resource: str) -> list[list[str]]:
    """The layers of every replica."""
    with_data = replicas(world, resource)
    return [found["layers"] for node, found in definitions(world)[resource]["resources"].items() if node in with_data]


LAYERS = {
    "": ["DRBD", "STORAGE"],
    'ENCRYPTION="yes"': ["DRBD", "LUKS", "STORAGE"],
    'LAYER_LIST="DRBD,LUKS,STORAGE"': ["DRBD", "LUKS", "STORAGE"],
    'LAYER_LIST="DRBD,STORAGE" ENCRYPTION="yes"': ["DRBD", "LUKS", "STORAGE"],
    'LAYER_LIST="STORAGE"': ["STORAGE"],
    'LAYER_LIST="STORAGE" ENCRYPTION="yes"': ["LUKS", "STORAGE"],
}


@pytest.mark.parametrize("where", ['STORAGE_POOL="data" REPLICA_COUNT="1"', 'RESOURCE_GROUP="group"'])
def test_the_layers_that_are_asked_for_are_deployed(where: str, world: World) -> None:
    request(world, "POST", "/v1/encryption/passphrase", {"new_passphrase": "word"})
    add_group(world, "group", place_count=1, storage_pool_list=["data"])
    path = world.file("disk", CONTENT)
    for identifier, (text, expected) in enumerate(LAYERS.items()):
        call = cp(world, path, 3, identifier, add_datastore(world, f"layers-{identifier}", f"{where} {text}"))
        resource = f"one-image-{identifier}"
        assert layers(world, resource) == [expected]
        holds(world, resource, CONTENT)
        layer = request(world, "GET", f"/v1/resource-definitions/{resource}/resources")[0]["layer_object"]
        device = layer[layer["type"].lower()][f"{layer['type'].lower()}_volumes"][0]["device_path"]
        succeeded(call, f"{source(identifier) if 'DRBD' in expected else device} raw\n")


def test_the_layers_of_a_resource_group_are_deployed(world: World) -> None:
    request(world, "POST", "/v1/encryption/passphrase", {"new_passphrase": "word"})
    add_group(world, "secret", place_count=2, storage_pool_list=["data"], layer_stack=["DRBD", "LUKS", "STORAGE"])
    datastore = add_datastore(world, "secret", 'RESOURCE_GROUP="secret"')
    succeeded(cp(world, world.file("disk", CONTENT), 3, datastore=datastore), f"{source(7)} raw\n")
    assert layers(world, "one-image-7") == [["DRBD", "LUKS", "STORAGE"]] * 2
    holds(world, "one-image-7", CONTENT)


def add_group(world: World, name: str, **select_filter: object) -> None:
    """A resource group of an administrator's."""
    request(world, "POST", "/v1/resource-groups", {"name": name, "select_filter": select_filter})
    request(world, "POST", f"/v1/resource-groups/{name}/volume-groups", {})


NODES = ("node1", "node2", "node3", "node4")


@pytest.mark.parametrize("kind", ["attributes", "group", "group and count"])
def test_balancing_leaves_the_replicas_that_were_asked(kind: str, make_world: MakeWorld) -> None:
    world = make_world(nodes=NODES)
    path = world.file("disk", CONTENT)
    for count in (1, 3, 4):
        add_group(world, f"group{count}", place_count=count if kind == "group" else 2, storage_pool_list=["data"])
        text = {
            "attributes": f'STORAGE_POOL="data" REPLICA_COUNT="{count}"',
            "group": f'RESOURCE_GROUP="group{count}"',
            "group and count": f'RESOURCE_GROUP="group{count}" AUTO_PLACE="{count}"',
        }
        datastore = add_datastore(world, f"asked-{count}", text[kind])
        first = 10 * count
        calls = [cp(world, path, 3, first, datastore), mkfs(world, 3, None, first + 1, datastore)]
        for number, mode in ((2, "copy"), (3, "snapshot")):
            datastore.attributes["CLONE_MODE"] = mode
            calls.append(clone(world, source(first), 3, first + number, datastore))
        assert [call.exit_code for call in calls] == [0] * 4, calls
    world.sandbox.run_balance()
    assert {name: len(replicas(world, name)) for name in definitions(world)} == {
        f"one-image-{10 * count + number}": count for count in (1, 3, 4) for number in range(4)
    }
    holds(world, "one-image-33", CONTENT)


def test_replicas_are_on_the_nodes_that_are_listed(make_world: MakeWorld) -> None:
    world = make_world(nodes=NODES)
    datastore = add_datastore(world, "listed", 'STORAGE_POOL="data" NODE_LIST="node4 node2"')
    succeeded(mkfs(world, 3, datastore=datastore), f"{source(7)}\n")
    world.sandbox.run_balance()
    assert set(replicas(world, "one-image-7")) == {"node2", "node4"}


@pytest.mark.parametrize("bridge", ["node3", "node3 node4"])
def test_a_bridge_without_a_replica_fills_the_volume_and_lets_go_of_it(bridge: str, make_world: MakeWorld) -> None:
    world = make_world(nodes=NODES)
    text = f'STORAGE_POOL="data" NODE_LIST="node1 node2" BRIDGE_LIST="{bridge}"'
    datastore = add_datastore(world, "bridged", text)
    qcow2 = in_form(Path(world.file("disk", CONTENT)), "qcow2")
    succeeded(cp(world, str(qcow2), 3, 1, datastore), f"{source(1)} raw\n")
    succeeded(mkfs(world, 3, {"FS": "ext4"}, 2, datastore), f"{source(2)}\n")
    holds(world, "one-image-1", CONTENT)
    assert {connection.host for connection in world.sandbox.connections} <= set(bridge.split())
    for name, definition in definitions(world).items():
        assert set(replicas(world, name)) == {"node1", "node2"}
        others = [found["flags"] for node, found in definition["resources"].items() if node not in ("node1", "node2")]
        assert all("TIE_BREAKER" in flags for flags in others), definition["resources"]


def test_five_images_are_imported_at_once(world: World) -> None:
    contents = {f"disk-{number}": disk(number, 3 * MIB + number) for number in range(5)}
    paths = [world.file(name, content) for name, content in contents.items()]
    with ThreadPoolExecutor(5) as pool:
        images = list(pool.map(lambda path: world.cloud.create_image(world.images, path), paths))
    assert sorted(image.identifier for image in images) == [0, 1, 2, 3, 4]
    for image, content in zip(images, contents.values()):
        holds(world, f"one-image-{image.identifier}", content)
    assert {call.stderr for call in world.cloud.calls} == {""}


# --- What fails ------------------------------------------------------------------------------------------------------

Fault = Callable[[Sandbox, str], object]
FAULTS: dict[str, Fault] = {
    "fails": lambda sandbox, pattern: sandbox.faults.fail(pattern),
    "fails after its work": lambda sandbox, pattern: sandbox.faults.fail(pattern, after_work=True),
    "is lost": lambda sandbox, pattern: sandbox.faults.drop(pattern),
    "is lost after its work": lambda sandbox, pattern: sandbox.faults.drop(pattern, after_work=True),
    "hangs after its work": lambda sandbox, pattern: sandbox.faults.hang(pattern, after_work=True),
}
SPAWN = r"POST .*/spawn"
ATTACH = r"POST .*/make-available"
DETACH = r"DELETE .*/resources/"
COMPLETE = r"PUT .*/resource-definitions/"


def ended_well(world: World, call: Call, resource: str, content: bytes) -> None:
    """Check that the action either did all of its work or left nothing of it."""
    if call.exit_code == 0:
        assert "Aux/one/INCOMPLETE" not in definitions(world)[resource]["props"]
        holds(world, resource, content)
    else:
        refused(call, "one-image-")
        assert resource not in definitions(world)
    assert world.sandbox.snapshot_of_state()["open"] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_that_goes_wrong_leaves_all_or_nothing(fault: str, make_world: MakeWorld) -> None:
    world = make_world(configuration='REQUEST_TIMEOUT="1"\nIN_USE_TIMEOUT="1"\n')
    text = 'STORAGE_POOL="data" NODE_LIST="node1 node2" BRIDGE_LIST="node3"'
    datastore = add_datastore(world, "bridged", text)
    path = world.file("disk", CONTENT)
    for identifier, pattern in enumerate((SPAWN, ATTACH, DETACH, COMPLETE)):
        resource = f"one-image-{identifier}"
        FAULTS[fault](world.sandbox, pattern)
        ended_well(world, cp(world, path, 3, identifier, datastore), resource, CONTENT)
        # And whatever it was, it is no obstacle for the same action again.
        again = cp(world, path, 3, identifier, datastore)
        assert again.exit_code == 0, again.stderr
        holds(world, resource, CONTENT)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_clone_that_goes_wrong_leaves_all_or_nothing(fault: str, make_world: MakeWorld) -> None:
    world = make_world(configuration='REQUEST_TIMEOUT="1"\n')
    world.images.attributes["CLONE_MODE"] = "snapshot"
    succeeded(cp(world, world.file("disk", CONTENT), 3), f"{source(7)} raw\n")
    # A clone of a clone: what the first one says of itself must not be taken for the second's.
    succeeded(clone(world, source(7), 3, 8), f"{source(8)}\n")
    patterns = (r"POST .*/snapshots$", "restore-volume-definition", "restore-resource", COMPLETE)
    for identifier, pattern in enumerate(patterns, 9):
        FAULTS[fault](world.sandbox, pattern)
        ended_well(world, clone(world, source(8), 3, identifier), f"one-image-{identifier}", CONTENT)
        holds(world, "one-image-8", CONTENT)
        world.sandbox.faults.clear()


def test_hosts_that_do_not_answer_are_named_and_nothing_is_left(world: World) -> None:
    for node in world.cloud.hosts:
        world.sandbox.refuse_ssh(node)
    calls: list[Call] = [
        cp(world, world.file("disk", CONTENT), 3),
        cp(world, str(in_form(Path(world.file("disk", CONTENT)), "qcow2")), 3),
        mkfs(world, 3, {"FS": "ext4"}),
    ]
    for call in calls:
        refused(call, "host node", "does not answer over ssh", "Connection refused")
    nothing_left(world)


def test_a_full_pool_is_named_and_nothing_is_left(make_world: MakeWorld) -> None:
    world = make_world(pools=(Pool("thick", "LVM", 1024),))
    datastore = add_datastore(world, "thick", 'STORAGE_POOL="thick" REPLICA_COUNT="2"')
    refused(
        mkfs(world, 2000, datastore=datastore),
        "no place for 2 replicas of",
        "thick on node1 has 1.0 GiB free",
        "STORAGE_POOL",
    )
    few = add_datastore(world, "few", 'STORAGE_POOL="thick" REPLICA_COUNT="4"')
    refused(mkfs(world, 3, datastore=few), "no place for 4 replicas", "REPLICA_COUNT")
    wrong = add_datastore(world, "wrong", 'STORAGE_POOL="nowhere" REPLICA_COUNT="1"')
    refused(mkfs(world, 3, datastore=wrong), "nowhere", "STORAGE_POOL")
    group = add_datastore(world, "group", 'RESOURCE_GROUP="nowhere"')
    refused(mkfs(world, 3, datastore=group), "no resource group nowhere", "correct RESOURCE_GROUP")
    nothing_left(world)


def test_a_node_that_cannot_make_its_replica_leaves_nothing(world: World) -> None:
    for node in world.cloud.hosts:
        world.sandbox.break_satellite(node, "create", times=-1)
    refused(mkfs(world, 3), "one-image-7")
    world.sandbox.mend()
    nothing_left(world)


# --- What is stopped -------------------------------------------------------------------------------------------------


def start(world: World, path: str, datastore: Datastore, identifier: int = 7) -> subprocess.Popen[str]:
    """Start a `cp` of 12 MiB as oned's driver does, without waiting for it."""
    scripts = world.cloud.scripts
    document = image_element(identifier, {"PATH": path, "SIZE": 12}) + datastore.xml()
    arguments, text = world.cloud.action_arguments(document, identifier)
    process = subprocess.Popen(
        [str(scripts.remotes / "datastore" / "linstor_un" / "cp"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(scripts.environment),
        cwd=scripts.directory,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


def wait_for_the_copy(world: World) -> None:
    """Wait until an action is in the middle of its work: a host has been told to write."""
    deadline = time.monotonic() + 30
    while not world.sandbox.connections:
        assert time.monotonic() < deadline, "the action does not get to its copy"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("form", "number"),
    [("raw", signal.SIGTERM), ("raw", signal.SIGHUP), ("raw", signal.SIGINT), ("qcow2", signal.SIGTERM)],
)
def test_an_action_that_is_stopped_takes_back_what_it_made(
    form: str, number: signal.Signals, world: World, web: Web
) -> None:
    web.files["disk"] = in_form(Path(world.file("disk", noise(1, 12 * MIB))), form).read_bytes()
    process = start(world, web.url("stall", "disk"), world.images)
    wait_for_the_copy(world)
    assert list(definitions(world)) == ["one-image-7"]
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (1, "")
    assert f"The action was stopped by {number.name} and took back what it had made" in stderr.splitlines()[-1]
    nothing_left(world)


def test_an_action_whose_caller_has_gone_takes_back_what_it_made(world: World) -> None:
    datastore = add_datastore(world, "slow", 'STORAGE_POOL="data" REPLICA_COUNT="2" LIMIT_TRANSFER_BW="2m"')
    process = start(world, world.file("disk", noise(1, 12 * MIB)), datastore)
    wait_for_the_copy(world)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1
    nothing_left(world)


def test_an_image_whose_answer_nobody_reads_is_taken_back(world: World) -> None:
    process = start(world, world.file("disk", CONTENT), world.images)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "no longer waits for this action's answer" in stderr.splitlines()[-1]
    nothing_left(world)


def test_an_action_that_was_killed_is_no_obstacle_for_the_next(world: World, web: Web) -> None:
    content = noise(1, 12 * MIB)
    web.files["disk"] = content
    process = start(world, web.url("stall", "disk"), world.images)
    wait_for_the_copy(world)
    process.kill()
    process.communicate()
    assert "Aux/one/INCOMPLETE" in definitions(world)["one-image-7"]["props"]
    call = cp(world, web.url("whole", "disk"), 12)
    succeeded(call, f"{source(7)} raw\n", "discarding one-image-7, left by an earlier run")
    holds(world, "one-image-7", content)
