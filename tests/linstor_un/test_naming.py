"""Names: what the driver gives, and how it reads back what OpenNebula stores."""

from __future__ import annotations

import string
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linstor_un.errors import InvalidInput
from linstor_un.naming import (
    ADD_ON,
    BASE_SNAPSHOT,
    BackupSnapshot,
    Names,
    add_ons_disk,
    add_ons_image,
    add_ons_image_id_of,
    backup_snapshot_of,
    drbd_device,
    is_resource_name,
    resource_of,
    resource_of_source,
    restore_snapshot,
    snapshot_vm_id_of,
)

FIRST = string.ascii_letters + "_"
REST = FIRST + string.digits + "-"
NAMES = st.builds(
    lambda first, rest: first + rest, st.sampled_from(FIRST), st.text(st.sampled_from(REST), min_size=1, max_size=47)
).filter(lambda name: any(character.isalpha() for character in name) and name.lower() not in ("all", "proxy"))
IDS = st.integers(0, 10**10 - 1)


@given(NAMES)
def test_a_device_leads_back_to_its_resource(name: str) -> None:
    assert is_resource_name(name)
    assert resource_of(drbd_device(name)) == name
    assert resource_of(name) == name


@given(st.text(max_size=60))
def test_whatever_is_found_in_a_source_is_a_resource_name(source: str) -> None:
    for text in (source, drbd_device(source), f"/dev/vg/{source}_00000"):
        found = resource_of(text)
        assert found is None or (is_resource_name(found) and found in text)


@given(IDS, st.integers(0, 999_999), IDS, st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,9}", fullmatch=True))
def test_every_name_that_we_give_is_one_that_linstor_takes(
    vm_id: int, disk_id: int, image_id: int, prefix: str
) -> None:
    names = Names(prefix)
    own = [names.disk(vm_id, disk_id), names.checkpoint(vm_id)]
    assert all(is_resource_name(name) for name in [*own, names.image(image_id)])
    assert all(names.is_of_vm(name, vm_id) and not names.is_of_vm(name, vm_id + 1) for name in own)
    assert not names.is_of_vm(names.image(vm_id), vm_id)
    assert not Names(f"x{prefix}"[:10] + "y").is_of_vm(own[0], vm_id)


@pytest.mark.parametrize(
    ("source", "resource"),
    [
        ("/dev/drbd/by-res/one-image-16/0", "one-image-16"),
        ("one-image-16", "one-image-16"),
        ("OpenNebula-Image-3", "OpenNebula-Image-3"),
        ("/dev/drbd/by-res/OpenNebula-Image-3-vm7-disk0/0", "OpenNebula-Image-3-vm7-disk0"),
        ("OpenNebula-Volatile-vm7-disk1", "OpenNebula-Volatile-vm7-disk1"),
        ("/dev/vg_data/one-image-16_00000", "one-image-16"),
        ("/dev/zvol/tank/linstor/one-image-16_00000", "one-image-16"),
        ("/dev/mapper/Linstor-Crypt-one-image-16_00000", "one-image-16"),
        ("/dev/loop/one-image-16_00000.img", "one-image-16"),
        ("/dev/drbd/by-res/" + "x" * 48 + "/0", "x" * 48),
    ],
)
def test_sources_of_every_kind_are_understood(source: str, resource: str) -> None:
    assert resource_of(source) == resource


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x",
        "/etc/passwd",
        "/dev/sda",
        "/dev/drbd1000",
        "/dev/drbd/by-res/one-image-16/1",
        "/dev/drbd/by-res/one-image-16",
        "/dev/drbd/by-res/one-image-16/0 ",
        "/dev/drbd/by-res/one-image-16/0\n",
        "/dev/drbd/by-res/../0",
        "/dev/drbd/by-res/one.image/0",
        "/dev/drbd/by-res/" + "x" * 49 + "/0",
        "/dev/drbd/by-res/-oProxyCommand/0",
        "/dev/drbd/by-res/16/0",
        "/dev/drbd/by-res/\u00e9one/0",
        "/dev/vg/one-image-16_00001",
        "/dev/../etc/one-image-16_00000",
        "one-image-16\n",
        "one image",
        "all",
        "PROXY",
        "0one",
        "__",
    ],
)
def test_what_names_no_volume_is_none(source: str) -> None:
    assert resource_of(source) is None


