"""adopt takes over what the add-on has made, with its VMs running, and gives it back as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from click.testing import CliRunner, Result

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import ActionFailed, ImageState, LcmState, Release, VmState
from linstor_sandbox.opennebula.backup_server import TEMPLATE as BACKUPS
from linstor_sandbox.opennebula.backup_server import BackupServer
from linstor_sandbox.seeding import take
from linstor_un.cli.checks.datastores import of_attributes
from linstor_un.cli.checks.facts import Configured
from linstor_un.cli.output import DRY_RUN
from linstor_un.cli.verbs import command
from linstor_un.opennebula import survey
from linstor_un.settings import Settings
from tests.conftest import World
from tests.linstor_un.cli.add_on import GROUP, AddOn, add_on
from tests.linstor_un.cli.add_on import MIB as MIB_OF_DISK
from tests.linstor_un.cli.clouds import MIB, Estate
from tests.linstor_un.cli.planted import definition, open_volume, outdated, props
from tests.linstor_un.cli.test_verbs import lines_to_type
from tests.linstor_un.scenes import content, post

D0 = "OpenNebula-Image-0-vm0-disk0"
VOLUMES = {
    "OpenNebula-Image-0": {"IMAGE_ID": "0"},
    "OpenNebula-Image-1": {"IMAGE_ID": "1"},
    "OpenNebula-Image-2": {"IMAGE_ID": "2"},
    "OpenNebula-Image-0-vm0-disk0": {"VM_ID": "0", "DISK_ID": "0", "DS_ID": "101"},
    "OpenNebula-Volatile-vm0-disk3": {"VM_ID": "0", "DISK_ID": "3", "DS_ID": "101"},
}


@pytest.fixture
def front_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AddOn]:
    with add_on(tmp_path) as made:
        for name, value in made.cloud.scripts.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def run(front_end: AddOn, *arguments: str) -> Result:
    words = ["adopt", *arguments]
    if arguments[0] == "datastore":
        words += ["--root", str(front_end.tree.folder)]
    return CliRunner().invoke(command, words)


def done(front_end: AddOn, *arguments: str) -> str:
    result = run(front_end, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def said(front_end: AddOn, name: str) -> dict[str, str]:
    props = front_end.sandbox.definition(name).props
    return {key[len("Aux/one/") :]: value for key, value in props.items() if key.startswith("Aux/one/")}


def test_it_shows_takes_over_once_and_gives_back_what_was(front_end: AddOn) -> None:
    before = front_end.state()
    shown = done(front_end, "datastore", "100", "--dry-run")
    assert front_end.state() == before
    assert shown.splitlines()[-1] == DRY_RUN
    for name in VOLUMES:
        assert name in shown
    assert 'TM_MAD "linstor" -> "linstor_un"' in shown and 'RESOURCE_GROUP="opennebula"' in shown
    assert "tm/linstor" in shown and "without TM_MAD_SYSTEM" in shown
    done(front_end, "datastore", "100", "--yes")
    for name, owner in VOLUMES.items():
        found = said(front_end, name)
        found.pop("REGTIME", None)
        assert found == owner, name
    assert (front_end.images.ds_mad, front_end.images.tm_mad, front_end.system.tm_mad) == ("linstor_un",) * 3
    adopted = front_end.state()
    assert "Nothing is left" in done(front_end, "datastore", "100", "--yes")
    assert front_end.state() == adopted
    audited = CliRunner().invoke(command, ["audit", "--hosts"])
    assert (audited.exit_code, audited.output) == (0, "")
    for store in survey.of_drivers("linstor_un"):
        assert list(of_attributes(Configured(store, Settings()))) == [], "what is left of the add-on is no mistake"
    rows = json.loads(done(front_end, "datastore", "100", "--undo", "--yes", "--json"))
    assert {row["outcome"] for row in rows} == {"done"} and len(rows) == len(VOLUMES) + 3
    assert front_end.state() == before


def test_its_vms_live_on_under_this_driver(front_end: AddOn) -> None:
    oned, sandbox = front_end.cloud, front_end.sandbox
    [vm] = oned.machines
    known = vm.snapshots_of(vm.disk(0))
    known.allow_orphans, earlier = "YES", known.create("earlier", MIB_OF_DISK)
    take(sandbox, sandbox.definition(D0), "OpenNebula-Snap-0")
    done(front_end, "datastore", "100", "--yes")
    assert CliRunner().invoke(command, ["audit"]).output == "", "it knows the add-on's snapshot"
    oned.migrate_live(vm, "node3")
    kept = oned.snapshot_create(vm, vm.disk(0), "kept")
    assert "OpenNebula-Snap-1" in sandbox.definition(D0).snapshots
    oned.resize_disk(vm, vm.disk(0), 16)
    oned.resize_disk(vm, vm.disk(3), 16)
    saved = oned.disk_saveas(vm, vm.disk(1), "saved")
    oned.poweroff(vm)
    oned.snapshot_revert(vm, vm.disk(0), kept)
    oned.snapshot_delete(vm, vm.disk(0), earlier)
    assert "OpenNebula-Snap-0" not in sandbox.definition(D0).snapshots
    oned.migrate_cold(vm, "node2")
    oned.resume(vm)
    oned.suspend(vm)
    oned.resume(vm)
    assert CliRunner().invoke(command, ["audit", "--hosts"]).output == ""
    other = oned.instantiate("DISK=[IMAGE_ID=0] DISK=[TYPE=swap,SIZE=4]", "node4", front_end.system)
    assert sandbox.read("one-vm-1-disk-0", 0, 18) == b"OpenNebula-Image-0"
    assert sandbox.read("one-image-3", 0, 18) == b"OpenNebula-Image-1"
    for machine in (vm, other):
        oned.terminate(machine)
    for image in list(oned.images):
        oned.delete_image(image)
    assert saved not in oned.images
    assert sandbox.snapshot_of_state()["resource_definitions"] == {}


def test_an_adopted_vm_is_backed_up_and_restored(front_end: AddOn, tmp_path: Path) -> None:
    oned, sandbox = front_end.cloud, front_end.sandbox
    [vm] = oned.machines
    BackupServer(front_end.tree.remotes, tmp_path / "backups")
    backups = oned.create_datastore(BACKUPS)
    done(front_end, "datastore", "100", "--yes")
    image = oned.backup(vm, backups, mode="INCREMENT")
    assert oned.backup(vm, backups, mode="INCREMENT") is image
    assert [increment.type for increment in image.increments] == ["FULL", "INCREMENT"]
    assert CliRunner().invoke(command, ["audit", "--hosts"]).output == ""
    [restored] = oned.restore_to_new_images(image, front_end.images, disk=0)
    assert sandbox.read(f"one-image-{restored.identifier}", 0, 4096) == sandbox.read(D0, 0, 4096)


def test_an_adopted_vm_that_is_made_anew_gets_volumes_of_this_drivers_names(front_end: AddOn) -> None:
    oned = front_end.cloud
    [vm] = oned.machines
    done(front_end, "datastore", "100", "--yes")
    oned.recover_recreate(vm)
    oned.deploy(vm, "node2", front_end.system)
    names = set(front_end.sandbox.snapshot_of_state()["resource_definitions"])
    assert {"one-vm-0-disk-0", "one-vm-0-disk-3"} <= names
    assert not {"OpenNebula-Image-0-vm0-disk0", "OpenNebula-Volatile-vm0-disk3"} & names
    result = run(front_end, "datastore", "100", "--undo", "--yes")
    assert result.exit_code == 3 and "one-vm-0-disk-0" in result.output


def test_an_adopted_disk_costs_no_request_more_than_one_of_this_driver(front_end: AddOn) -> None:
    oned = front_end.cloud
    [adopted] = oned.machines
    done(front_end, "datastore", "100", "--yes")
    own = oned.instantiate("DISK=[IMAGE_ID=0]", "node1", front_end.system)
    oned.scripts.meters["rest"] = lambda: len(front_end.sandbox.requests)
    costs: list[dict[str, int]] = []
    for vm in (adopted, own):
        since = len(oned.calls)
        oned.resize_disk(vm, vm.disk(0), 16)
        oned.snapshot_create(vm, vm.disk(0), "kept")
        oned.poweroff(vm)
        oned.recover_delete(vm)
        lines = [call for call in oned.calls[since:] if call.verb != "delete" or "disk.0" in call.argv[0]]
        costs.append({call.verb: call.counts["rest"] for call in lines})
    assert costs[0] == costs[1]
    assert {"resize", "snap_create_live", "delete"} <= set(costs[0])


def prop(name: str, key: str, value: str) -> Callable[[AddOn], object]:
    return lambda front_end: front_end.sandbox.definition(name).props.update({key: value})


def become(state: VmState, lcm: LcmState) -> Callable[[AddOn], object]:
    return lambda front_end: front_end.cloud.machines[0].become(state, lcm)


def without_group(front_end: AddOn) -> None:
    del front_end.images.attributes["LINSTOR_RESOURCE_GROUP"]


def elsewhere(front_end: AddOn) -> None:
    """The VM lies in a system datastore of ssh, as the add-on lets it."""
    front_end.cloud.tm_mad_confs["ssh"] = {"NAME": "ssh", "SHARED": "NO"}
    other = front_end.cloud.create_datastore('NAME="local" TYPE="SYSTEM_DS" TM_MAD="ssh"')
    front_end.cloud.machines[0].place("node1", 0, other)


def locked(front_end: AddOn) -> None:
    front_end.cloud.images[0].become(ImageState.LOCKED)


def qcow2(front_end: AddOn) -> None:
    front_end.cloud.images[0].format = "qcow2"


def lost(front_end: AddOn) -> None:
    front_end.sandbox.cluster.definitions.pop("OpenNebula-Volatile-vm0-disk3")


def unknown_driver(front_end: AddOn) -> None:
    front_end.cloud.configuration = ""


def another(front_end: AddOn) -> None:
    front_end.cloud.create_datastore(
        'NAME="more" TYPE="IMAGE_DS" DS_MAD="linstor" TM_MAD="linstor" LINSTOR_RESOURCE_GROUP="opennebula"'
    )


def uninstalled(front_end: AddOn) -> None:
    shutil.rmtree(front_end.tree.remotes / "tm/linstor_un")


IN_THE_WAY = [
    (without_group, 1, "LINSTOR_RESOURCE_GROUP is missing from datastore 100 (lb-images)"),
    (another, 1, "datastore 102 (more) of the add-on must go with it"),
    (uninstalled, 1, "run `linstor-un install` first"),
    (become(VmState.ACTIVE, LcmState.HOTPLUG), 3, "An action works on VM 0"),
    (become(VmState.ACTIVE, LcmState.PROLOG_FAILURE), 3, "An action works on VM 0 (vm-0), or has failed"),
    (
        elsewhere,
        3,
        "system datastore 102 of another driver, in which VMs are not adopted: `onevm undeploy` it, and `onevm",
    ),
    (locked, 3, "An action works on image 0"),
    (qcow2, 3, "image 0 (image-0) has FORMAT qcow2"),
    (lost, 3, "LINSTOR has no volume one-vm-0-disk-3 of disk 3"),
    (prop(D0, "Aux/one/VM_ID", "7"), 3, f"{D0} of disk 0 of VM 0 (vm-0) says that it belongs to something else"),
    (prop("OpenNebula-Image-1", "Aux/two/IMAGE_ID", "1"), 3, "OpenNebula-Image-1 of image 1 (image-1) says"),
    (unknown_driver, 3, "oned does not know this driver"),
]


@pytest.mark.parametrize(("plant", "status", "says"), IN_THE_WAY, ids=[says for *_, says in IN_THE_WAY])
def test_what_is_in_the_way_is_named_and_nothing_changes(
    front_end: AddOn, plant: Callable[[AddOn], object], status: int, says: str
) -> None:
    plant(front_end)
    before = front_end.state()
    result = run(front_end, "datastore", "100", "--yes")
    assert result.exit_code == status and says in result.output, result.output
    assert front_end.state() == before


def test_a_datastore_that_never_was_the_add_ons_is_refused(front_end: AddOn) -> None:
    before = front_end.state()
    result = run(front_end, "datastore", "100", "999", "--yes")
    assert result.exit_code == 1 and "Datastore 999 is not one of LINBIT's add-on" in result.output
    assert run(front_end, "datastore", "100").exit_code == 2, "nobody is there to ask"
    assert front_end.state() == before


def new_disk(front_end: AddOn) -> None:
    front_end.cloud.attach(front_end.cloud.machines[0], "DISK=[TYPE=fs,FORMAT=raw,SIZE=8]")


def new_image(front_end: AddOn) -> None:
    front_end.cloud.create_datablock(front_end.images, 8)


def suspended(front_end: AddOn) -> None:
    front_end.cloud.suspend(front_end.cloud.machines[0])


def spoilt(front_end: AddOn) -> None:
    front_end.images.attributes["LINSTOR_UN_ADOPTED"] = "x"


@pytest.mark.parametrize(
    ("plant", "status", "says"),
    [
        (become(VmState.ACTIVE, LcmState.MIGRATE), 3, "An action works on VM 0"),
        (new_disk, 3, "VM 0 (vm-0) has got disk 4 since"),
        (new_image, 3, "image 3 (image-3) was made since"),
        (suspended, 3, "one-vm-0-checkpoint keeps the memory of VM 0"),
        (spoilt, 1, "LINSTOR_UN_ADOPTED of datastore 100 (lb-images) is not what"),
    ],
)
def test_what_was_made_since_is_named_and_nothing_is_given_back(
    front_end: AddOn, plant: Callable[[AddOn], object], status: int, says: str
) -> None:
    done(front_end, "datastore", "100", "--yes")
    plant(front_end)
    before = front_end.state()
    result = run(front_end, "datastore", "100", "--undo", "--yes")
    assert result.exit_code == status and says in result.output, result.output
    assert front_end.state() == before


def test_what_was_cut_off_is_gone_on_with_and_can_be_given_back(front_end: AddOn) -> None:
    before = front_end.state()
    conf = front_end.cloud.tm_mad_confs.pop("linstor_un")
    failed = run(front_end, "datastore", "100", "--yes")
    assert failed.exit_code == 1 and 'TM_MAD named "linstor_un" is not defined' in failed.output
    assert said(front_end, D0)["VM_ID"] == "0" and front_end.system.tm_mad == "linstor"
    front_end.cloud.tm_mad_confs["linstor_un"] = conf
    shown = done(front_end, "datastore", "100", "--dry-run")
    assert D0 not in shown and "lb-system" in shown
    done(front_end, "datastore", "100", "--yes")
    assert "Nothing is left" in done(front_end, "datastore", "100", "--yes")
    done(front_end, "datastore", "100", "--undo", "--yes")
    assert front_end.state() == before


def test_clones_made_meanwhile_leave_no_snapshot_when_it_is_given_back(front_end: AddOn) -> None:
    before = front_end.state()
    done(front_end, "datastore", "100", "--yes")
    front_end.system.attributes["CLONE_MODE"] = "snapshot"
    vm = front_end.cloud.instantiate("DISK=[IMAGE_ID=0]", "node2", front_end.system)
    assert "linstor_un-base" in front_end.sandbox.definition("OpenNebula-Image-0").snapshots
    front_end.cloud.terminate(vm)
    assert "without snapshot linstor_un-base" in done(front_end, "datastore", "100", "--undo", "--dry-run")
    done(front_end, "datastore", "100", "--undo", "--yes")
    stores, cluster, files = front_end.state()
    assert (stores, files) == (before[0], before[2])
    assert cluster["resource_definitions"] == before[1]["resource_definitions"]


def test_a_package_of_the_add_on_that_comes_again_is_kept_again(front_end: AddOn) -> None:
    done(front_end, "datastore", "100", "--yes")
    script = front_end.tree.remotes / "tm/linstor/mv"
    script.write_text("#!/bin/sh\n# newer\n")
    rows = json.loads(done(front_end, "datastore", "100", "--yes", "--json"))
    assert [row["kind"] for row in rows if row["outcome"] == "done"] == ["scripts"]
    assert script.read_bytes() == (front_end.tree.remotes / "tm/linstor_un/mv").read_bytes()
    done(front_end, "datastore", "100", "--undo", "--yes")
    assert script.read_text() == "#!/bin/sh\n# newer\n"


def test_after_an_upgrade_of_this_driver_the_add_ons_scripts_are_kept_still(front_end: AddOn) -> None:
    before = front_end.state()
    own = front_end.tree.remotes / "tm/linstor_un"
    done(front_end, "datastore", "100", "--yes")
    for script in (own / "mv", own / "ln"):
        script.write_text(f"{script.read_text()}# newer\n")
        done(front_end, "datastore", "100", "--yes")
        assert (front_end.tree.remotes / "tm/linstor" / script.name).read_bytes() == script.read_bytes()
    for script in (own / "mv", own / "ln"):
        script.write_text(script.read_text().removesuffix("# newer\n"))
    done(front_end, "datastore", "100", "--undo", "--yes")
    assert front_end.state() == before


def test_disks_of_the_add_on_that_were_not_adopted_stay_the_add_ons(front_end: AddOn) -> None:
    ours = front_end.cloud.create_datastore(
        'NAME="ours" TYPE="SYSTEM_DS" RESOURCE_GROUP="opennebula" REPLICA_COUNT="2" TM_MAD="linstor_un"'
    )
    assert CliRunner().invoke(command, ["audit"]).output == ""
    [vm] = front_end.cloud.machines
    vm.place("node1", 0, ours)
    with pytest.raises(ActionFailed, match="the add-on has no cluster here"):
        front_end.cloud.migrate_live(vm, "node3")


def test_what_the_readme_types_works(front_end: AddOn) -> None:
    volumes = {"resource_definition_name": "backup-of-db", "volume_sizes": [8192]}
    front_end.post(f"resource-groups/{GROUP}/spawn", volumes)
    # What asks is answered below.
    datastore, image = [line.split()[2:] for line in lines_to_type("adopt") if "--dry-run" in line]
    done(front_end, *datastore)
    done(front_end, "datastore", "100", "--yes")
    done(front_end, *image)


def adopt_image(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["adopt", "image", *arguments])


def test_a_volume_becomes_an_image_without_a_byte_copied_and_outlives_it(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    for name, value in world.cloud.scripts.environment.items():
        monkeypatch.setenv(name, value)
    post(world, "/v1/resource-groups/DfltRscGrp/spawn", {"resource_definition_name": "backup", "volume_sizes": [4096]})
    world.sandbox.write("backup", content(5))
    before = world.sandbox.snapshot_of_state()
    line = ("backup", "--datastore", "101", "--name", "db")
    assert adopt_image(*line, "--dry-run").exit_code == 0
    assert adopt_image(*line).exit_code == 2, "nobody is there to ask"
    assert (world.cloud.images, world.sandbox.snapshot_of_state()) == ([], before)
    [row] = json.loads(adopt_image(*line, "--yes", "--json").output)
    assert row == {"image": 0, "name": "db", "volume": "backup", "size_mib": 4, "outcome": "done"}
    [image] = world.cloud.images
    assert (image.source, image.format, image.size, image.persistent) == (
        *("/dev/drbd/by-res/backup/0", "raw", 4, False),
    )
    [again] = json.loads(adopt_image(*line, "--yes", "--json").output)
    assert again["outcome"] == "left" and len(world.cloud.images) == 1
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    assert world.sandbox.read("one-vm-0-disk-0", 0, 4 << 20) == content(5)
    assert CliRunner().invoke(command, ["audit", "--hosts"]).output == ""
    world.cloud.terminate(vm)
    world.cloud.delete_image(image)
    assert world.sandbox.read("backup", 0, 4 << 20) == content(5)
    assert adopt_image(*line, "--persistent", "--type", "DATABLOCK", "--yes").exit_code == 0
    [image] = world.cloud.images
    assert (image.persistent, image.type) == (True, "DATABLOCK")
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node2", world.system)
    world.cloud.terminate(vm)


def second_volume(estate: Estate) -> None:
    known = definition(estate, "mine")
    known.volumes[1] = known.volumes[0]


def deleted(estate: Estate) -> None:
    definition(estate, "mine").flags.add("DELETE")


def opened(estate: Estate) -> None:
    open_volume(estate, "mine", definition(estate, "mine").diskful()[0].node.name)


def offline(estate: Estate) -> None:
    estate.sandbox.set_node(definition(estate, "mine").diskful()[0].node.name, online=False)


def nothing(_: Estate) -> None:
    """The estate as it is."""


@pytest.mark.parametrize(
    ("plant", "arguments", "says"),
    [
        (nothing, ("nowhere",), "LINSTOR has no resource 'nowhere'"),
        (nothing, ("../mine",), "LINSTOR has no resource '../mine'"),
        (nothing, ("mine", "--datastore", "100"), "Datastore 100 is no image datastore"),
        (nothing, ("mine", "--datastore", "7"), "Datastore 7 is no image datastore"),
        (nothing, ("one-image-1",), "one-image-1 is image 1 (image-1) already"),
        (nothing, ("one-vm-0-disk-0",), "is the disk of a VM"),
        (lambda estate: estate.volume("one-image-99", 0), ("one-image-99",), "has a name that drivers give"),
        (lambda estate: estate.volume("OpenNebula-Image-9", 0), ("OpenNebula-Image-9",), "that drivers give"),
        (lambda estate: estate.volume("one-vm-9-disk-0-2", 0), ("one-vm-9-disk-0-2",), "that drivers give"),
        (lambda estate: estate.volume("one-vm-9-disk-0-backup", 0), ("one-vm-9-disk-0-backup",), "that drivers give"),
        (
            lambda estate: definition(estate, "mine").props.update({"Aux/two/IMAGE_ID": "3"}),
            ("mine",),
            "belongs to another OpenNebula",
        ),
        (lambda estate: props(estate, "mine", IMAGE_ID="1"), ("mine",), "says that it belongs to something else"),
        (lambda estate: props(estate, "mine", VM_ID="1"), ("mine",), "says that it belongs to something else"),
        (lambda estate: props(estate, "mine", INCOMPLETE="x"), ("mine",), "says that it belongs to something else"),
        (second_volume, ("mine",), "mine has 2 volumes, and an image is one"),
        (deleted, ("mine",), "mine is being deleted"),
        (opened, ("mine",), "mine is open on node"),
        (offline, ("mine",), "cannot be seen: bring the node back"),
        (lambda estate: outdated(estate, "mine", 2), ("mine",), "no replica that is up to date"),
        (nothing, ("mine", "--name", "image-0"), "NAME is already taken by IMAGE 0"),
    ],
)
def test_what_cannot_be_an_image_is_refused(
    estate: Estate, plant: Callable[[Estate], object], arguments: tuple[str, ...], says: str
) -> None:
    estate.volume("mine", 0)
    plant(estate)
    estate.sandbox.cluster.touch()
    before = len(estate.cloud.images), estate.sandbox.snapshot_of_state()
    line = (*arguments, *(() if "--datastore" in arguments else ("--datastore", "101")))
    result = adopt_image(*line, *(() if "--name" in arguments else ("--name", "new")), "--yes")
    assert result.exit_code == 1 and says in result.output, result.output
    assert (len(estate.cloud.images), estate.sandbox.snapshot_of_state()) == before


def test_what_names_an_image_that_is_gone_may_be_adopted(estate: Estate) -> None:
    estate.volume("mine", 0, IMAGE_ID="77")
    estate.sandbox.cluster.touch()
    assert adopt_image("mine", "--datastore", "101", "--name", "new", "--yes").exit_code == 0
    image = estate.cloud.images[-1]
    assert (image.source, image.size) == ("/dev/drbd/by-res/mine/0", MIB)
    assert definition(estate, "mine").props["Aux/one/IMAGE_ID"] == str(image.identifier)


@pytest.mark.parametrize(("provider", "status"), [("LVM_THIN", 0), ("ZFS_THIN", 1)])
def test_an_image_has_all_of_the_volume_and_no_more(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, provider: str, status: int
) -> None:
    """A device of LVM is larger than the volume, by as much as an extent; one of ZFS hardly is."""
    world = make_world(pools=(Pool("data", provider, 20480),))
    for name, value in world.cloud.scripts.environment.items():
        monkeypatch.setenv(name, value)
    post(world, "/v1/resource-groups/DfltRscGrp/spawn", {"resource_definition_name": "odd", "volume_sizes": [4100]})
    result = adopt_image("odd", "--datastore", "101", "--name", "odd", "--yes")
    assert result.exit_code == status, result.output
    if status:
        assert "grow it with `linstor volume-definition set-size odd 0 5MiB`" in result.output
    else:
        assert world.cloud.images[0].size == 5


@pytest.mark.parametrize(("release", "kind"), [("6.4.0", "FILE"), ("6.4.1", "BLOCK")])
def test_a_datastore_for_vms_is_taken_over_as_the_release_takes_it(front_end: AddOn, release: str, kind: str) -> None:
    front_end.cloud.release = Release.parse(release)
    done(front_end, "datastore", str(front_end.images.identifier), "--yes")
    assert (front_end.system.disk_type, front_end.images.disk_type) == (kind, "BLOCK")
