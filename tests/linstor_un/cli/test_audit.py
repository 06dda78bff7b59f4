"""audit finds what is wrong, and nothing else; mends what it may, and touches nothing else."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Union

import pytest
from click.testing import CliRunner, Result

from linstor_sandbox.faults import Fault
from linstor_sandbox.model import Filter, ResourceGroup
from linstor_sandbox.opennebula import ActionFailed, ImageState, VmState
from linstor_sandbox.seeding import take
from linstor_un import locks
from linstor_un.cli import audit
from linstor_un.cli.auditing import examination
from linstor_un.cluster import placement as placements
from linstor_un.errors import Busy, DriverError, NotFound
from linstor_un.settings import for_datastore, read_configuration
from tests.conftest import CHECKOUT, World
from tests.linstor_un import living
from tests.linstor_un.cli.clouds import MIB, NODES, Estate
from tests.linstor_un.cli.everything import everything, touched
from tests.linstor_un.cli.planted import (
    D0,
    ON_HOSTS,
    ON_LINSTOR,
    Planted,
    attach,
    make,
    narrow,
    not_wrong,
    open_volume,
    props,
)
from tests.linstor_un.living import drivers
from tests.linstor_un.scenes import last


def configuration() -> dict[str, str]:
    return read_configuration(os.environ["LINSTOR_UN_CONF"])


def look(hosts: bool = False) -> examination.Examination:
    return examination.examine(configuration(), hosts)


def state(estate: Union[Estate, World]) -> dict[str, Any]:
    return estate.sandbox.snapshot_of_state()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(audit.command, list(arguments))


def test_nothing_is_said_where_nothing_is_wrong(estate: Estate) -> None:
    result = run()
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize("planted", ON_LINSTOR, ids=lambda planted: planted.title)
def test_each_is_found_and_mended_as_far_as_it_may_be(estate: Estate, planted: Planted) -> None:
    fill(estate)
    healthy = everything(estate)
    planted.plant(estate)
    estate.sandbox.cluster.touch()
    found = look()
    finding = _of(found, planted)
    assert sorted(item.kind for item in found.findings) == sorted([planted.kind, *planted.also])
    before = everything(estate)
    assert run("--repair", "--dry-run").exit_code == audit.FOUND
    assert touched(before, everything(estate)) == set()
    run("--repair")
    volume = planted.subject.partition("/")[0]
    others = {item.resource for item in found.findings if item.repair and item.repair.consent == "safe"}
    mended = everything(estate)
    assert touched(before, mended) <= ({volume} if planted.consent == "safe" else others)
    if planted.consent == "safe":
        assert examination.once(configuration()).findings == ()
    elif planted.consent == "ask":
        assert examination.mend(found.inventory, finding)
        assert not [item for item in examination.once(configuration()).findings if item.key == finding.key]
        assert touched(mended, everything(estate)) <= {volume}
    elif planted.consent == "name":
        assert run("--repair", "--delete", planted.subject).exit_code == 0
        assert touched(healthy, everything(estate)) == set()


def fill(estate: Estate) -> None:
    """Have links and devices on the hosts, and bytes of their own in all volumes."""
    estate.lay_out()
    for item in estate.sandbox.cluster.definitions:
        estate.sandbox.write(item.name, item.name.encode().ljust(4096, b"."))


def test_a_group_that_an_early_version_has_kept_on_a_few_nodes_says_again_what_its_datastore_does(
    estate: Estate,
) -> None:
    wanted = placements.of(for_datastore(configuration(), estate.images.attributes, "it"), "it")
    narrow(estate)
    assert run("--repair", wanted.group).exit_code == audit.FOUND, "nobody has said yes"
    assert "mended" in run("--repair", "--yes", wanted.group).output
    mended = estate.sandbox.cluster.groups[wanted.group]
    assert mended.filter.to_json() == Filter.parse(dict(wanted.select_filter)).to_json()


def test_a_group_may_keep_volumes_on_the_nodes_that_its_datastore_names(estate: Estate) -> None:
    named = {**estate.images.attributes, "NODE_LIST": "node1 node2"}
    wanted = placements.of(for_datastore(configuration(), named, "its datastore"), "its datastore")
    estate.sandbox.cluster.groups[wanted.group] = ResourceGroup(
        wanted.group, "", Filter.parse(dict(wanted.select_filter))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estate.images, "attributes", named)
        assert look().findings == ()


def _of(found: examination.Examination, planted: Planted) -> Any:
    [finding] = [item for item in found.findings if (item.kind, item.subject) == (planted.kind, planted.subject)]
    assert (finding.repair.consent if finding.repair else "") == planted.consent
    assert finding.text
    return finding


@pytest.fixture
def two_hosts(estate: Estate) -> Iterator[Estate]:
    """The estate with its links, and only the VMs of two hosts."""
    for vm in estate.cloud.machines[2:]:
        vm.become(VmState.DONE)
        for name in (f"one-vm-{vm.identifier}-disk-0", f"one-vm-{vm.identifier}-checkpoint"):
            estate.sandbox.cluster.definitions.pop(name)
    estate.cloud.hosts[:] = NODES[:2]
    del estate.cloud.machines[2:]
    estate.lay_out()
    yield estate
    estate.cloud.hosts[:] = NODES


@pytest.mark.parametrize("planted", ON_HOSTS, ids=lambda planted: planted.title)
def test_each_is_found_on_the_hosts(two_hosts: Estate, planted: Planted) -> None:
    healthy = everything(two_hosts)
    planted.plant(two_hosts)
    before = everything(two_hosts)
    found = examination.once(configuration(), with_hosts=True)
    finding = _of(found, planted)
    assert [item.kind for item in found.findings] == [planted.kind]
    assert touched(before, everything(two_hosts)) == set()
    if planted.consent and planted.kind != "no-device":
        assert examination.mend(found.inventory, finding)
        assert examination.once(configuration(), with_hosts=True).findings == ()
        assert touched(healthy, everything(two_hosts)) == set()


def test_a_device_that_is_missing_after_its_repair_is_no_success(two_hosts: Estate) -> None:
    [planted] = [item for item in ON_HOSTS if item.kind == "no-device"]
    planted.plant(two_hosts)
    before = everything(two_hosts)
    result = run("--hosts", "--repair", "--yes")
    assert (result.exit_code, result.output.startswith("failed ")) == (audit.FOUND, True)
    assert f"LINSTOR has {D0} on node1 already" in result.output and "restart linstor-satellite there" in result.output
    assert touched(before, everything(two_hosts)) == set()


def test_hosts_as_they_should_be(two_hosts: Estate) -> None:
    assert run("--hosts").output == ""


def test_what_is_not_ours_and_what_an_action_works_on_is_left_alone(estate: Estate) -> None:
    not_wrong(estate)
    # The second under the next name, as where the first still waited for a node.
    for name in ("one-vm-93-disk-0", "one-vm-93-disk-0-2"):
        estate.volume(name, 0, VM_ID="93")
    attach(estate, "one-image-2")
    estate.sandbox.cluster.touch()
    directory = configuration()["LOCK_DIR"]
    before = state(estate)
    with ExitStack() as held:
        for name in ("one-vm-93-disk-0", "one-vm-94-backup"):
            held.enter_context(locks.volume_lock(directory, name, 1))
        held.enter_context(locks.shared_guest(directory, "one-image-2", "node1", 1))
        assert run("--repair", "--yes").output == ""
    assert state(estate) == before


def test_what_is_there_only_once_was_an_action_under_way(estate: Estate) -> None:
    make("one-image-77", IMAGE_ID="77")(estate)
    asked: list[str] = []

    def end_the_action(exchange: Any) -> None:
        asked.append(exchange.path)
        if asked.count("/v1/resource-groups") == 1:
            estate.sandbox.cluster.definitions.pop("one-image-77")
            estate.sandbox.cluster.touch()

    estate.sandbox.witness = end_the_action
    try:
        assert look().findings == ()
    finally:
        estate.sandbox.witness = None
    assert asked.count("/v1/resource-groups") == 1


def test_what_has_got_a_use_meanwhile_is_not_touched(estate: Estate) -> None:
    attach(estate, D0)
    estate.sandbox.cluster.touch()
    found = look()
    [finding] = found.findings
    vm = estate.cloud.machines[0]
    vm.place(finding.node, estate.cloud.host_id(finding.node), estate.system)
    before = state(estate)
    assert not examination.mend(found.inventory, finding)
    assert state(estate) == before


def test_what_has_become_an_image_meanwhile_is_not_deleted(estate: Estate) -> None:
    make("one-vm-77-disk-0", VM_ID="77")(estate)
    found = look()
    estate.cloud.register_image(estate.images, "/dev/drbd/by-res/one-vm-77-disk-0/0", MIB)
    assert not examination.mend(found.inventory, found.findings[0])
    assert look().findings == ()


def test_one_cluster_under_two_names_is_one(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        estate.system.attributes, "LS_CONTROLLERS", estate.sandbox.uri.replace("127.0.0.1", "localhost")
    )
    assert look().findings == ()
    assert [site.datastore_ids for site in look().inventory.sites] == [{100, 101}]
    identity = estate.sandbox.cluster.props.pop("Cluster/LocalID")
    try:
        assert look().findings == (), "what is wanted by any datastore is nowhere left over"
    finally:
        estate.sandbox.cluster.props["Cluster/LocalID"] = identity


def test_root_repairs_nothing_for_another_user(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Path(configuration()["LOCK_DIR"])
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    os.chown(directory, 1, 1)
    try:
        result = run("--repair")
        assert result.exit_code == 2 and "sudo -u daemon linstor-un audit --repair" in result.output
        assert run("--repair", "--dry-run").exit_code == 0
    finally:
        os.chown(directory, 0, 0)


def test_a_volume_that_an_action_has_taken_meanwhile_is_left_to_it(estate: Estate) -> None:
    take(estate.sandbox, estate.sandbox.definition(D0), "save-as-one-image-88")
    found = look()
    with locks.volume_lock(configuration()["LOCK_DIR"], D0, 1), pytest.raises(Busy):
        examination.mend(found.inventory, found.findings[0])
    assert run("--repair").exit_code == 0
    assert look().findings == ()


def in_a_terminal(*arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """The command, started by somebody at a terminal, and the terminal."""
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "linstor_un.cli", "audit", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "lib"), "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    return process, terminal


def read_until(terminal: int, what: bytes = b"") -> bytes:
    """What the terminal shows until then, or until nothing more comes."""
    shown = b""
    while not what or what not in shown:
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    return shown


def test_somebody_at_a_terminal_is_asked(estate: Estate) -> None:
    for name in ("snapshot-5", "snapshot-6"):
        take(estate.sandbox, estate.sandbox.definition(D0), name)
    process, terminal = in_a_terminal("--repair")
    first = read_until(terminal, b"[y/N]")
    assert b"nobody can reach it through OpenNebula" in first
    os.write(terminal, b"y\n")
    read_until(terminal, b"[y/N]")
    os.write(terminal, b"n\n")
    last = read_until(terminal)
    assert process.wait() == audit.FOUND
    assert b"\x1b[33mleft" in last, "in colour"
    assert [item.subject for item in look().findings] == [f"{D0}/snapshot-6"]
    os.close(terminal)


def test_an_action_that_deletes_the_volume_has_precedence(estate: Estate) -> None:
    for name in ("save-as-one-image-88", "save-as-one-image-89"):
        take(estate.sandbox, estate.sandbox.definition(D0), name)
    stopping = Fault("do", re.compile(f"DELETE .*/{D0}/snapshots/save-as-one-image-88"), action=lambda: stop.pop()())
    estate.sandbox.faults.add(stopping)
    process, terminal = in_a_terminal("--repair")
    stop = [lambda: process.send_signal(signal.SIGTERM)]
    shown = read_until(terminal).decode()
    assert process.wait() == audit.FOUND, shown
    assert "left" in shown and "an action works on it now" in shown
    assert "mended" in shown and "save-as-one-image-89" in shown
    os.close(terminal)


def test_the_last_copy_goes_only_by_its_name(estate: Estate) -> None:
    make("one-vm-77-disk-0", VM_ID="77")(estate)
    make("one-vm-77-disk-1", VM_ID="77")(estate)
    assert run("--delete", "one-vm-77-disk-0").exit_code == 2
    wrong = run("--repair", "--delete", D0)
    assert isinstance(wrong.exception, DriverError) and D0 in str(wrong.exception)
    result = run("--repair", "--yes", "--delete", "one-vm-77-disk-0")
    assert result.exit_code == audit.FOUND
    assert "--delete one-vm-77-disk-1" in result.output
    assert [item.subject for item in look().findings] == ["one-vm-77-disk-1"]


def test_a_volume_that_is_open_is_not_deleted(estate: Estate) -> None:
    make("one-image-78", IMAGE_ID="78", INCOMPLETE="x")(estate)
    open_volume(estate, "one-image-78", "node1")
    [finding] = look().findings
    assert finding.repair is None and "open on node1" in finding.text
    estate.sandbox.openings.drop_host("node1")


def test_the_name_of_nothing_is_no_volume_that_is_in_order(estate: Estate) -> None:
    assert (run(D0).exit_code, run("ONE-IMAGE-0", D0).output) == (0, "")
    wrong = run(D0, "one-vm-00-disk-0")
    assert isinstance(wrong.exception, NotFound) and "one-vm-00-disk-0 is no volume of LINSTOR's" in str(
        wrong.exception
    )


def test_findings_of_one_volume_and_for_programs(estate: Estate) -> None:
    make("one-vm-77-disk-0", VM_ID="77")(estate)
    props(estate, D0, VM_ID="")
    estate.sandbox.cluster.touch()
    result = run("--json", D0)
    assert result.exit_code == audit.FOUND
    [row] = json.loads(result.output)
    assert (row["kind"], row["subject"], row["repair"]) == ("unsaid-owner", D0, "safe")
    assert run("--csv").output.splitlines()[0] == "kind,subject,node,repair,finding"
    rows = json.loads(run("--repair", "--json", D0).output)
    assert [(row["outcome"], row["subject"]) for row in rows] == [("mended", D0)]


def test_an_image_whose_fill_was_killed_is_left_alone_until_then_and_mended_after(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world.cloud.scripts.environment.items():
        monkeypatch.setenv(name, value)
    seen: list[examination.Examination] = []

    def kill() -> None:
        # oned forgets no image while its action runs: it is the mark alone that counts here.
        world.cloud.images[0].become(ImageState.ERROR)
        seen.append(look())
        for process in drivers(world):
            os.kill(process, signal.SIGKILL)

    # The first is for a resource group that is made then.
    spawning = Fault("do", re.compile("POST /v1/resource-groups/.*/spawn"), after_work=True, skip=1, action=kill)
    world.sandbox.faults.add(spawning)
    with pytest.raises(ActionFailed):
        world.cloud.create_image(world.images, world.file("disk.raw", b"disk" * 1024))
    assert [item.findings for item in seen] == [()]
    calls = len(world.cloud.calls)
    world.cloud.delete_image(world.cloud.images[0])
    assert [call.verb for call in world.cloud.calls[calls:] if call.verb == "rm"] == []
    [finding] = look().findings
    assert (finding.kind, finding.subject) == ("half-made", "one-image-0")
    assert run("--repair").exit_code == 0
    assert state(world)["resource_definitions"] == {}


def test_what_the_driver_itself_leaves_is_as_it_should_be(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(nodes=NODES)
    for name, value in world.cloud.scripts.environment.items():
        monkeypatch.setenv(name, value)
    cloud = world.cloud
    vm = living.start(world, living.EVERY_KIND)
    healthy = "after a start"
    kept = cloud.snapshot_create(vm, vm.disk(0), "kept")
    cloud.snapshot_create(vm, vm.disk(1), "persistent")
    cloud.migrate_live(vm, "node4")
    found = {healthy: look(hosts=True).findings}
    cloud.resize_disk(vm, vm.disk(0), 8)
    saved = cloud.disk_saveas(vm, vm.disk(0), "saved")
    cloud.suspend(vm)
    found["suspended"] = look(hosts=True).findings
    cloud.resume(vm)
    cloud.poweroff(vm)
    cloud.snapshot_revert(vm, vm.disk(0), kept)
    cloud.migrate_cold(vm, "node2")
    found["moved"] = look(hosts=True).findings
    cloud.undeploy(vm)
    found["parked"] = look(hosts=True).findings
    cloud.deploy(vm, "node1", world.system)
    cloud.detach(vm, vm.disk(2))
    cloud.instantiate(f"DISK=[IMAGE_ID={saved.identifier}]", "node3", world.system)
    found["at last"] = look(hosts=True).findings
    assert {when: [item.text for item in items] for when, items in found.items() if items} == {}


def test_what_backups_keep_is_as_it_should_be_and_what_a_failed_one_has_left_is_found(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(release="7.2")
    for name, value in world.cloud.scripts.environment.items():
        monkeypatch.setenv(name, value)
    cloud, (datastore, server) = world.cloud, world.install_backups()
    vm = living.start(world)
    for _ in range(2):
        image = cloud.backup(vm, datastore, "INCREMENT")
    assert [item.text for item in look(hosts=True).findings] == []
    # This release does not tell postbackup that the backup has failed.
    server.fail("backup")
    with pytest.raises(ActionFailed):
        cloud.backup(vm, datastore)
    assert {item.kind for item in look().findings} == {"left-snapshot"}
    assert run("--repair").exit_code == 0
    cloud.backup(vm, datastore)
    assert "this increment has all" not in last(world, "prebackup_live").stderr
    cloud.poweroff(vm)
    cloud.restore_in_place(vm, image, 0)
    assert [item.text for item in look(hosts=True).findings] == []


def test_each_finding_is_documented() -> None:
    text = (CHECKOUT / "docs" / "audit.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|.*\|(.*)\|$", text, re.MULTILINE)
    documented = {kind: repair for kinds, repair in rows for kind in re.findall(r"`([\w-]+)`", kinds)}
    planted = {item.kind: item.consent for item in (*ON_LINSTOR, *ON_HOSTS)}
    assert set(documented) == set(planted)
    for item in (*ON_LINSTOR, *ON_HOSTS):
        assert item.consent in documented[item.kind], item.title


def test_a_healthy_cloud_of_a_thousand_machines_costs_few_requests(cloud: Estate) -> None:
    cloud.clear()
    images = [cloud.image() for _ in range(5)]
    for number in range(1000):
        cloud.machine(NODES[number % 4], images[number % 5])
    cloud.sandbox.clear_requests()
    cloud.cloud.rpc.http_requests = 0
    assert examination.examine(configuration()).findings == ()
    # The connection's own, what there is once each, and the resources of each node.
    assert len(cloud.sandbox.requests) <= 7 + len(NODES)
    # The datastores with their attributes, the hosts, a page of images, and pages of VMs that overlap by one.
    assert cloud.cloud.rpc.http_requests <= 4 + 1000 // 199 + 1