def test_names_are_those_that_users_of_linstor_un_have() -> None:
    names = Names()
    assert names.image(7) == "one-image-7"
    assert names.disk(12, 3) == "one-vm-12-disk-3"
    assert names.checkpoint(12) == "one-vm-12-checkpoint"
    assert names.snapshot(4, "one-image-1") == "snapshot-4"
    assert names.disk_properties(12, 3, 100) == {"Aux/one/VM_ID": "12", "Aux/one/DISK_ID": "3", "Aux/one/DS_ID": "100"}
    assert drbd_device("one-image-7") == "/dev/drbd/by-res/one-image-7/0"


@pytest.mark.parametrize(
    ("resource", "is_own"),
    [
        ("one-vm-1-disk-0", True),
        ("ONE-VM-1-Disk-0", True),
        ("one-vm-1-checkpoint", True),
        ("one-vm-11-disk-0", False),
        ("one-vm-1-disk-0-2", True),
        ("one-vm-1-checkpoint-4", True),
        ("one-vm-1-disk-0-1", False),
        ("one-vm-1-disk-0-22", False),
        ("one-vm-1-disk-0-tmp", False),
        ("one-vm-1-disk-", False),
        ("one-image-1", False),
        ("two-vm-1-disk-0", False),
        ("xone-vm-1-disk-0", False),
    ],
)
def test_only_a_vms_own_names_are_a_vms(resource: str, is_own: bool) -> None:
    assert Names().is_of_vm(resource, 1) is is_own


def test_only_a_vms_own_volumes_have_successors() -> None:
    names = Names()
    assert names.successors("one-vm-1-disk-0") == tuple(f"one-vm-1-disk-0{end}" for end in ("", "-2", "-3", "-4"))
    assert names.successors("ONE-vm-1-Checkpoint")[1:] == tuple(f"ONE-vm-1-Checkpoint-{number}" for number in (2, 3, 4))
    for name in ("one-image-7", "one-image-7-saved", "one-vm-1-disk-0-2", "two-vm-1-disk-0"):
        assert names.successors(name) == (name,)


@pytest.mark.parametrize("first", ["one-vm-1-disk-0", "ONE-vm-12-Checkpoint"])
def test_every_successor_leads_back_to_the_first_name(first: str) -> None:
    names = Names()
    assert {names.first_name(name) for name in names.successors(first)} == {first}
    for name in ("one-image-7", "one-vm-1-disk-0-5", "two-vm-1-disk-0-2"):
        assert names.first_name(name) == name


ADOPTED = ["OpenNebula-Image-7-vm12-disk3", "OpenNebula-Volatile-vm12-disk3", "opennebula-image-7-VM12-disk3"]


@pytest.mark.parametrize("resource", ADOPTED)
def test_an_adopted_disk_is_the_vms_and_has_the_add_ons_names(resource: str) -> None:
    names = Names()
    assert names.first_name(resource) == "one-vm-12-disk-3"
    assert names.is_of_vm(resource, 12) and not names.is_of_vm(resource, 1)
    assert names.vm_id_of(resource) is None, "where it was not adopted it is not ours"
    assert names.snapshot(4, resource) == "OpenNebula-Snap-4"


