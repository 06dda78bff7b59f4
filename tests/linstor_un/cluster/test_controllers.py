"""Which controller is asked, and how an action waits for one that takes over from another."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from linstor_sandbox.faults import Fault
from linstor_sandbox.opennebula.scripts import Call
from linstor_sandbox.tls import Authority, serving
from linstor_un.cluster import controllers
from linstor_un.cluster.gateway import Gateway
from linstor_un.errors import ControllerUnreachable
from linstor_un.settings import Settings
from tests.conftest import World
from tests.linstor_un.actions.datastore.material import (
    MIB,
    add_datastore,
    cp,
    disk,
    holds,
    nothing_left,
    refused,
    remove,
    source,
    succeeded,
)
from tests.linstor_un.cluster.tls import among, proxy, silent, standby, starting
from tests.linstor_un.living import snapshots, start
from tests.linstor_un.scenes import add_image, attached, failure, homes, own, requests, stranger, volume
from tests.linstor_un.scenes import replicas as nodes_of

MakeWorld = Callable[..., World]
NUMBERS = "USED_MB=0\nTOTAL_MB=30720\nFREE_MB=30720\n"
DEAD = "linstor://127.0.0.1:1"
BROKEN = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\n\r\nno luck"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
ANOTHER = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nIt works!"
NODES = ("node1", "node2", "node3", "node4")
LONG = 'CONNECT_TIMEOUT="1"\nFAILOVER_TIMEOUT="60"\n'
NEVER_ENDING = 'CONNECT_TIMEOUT="1"\nFAILOVER_TIMEOUT="99999"\n'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, tuple[Path, Path]]:
    authority = Authority(tmp_path_factory.mktemp("certificates"), "authority")
    return authority, authority.sign("controller", "IP:127.0.0.1")


@pytest.fixture
def impatient(make_world: MakeWorld) -> World:
    return make_world(configuration='CONNECT_TIMEOUT="1"\n')


@pytest.fixture
def patient(make_world: MakeWorld) -> World:
    """A world in which a test never ends where an action waits for what does not come."""
    return make_world(configuration=NEVER_ENDING)


def monitor(world: World) -> Call:
    arguments = world.cloud.action_arguments(world.images.xml(), world.images.identifier)
    return world.cloud.scripts.datastore("linstor_un", "monitor", *arguments)


def ask(world: World) -> Call:
    """Remove an image that is not there, which needs LINSTOR and would wait for it."""
    return remove(world, source(7))


def stop_at(world: World, request: str, after_work: bool) -> None:
    """The controller is gone at a request, before or after it has done the work."""
    stop = world.sandbox.stop_controller
    world.sandbox.faults.add(Fault("do", re.compile(request), after_work=after_work, ends=True, action=stop))


def test_the_next_controller_is_asked_where_one_does_not_answer(
    certificate: tuple[Authority, tuple[Path, Path]], impatient: World
) -> None:
    world, (authority, served) = impatient, certificate
    alive = world.sandbox.uri
    world.images.attributes["LS_CAFILE"] = str(authority.certificate)
    with silent() as port, proxy(world.sandbox, serving(served)) as secure, standby(BROKEN) as broken:
        quiet = f"linstor://127.0.0.1:{port}"
        quiet_tls = f"linstor+ssl://127.0.0.1:{port}"
        lists = [
            f"{DEAD},{alive}",
            f"{quiet}, {alive}",
            f"{broken},{alive}",
            f"{quiet_tls} {DEAD} linstor+ssl://127.0.0.1:{secure.port}",
            f"linstor+ssl://127.0.0.1:{world.sandbox.port},{alive}",
            f"linstor://name.invalid,{alive}",
        ]
        for listed in lists:
            world.images.attributes["LS_CONTROLLERS"] = listed
            succeeded(monitor(world), NUMBERS)


def test_what_each_controller_has_answered_is_told_and_nothing_is_left(impatient: World) -> None:
    world = impatient
    with silent() as port, standby(BROKEN) as broken, standby() as gone:
        quiet = f"linstor://127.0.0.1:{port}"
        among(world, DEAD, quiet, broken, gone)
        call = cp(world, world.file("disk", b"disk"), 1)
    sentence = refused(call, "No LINSTOR controller answers", "start linstor-controller or correct LS_CONTROLLERS")
    for controller, answer in (
        (DEAD, "Connection refused"),
        (quiet, "timeout"),
        (broken, "it answered HTTP status 503 no luck"),
        (gone, "reset by peer|closed connection"),
    ):
        assert re.search(rf"{controller}: [^;]*({answer})", sentence), sentence
    nothing_left(world)


@pytest.mark.parametrize("answer", [b"", BROKEN], ids=["breaks off", "answers 503"])
def test_an_action_begins_when_a_controller_has_taken_over(make_world: MakeWorld, answer: bytes) -> None:
    world = make_world(configuration=LONG)
    content = disk(1, 100_000)
    world.sandbox.stop_controller()
    with standby(answer, starting(world, 3)) as other:
        among(world, DEAD, other, world.sandbox.uri)
        call = cp(world, world.file("disk", content), 1)
    succeeded(call, f"{source(7)} raw\n", "waiting for one to take over")
    holds(world, "one-image-7", content)


REQUESTS = {
    "a question": "GET .*/resource-definitions",
    "the group": "POST .*/resource-groups$",
    "the volume": "POST .*/spawn",
    "the mark": "PUT .*/resource-definitions/one-vm-0-disk-[12]$",
    "the base snapshot": "POST .*/snapshots",
    "the definition": "POST .*/resource-definitions$",
    "its volume definition": "POST .*/snapshot-restore-volume-definition/",
    "its replicas": "POST .*/snapshot-restore-resource/",
    "the attachment": "POST .*/make-available",
}


@pytest.mark.parametrize("after_work", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_vm_starts_although_the_controller_fails_over_in_the_middle(
    make_world: MakeWorld, request_: str, after_work: bool
) -> None:
    world = make_world(nodes=NODES, configuration=LONG)
    image = add_image(world)
    host = stranger(world, volume(image))
    box = world.sandbox
    with standby(knocked=starting(world, 2)) as other:
        among(world, box.uri, other)
        stop_at(world, request_, after_work)
        vm = world.cloud.instantiate("DISK=[IMAGE_ID=0] DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=16]", host, world.system)
    assert requests(world, request_), "the fail-over has not happened"
    assert vm.lcm_state.name == "RUNNING"
    assert box.read(own(vm, 0)) == box.read(volume(image))
    state = box.snapshot_of_state()["resource_definitions"]
    assert set(state) == {volume(image), own(vm, 0), own(vm, 1)}
    for resource in (own(vm, 0), own(vm, 1)):
        assert "Aux/one/INCOMPLETE" not in state[resource]["props"]
        assert len(nodes_of(world, resource)) == 2
        assert host in nodes_of(world, resource) | attached(world, resource)


def test_a_controller_that_dies_between_two_requests_is_replaced(impatient: World) -> None:
    world = impatient
    content = disk(1, 100_000)
    with proxy(world.sandbox) as second:
        among(world, world.sandbox.uri, f"linstor://127.0.0.1:{second.port}")
        # The first answer that is lost is that of a request which may safely be made again.
        world.sandbox.faults.drop(r"PUT .*/resource-definitions/")
        call = cp(world, world.file("disk", content), 1)
    succeeded(call, f"{source(7)} raw\n", "the LINSTOR controller went away")
    holds(world, "one-image-7", content)


def test_a_fail_over_that_was_waited_for_in_vain_is_not_waited_for_again() -> None:
    knocks: list[int] = []
    with standby(knocked=knocks.append) as nobody:
        gateway = Gateway(Settings(controllers=(nobody,), failover_timeout_seconds=1))
        with pytest.raises(ControllerUnreachable):
            gateway.connect()
        assert len(knocks) > 2
        del knocks[:]
        with pytest.raises(ControllerUnreachable):
            gateway.connect()
        assert len(knocks) == 1


def test_monitoring_waits_for_nobody(patient: World) -> None:
    among(patient, DEAD)
    refused(monitor(patient), f"No LINSTOR controller answers ({DEAD}: ", "Connection refused")
    patient.sandbox.set_node("node1", online=False)
    patient.sandbox.set_node("node2", online=False)
    patient.sandbox.set_node("node3", online=False)
    among(patient, patient.sandbox.uri)
    refused(monitor(patient), "Too few storage pools answer")


def test_what_waiting_does_not_change_ends_it_at_once(patient: World) -> None:
    with standby(FORBIDDEN) as forbidden, standby(ANOTHER) as another:
        cases = [
            ([DEAD, forbidden], "HTTP status 403"),
            ([another], "it is no LINSTOR controller"),
            ([f"linstor+ssl://127.0.0.1:{patient.sandbox.port}"], "SSL"),
        ]
        for listed, reason in cases:
            among(patient, *listed)
            sentence = refused(ask(patient), "No LINSTOR controller answers", reason)
            assert all(controller in sentence for controller in listed)


def test_a_token_that_is_missing_is_asked_for_at_once(make_world: MakeWorld) -> None:
    world = make_world(rest_version="1.28.0", token="word", configuration=NEVER_ENDING)
    refused(ask(world), "it asks for a token: set LS_TOKEN_FILE")


def test_a_controller_that_wants_a_certificate_may_say_so_by_breaking_off(
    certificate: tuple[Authority, tuple[Path, Path]], patient: World
) -> None:
    authority, served = certificate
    knocks: list[int] = []
    with standby(knocked=knocks.append, context=serving(served)) as picky:
        patient.images.attributes["LS_CAFILE"] = str(authority.certificate)
        among(patient, picky)
        refused(ask(patient), f"No LINSTOR controller answers ({picky}: ", "LS_CONTROLLERS")
    assert knocks == [1, 2]


@pytest.mark.parametrize(
    ("states", "is_starting"),
    [
        (["OFFLINE"] * 3, True),
        (["OFFLINE", "CONNECTED", "ONLINE"], True),
        (["CONNECTED"], True),
        (["ONLINE"] * 3, False),
        (["ONLINE", "OFFLINE", "OFFLINE"], False),
        (["OFFLINE"], False),
        ([], False),
    ],
)
def test_a_controller_that_has_just_started_is_told_apart_from_a_dead_node(
    states: list[str], is_starting: bool
) -> None:
    assert controllers.are_being_connected(states) is is_starting


def as_just_started(world: World) -> None:
    """All satellites are OFFLINE; each question for the nodes finds them one step further on their way to ONLINE."""
    box = world.sandbox
    steps = iter(("OFFLINE", "CONNECTED", "ONLINE"))

    def proceed() -> None:
        state = next(steps, "ONLINE")
        for node in NODES:
            box.set_connection(node, state)

    proceed()
    for node in box.cluster.nodes:
        node.reported = False
    box.faults.add(Fault("do", re.compile("GET /v1/nodes$"), -1, action=proceed))


@pytest.mark.parametrize("deed", ["attach", "create", "snapshot"])
def test_a_controller_that_has_just_started_gets_time_for_its_satellites(make_world: MakeWorld, deed: str) -> None:
    world = make_world(nodes=NODES, configuration=LONG)
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.poweroff(vm)
    image = volume(world.cloud.images[1])
    other = next(node for node in NODES if node not in homes(world, image))
    as_just_started(world)
    if deed == "attach":
        world.cloud.migrate_cold(vm, other)
        world.cloud.resume(vm)
        assert other in attached(world, image)
    elif deed == "create":
        succeeded(cp(world, world.file("disk", b"disk"), 1), f"{source(7)} raw\n")
        holds(world, "one-image-7", b"disk")
    else:
        world.cloud.snapshot_create(vm, vm.disk(0))
        assert snapshots(world, image) == {"snapshot-0"}


def test_a_node_that_is_dead_is_waited_for_by_nobody(make_world: MakeWorld) -> None:
    world = make_world(nodes=NODES, configuration=NEVER_ENDING)
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.poweroff(vm)
    image = volume(world.cloud.images[1])
    other = next(node for node in NODES if node not in homes(world, image))
    replica = min(nodes_of(world, image))
    world.sandbox.set_node(replica, online=False)
    assert "bring the offline nodes back" in failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    there = add_datastore(world, "there", f'STORAGE_POOL="data" NODE_LIST="{replica}"')
    refused(cp(world, world.file("disk", bytes(MIB)), 1, datastore=there), "LINSTOR finds no place")
    world.sandbox.set_node(replica, online=True)
    world.sandbox.set_node(other, online=False, satellite_only=True)
    assert f"cannot attach {image} on {other}: the node is offline" in failure(
        lambda: world.cloud.migrate_cold(vm, other)
    )
    assert len(requests(world, "GET /v1/nodes$")) == 3


def test_controllers_are_those_of_the_datastore_before_those_of_the_configuration(make_world: MakeWorld) -> None:
    world = make_world(configuration=f'LS_CONTROLLERS="{DEAD}"\nCONNECT_TIMEOUT="1"\n')
    refused(monitor(world), DEAD)
    world.images.attributes["LS_CONTROLLERS"] = world.sandbox.uri
    succeeded(monitor(world), NUMBERS)