def test_what_the_add_on_has_made_is_told_by_its_name() -> None:
    names = Names()
    assert add_ons_image(7) == "OpenNebula-Image-7" and add_ons_image_id_of("opennebula-image-7") == 7
    assert add_ons_disk("OpenNebula-Image-7", 12, 3) == ADOPTED[0] and add_ons_disk("", 12, 3) == ADOPTED[1]
    assert names.snapshot(4, "OpenNebula-Image-7") == "OpenNebula-Snap-4"
    assert names.snapshot_id_of("OpenNebula-Snap-4") == names.snapshot_id_of("snapshot-4") == 4
    for name in ("one-image-7", "OpenNebula-Image-7-vm1-disk0", "OpenNebula-Image-x", "xOpenNebula-Image-7"):
        assert add_ons_image_id_of(name) is None
    for name in ("OpenNebula-vm-context-vm1-disk0", "OpenNebula-Image-7-vm1-disk0x", "mine-vm1-disk0"):
        assert names.first_name(name) == name and names.snapshot(1, name) == "snapshot-1"


def test_what_one_version_of_the_driver_leaves_the_next_one_finds() -> None:
    names = Names()
    assert names.image_properties(7) == {"Aux/one/IMAGE_ID": "7"}
    assert (names.registration, names.incomplete) == ("Aux/one/REGTIME", "Aux/one/INCOMPLETE")
    assert names.run == "Aux/one/MADE_BY"
    assert (names.passing("one-image-7"), BASE_SNAPSHOT) == ("one-image-7-saved", "linstor_un-base")
    assert (names.leaving, names.deleted) == ("Aux/one/LEAVING", "Aux/one/DELETED")
    # OpenNebula's name of the add-on, by which its datastores and disks are found.
    assert ADD_ON == "linstor"


def test_the_snapshot_of_a_disk_that_is_saved_names_the_image_and_is_no_longer_than_linstor_takes() -> None:
    assert Names().save_as("one-image-7") == "save-as-one-image-7"
    assert Names().save_as("x" * 48) == "save-as-" + "x" * 40


@pytest.mark.parametrize(
    ("resource", "image_id"),
    [
        ("one-image-7", 7),
        ("ONE-Image-10", 10),
        ("two-image-7", None),
        ("xone-image-7", None),
        ("one-image-", None),
        ("one-image-7-saved", None),
        ("one-vm-7-disk-0", None),
    ],
)
def test_an_image_is_read_from_its_own_name_alone(resource: str, image_id: Optional[int]) -> None:
    assert Names().image_id_of(resource) == image_id


@pytest.mark.parametrize(
    ("name", "snapshot_id"),
    [("snapshot-4", 4), ("Snapshot-0", 0), ("snapshot-", -1), ("snapshot-4x", -1), (BASE_SNAPSHOT, -1)],
)
def test_a_snapshot_that_is_not_opennebulas_has_no_id_of_it(name: str, snapshot_id: int) -> None:
    assert Names().snapshot_id_of(name) == snapshot_id


def test_a_source_without_a_volume_is_shown_in_the_error() -> None:
    assert resource_of_source("/dev/vg/ab_00000") == "ab"
    with pytest.raises(InvalidInput, match="^SOURCE '/etc/passwd' names no LINSTOR volume: it should look like /dev/"):
        resource_of_source("/etc/passwd")


def test_two_opennebulas_share_no_name_and_no_property() -> None:
    def given_by(names: Names) -> set[str]:
        keys = {names.vm_id, names.disk_id, names.datastore_id, names.image_id, names.incomplete, names.registration}
        return keys | {names.image(1), names.disk(1, 1), names.checkpoint(1)}

    assert given_by(Names("one")).isdisjoint(given_by(Names("two")))


def test_whose_a_volume_is_by_its_name() -> None:
    names = Names("one")
    assert [names.vm_id_of(name) for name in ("one-vm-7-disk-0", "ONE-VM-7-checkpoint", "one-vm-7-disk-0-2")] == [7] * 3
    assert [names.vm_id_of(name) for name in ("one-vm-7", "two-vm-7-disk-0", "one-vm-7-disk-0-x")] == [None] * 3
    assert names.passing_image_id_of(names.passing(names.image(5))) == 5
    assert names.passing_image_id_of("One-Image-5-Saved") == 5
    assert names.passing_image_id_of("one-image-5") is None
    assert names.saved_image_id_of(names.save_as(names.image(5))) == 5
    assert names.saved_image_id_of("Save-As-One-Image-5") == 5
    assert names.saved_image_id_of("save-as-two-image-5") is None


def test_whose_backup_or_restore_has_taken_a_snapshot() -> None:
    taken = (BackupSnapshot(7, 3, 1795350118, 64).name, restore_snapshot(7), "Restore-7")
    assert [snapshot_vm_id_of(name) for name in taken] == [7] * 3
    others = ("snapshot-7", "restore-7-1", "restore-", "xrestore-7", "backup-7-3-1795350118", BASE_SNAPSHOT)
    assert [snapshot_vm_id_of(name) for name in others] == [None] * 6


def test_whose_a_volume_is_by_its_properties() -> None:
    names = Names("one")
    for key in (names.vm_id, names.image_id, names.incomplete, names.run):
        assert names.says_whose({"Aux/rack": "1", key: "7"})
    assert not names.says_whose({"Aux/two/IMAGE_ID": "7"})
    assert names.is_foreign({"Aux/two/IMAGE_ID": "7", "Aux/rack": "1"})
    assert not names.is_foreign({"Aux/two/IMAGE_ID": "7", "Aux/one/VM_ID": "7"})
    assert not names.is_foreign({"Aux/rack": "1"})


@pytest.mark.parametrize(
    ("key", "is_ours"),
    [
        ("Aux/one/VM_ID", True),
        ("Aux/one/MADE_BY", True),
        ("Aux/two/VM_ID", False),
        ("Aux/one/rack", False),
        ("Aux/one/VM_ID/x", False),
        ("DrbdOptions/auto-quorum", False),
    ],
)
def test_a_property_that_names_an_owner_in_this_opennebula(key: str, is_ours: bool) -> None:
    assert Names("one").is_owner_key(key) is is_ours


def test_what_backups_make_and_keep_says_whose_it_is() -> None:
    ours = Names("cloud")
    assert ours.backup(7) == "cloud-vm-7-backup" and restore_snapshot(7) == "restore-7"
    assert ours.backup_copy(7, 2) == "cloud-vm-7-disk-2-backup"
    assert ours.older_backup_copy(7, 2) == "cloud-vm-7-disk-2-earlier"
    said = BackupSnapshot(vm_id=7, increment_id=3, taken=1795350118, size_mib=64)
    assert said.name == "backup-7-3-1795350118-64"
    assert backup_snapshot_of(said.name) == backup_snapshot_of(said.name.upper()) == said


@pytest.mark.parametrize(
    ("resource", "vm_id"),
    [
        ("one-vm-7-disk-2-backup", 7),
        ("ONE-VM-7-DISK-2-EARLIER", 7),
        ("one-vm-7-disk-2", None),
        ("one-vm-7-disk-2-backup-2", None),
        ("one-vm-7-backup", None),
        ("two-vm-7-disk-2-backup", None),
    ],
)
def test_a_volume_that_a_backup_reads_names_its_vm_and_goes_with_it(resource: str, vm_id: Optional[int]) -> None:
    names = Names()
    assert names.backup_copy_vm_id_of(resource) == vm_id
    assert names.is_of_vm(resource, 7) == (vm_id == 7 or resource == "one-vm-7-disk-2")
    assert not names.is_of_vm(resource, 8)


@pytest.mark.parametrize(
    "name", ["snapshot-1", "backup-1-2-3", "backup-1-2-3-4-5", "xbackup-1-2-3-4", "backup-1-2-3-x"]
)
def test_no_other_snapshot_is_a_backups(name: str) -> None:
    assert backup_snapshot_of(name) is None
