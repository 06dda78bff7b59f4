"""tm/prebackup_live: files of all disks as they were at one instant, and increments that are never silently wrong."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import ActionFailed
from linstor_sandbox.opennebula.backup_server import TEMPLATE as BACKUPS
from linstor_un.hosts import changes
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.backing_up import Site, is_qcow2, passing, toggle
from tests.linstor_un.hosts.hosts_in_a_box import host, replace_tool
from tests.linstor_un.living import EVERY_KIND, guest, held_for_one_request, holds, snapshots, start
from tests.linstor_un.scenes import MIB, add_image, attached, last, link, own, post, replicas, requests, volume, volumes

MakeWorld = Callable[..., World]
KIB64 = 64 * 1024


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def kept(site: Site, resource: str) -> list[str]:
    return sorted(name for name in snapshots(site.world, resource) if name.startswith("backup-"))


def spied(site: Site, node: str, name: str, told: str, first: str = ":") -> Path:
    """The file in which a tool of a host says from now on what it is told to."""
    tool = site.world.sandbox.host(node) / "bin" / name
    said = tool.with_name(f"{name}.said")
    own_tool = tool.rename(tool.with_name(f".{name}"))
    replace_tool(site.world.sandbox, node, name, f'{first}\n({told}) >>{said}\nexec {own_tool} "$@"')
    return said


# --- full -------------------------------------------------------------------------------------------------------------


def test_a_full_backup_has_every_disk_and_leaves_nothing_else(site: Site) -> None:
    vm = start(site.world, EVERY_KIND)
    for disk_id in (0, 1, 3):
        site.write(vm, disk_id, b"disk %d" % disk_id, disk_id * MIB)
    before = volumes(site.world)
    content = {disk_id: site.content(vm, disk_id) for disk_id in (0, 1, 3)}
    image = site.cloud.backup(vm, site.datastore, "FULL", backup_volatile=True)
    assert image.backup_disk_ids == [0, 1, 3]
    for disk_id, data in content.items():
        assert is_qcow2(site.stored(vm, image, disk_id))
        assert site.brought_back(image, disk_id) == data
    document = base64.b64decode((site.stored(vm, image, 0).parent / "vm.xml").read_bytes())
    assert document.startswith(b"<VM>") and b"<BACKUP_CONFIG>" in document
    assert volumes(site.world) == before and not site.staged(vm).exists()
    assert not kept(site, own(vm)) and not kept(site, volume(site.world.cloud.images[1]))


def test_what_is_written_after_the_snapshot_is_in_no_file(site: Site) -> None:
    vm = start(site.world)
    site.write(vm, 0, b"before")
    content, before = site.content(vm, 0), len(site.world.sandbox.requests)
    with ThreadPoolExecutor(1) as pool:
        backup = pool.submit(site.cloud.backup, vm, site.datastore, "FULL")
        while not requests(site.world, r"POST .*snapshot-restore", before):
            pass
        site.write(vm, 0, b"behind")
        image = backup.result()
    assert site.brought_back(image, 0) == content


def test_holes_stay_holes(make_world: MakeWorld) -> None:
    site = Site(make_world())
    add_image(site.world, mib=64)
    vm = site.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", site.world.system)
    site.write(vm, 0, b"data" * 1024, 40 * MIB)
    image = site.cloud.backup(vm, site.datastore, "FULL")
    assert site.stored(vm, image, 0).stat().st_size < 8 * MIB


@pytest.mark.parametrize(
    ("freeze", "held"),
    [("NONE", []), ("AGENT", ["freeze"]), ("SUSPEND", ["suspend"])],
    ids=["none", "agent", "suspend"],
)
def test_the_vm_is_held_for_the_one_request_that_takes_all_snapshots(site: Site, freeze: str, held: list[str]) -> None:
    vm = start(site.world)
    site.cloud.backup(vm, site.datastore, "FULL", fs_freeze=freeze)
    assert [begin.what for begin, _ in holds(site.world)] == held
    assert held_for_one_request(site.world)
    assert len(requests(site.world, r"POST /v1/actions/snapshot/multi")) == 1
    assert not requests(site.world, r"POST .*/one-[^/]*/snapshots ")


@pytest.mark.parametrize("agent", ["off", "hung"])
def test_a_guest_whose_agent_does_not_answer_runs_on(make_world: MakeWorld, agent: str) -> None:
    site = Site(make_world(configuration='FREEZE_TIMEOUT="1"\n'))
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    guest(site.world, vm).agent, guest(site.world, vm).agent_seconds = agent, 2.0
    site.cloud.backup(vm, site.datastore, "FULL", fs_freeze="AGENT")
    assert "as of a crash" in last(site.world, "prebackup_live").stderr
    site.write(vm, 0, b"it runs")


def test_a_guest_whose_agent_hangs_delays_a_backup_by_its_bound_and_no_more(make_world: MakeWorld) -> None:
    site = Site(make_world(configuration='FREEZE_TIMEOUT="2"\nHOLD_TIMEOUT="4"\n'))
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    agent = guest(site.world, vm)
    said = spied(site, vm.host, "virsh", 'echo "$3"')
    seconds = []
    # An agent that hangs is asked to freeze, and when all is over to thaw what it has frozen late: 2 and 4 s.
    for agent.agent, agent.agent_seconds in (("off", 0.0), ("hung", 3600.0)):
        site.cloud.backup(vm, site.datastore, "FULL", fs_freeze="AGENT")
        seconds.append(last(site.world, "prebackup_live").seconds)
    assert seconds[1] < 5 * seconds[0] + 2 + 4
    # One that is not there says so at once, and may have been left frozen.
    assert said.read_text().split() == ["domfsfreeze", "domfsthaw", "domfsfreeze", "domfsthaw"]
    assert holds(site.world) == []


@pytest.mark.parametrize("help", ["convert [-S sparse_size] [-r rate_limit] [-W]", "  -r, --rate-limit RATE", "[-W]"])
def test_it_works_no_harder_than_the_backup_datastore_allows(site: Site, help: str) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.datastore.attributes.update(RSYNC_NICE="7", RSYNC_IONICE="5", RSYNC_BWLIMIT="4096")
    said = spied(
        site, vm.host, "qemu-img", "nice; ionice; echo $*", f'[ "$2" != --help ] || {{ echo "{help}"; exit; }}'
    )
    site.cloud.backup(vm, site.datastore)
    nice, io_nice, convert = said.read_text().splitlines()[:3]
    assert (nice, io_nice) == ("7", "best-effort: prio 5")
    assert ("-r 4194304" in convert) == ("rate" in help)


@pytest.mark.parametrize(
    ("configuration", "tool"),
    [("", "qemu-io"), ('BACKUP_COMPARE="yes"\n', "qemu-img")],
    ids=["told", "compared"],
)
def test_increments_work_no_harder_either(make_world: MakeWorld, configuration: str, tool: str) -> None:
    site = Site(make_world(configuration=configuration), "restic")
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.datastore.attributes.update(RESTIC_NICE="7", RESTIC_IONICE="5")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    for node in site.world.cloud.hosts if configuration else ():
        site.world.sandbox.refuse_sudo(node, "ALL")
    said = spied(site, vm.host, tool, "nice; ionice")
    image = site.cloud.backup(vm, site.datastore)
    assert len(image.increments) == 2 and set(said.read_text().splitlines()) == {"7", "best-effort: prio 5"}


def test_a_host_without_a_replica_reads_over_the_network(site: Site) -> None:
    add_image(site.world)
    image = site.world.cloud.images[0]
    away = next(node for node in site.world.cloud.hosts if node not in replicas(site.world, volume(image)))
    vm = site.cloud.instantiate("DISK=[IMAGE_ID=0]", away, site.world.system)
    site.write(vm, 0, b"away")
    content = site.content(vm, 0)
    backup = site.cloud.backup(vm, site.datastore, "FULL")
    assert site.brought_back(backup, 0) == content
    assert passing(site.world) == set() and attached(site.world, own(vm)) == {away} - replicas(site.world, own(vm))


def test_the_files_are_made_on_the_bridge_of_the_backup_datastore(site: Site) -> None:
    datastore = site.cloud.create_datastore(f'{BACKUPS} BRIDGE_LIST="node3"'.replace('"backups"', '"bridged"'))
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.write(vm, 0, b"bridged")
    image = site.cloud.backup(vm, datastore, "INCREMENT")
    assert vm.host != "node3" and site.brought_back(image, 0) == site.content(vm, 0)
    site.write(vm, 0, b"again")
    image = site.cloud.backup(vm, datastore)
    assert site.brought_back(image, 0) == site.content(vm, 0) and not site.staged(vm, "node3").exists()


@pytest.mark.parametrize("driver", ["rsync", "restic"])
def test_the_files_are_made_where_the_administrator_wants_all_of_them(world: World, driver: str) -> None:
    site = Site(world, driver)
    vm = start(world)
    settings = world.install_remotes() / "etc" / "datastore" / "datastore.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("# BACKUP_BASE_PATH=/nowhere\nBACKUP_BASE_PATH=backups\n")
    with pytest.raises(ActionFailed, match='BACKUP_BASE_PATH="backups" of .* is not valid'):
        site.cloud.backup(vm, site.datastore, "INCREMENT")
    settings.write_text('# BACKUP_BASE_PATH=/nowhere\nexport BACKUP_BASE_PATH="/var/tmp/backups/"\n')
    for number in range(2):
        site.write(vm, 0, b"%d" % number, number * MIB)
        image = site.cloud.backup(vm, site.datastore, "INCREMENT")
    below = world.sandbox.host(vm.host) / "var/tmp/backups" / str(vm.identifier)
    assert below.is_dir() and not (below / "backup").exists() and not site.staged(vm).exists()
    assert site.brought_back(image, 0) == site.content(vm, 0)


def test_a_pool_without_snapshots_is_a_sentence_and_nothing_is_left(make_world: MakeWorld) -> None:
    site = Site(make_world(pools=(Pool("data", "LVM", 20480),)))
    vm = start(site.world)
    before = volumes(site.world)
    with pytest.raises(ActionFailed, match="backups need pools that can take snapshots"):
        site.cloud.backup(vm, site.datastore, "FULL")
    assert volumes(site.world) == before and not site.staged(vm).exists()
    site.write(vm, 0, b"it runs")


def test_replicas_that_may_differ_are_no_backup(site: Site) -> None:
    vm = start(site.world)
    image = volume(site.world.cloud.images[1])
    holder = min(replicas(site.world, image))
    site.world.sandbox.stand_alone(image, holder)
    before = volumes(site.world)
    with pytest.raises(ActionFailed, match=f"The replicas of {image} may differ"):
        site.cloud.backup(vm, site.datastore)
    assert volumes(site.world) == before and kept(site, own(vm)) == kept(site, image) == []
    site.world.sandbox.stand_alone(image, holder, alone=False)
    site.cloud.backup(vm, site.datastore)


@pytest.mark.parametrize(
    ("release", "mode", "is_compared"),
    [("6.6", "FULL", False), ("7.4", "FULL", False), ("7.4", "INCREMENT", False), ("7.4", "INCREMENT", True)],
    ids=["full, as of 6.6", "full", "increment", "compared"],
)
def test_a_full_file_system_is_a_sentence_and_nothing_is_left(
    make_world: MakeWorld, release: str, mode: str, is_compared: bool
) -> None:
    # The first does not call postbackup then.
    site = Site(make_world(release=release, configuration='BACKUP_COMPARE="yes"\n' if is_compared else ""))
    vm = start(site.world)
    if mode == "INCREMENT":
        site.cloud.backup(vm, site.datastore, mode)
    for node in site.world.cloud.hosts if is_compared else ():
        site.world.sandbox.refuse_sudo(node, "ALL")
    before = volumes(site.world), kept(site, own(vm)), kept(site, volume(site.world.cloud.images[1]))
    site.write(vm, 0, bytes(range(1, 251)) * 8000)
    site.world.sandbox.fill_directory(vm.host, str(vm.directory), MIB)
    with pytest.raises(ActionFailed, match="No space left|cannot be written|failed"):
        site.cloud.backup(vm, site.datastore, mode, fs_freeze="AGENT")
    assert (volumes(site.world), kept(site, own(vm)), kept(site, volume(site.world.cloud.images[1]))) == before
    assert not site.staged(vm).exists()
    site.write(vm, 0, b"it runs")


# --- increments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["LVM_THIN", "ZFS", "ZFS_THIN"])
def test_increments_have_what_has_changed_and_zeroes_too(make_world: MakeWorld, provider: str) -> None:
    site = Site(make_world(pools=(Pool("data", provider, 20480),)))
    vm = start(site.world)
    moments = []
    for number in range(4):
        site.write(vm, 0, bytes([number + 1]) * 5000, number * 300_000)
        if number == 2:
            site.write(vm, 0, bytes(KIB64), 0)
        if number == 3:
            site.discard(vm, 0, 4 * KIB64, 4 * KIB64)
        moments.append([site.content(vm, disk_id) for disk_id in (0, 1)])
        image = site.cloud.backup(vm, site.datastore, "INCREMENT", keep_last=0)
        assert is_qcow2(site.stored(vm, image, 0))
        if number:
            assert site.stored(vm, image, 0).stat().st_size < 16 * KIB64
            # Nothing but what says what is zero behind SIZE.
            assert site.stored(vm, image, 1).stat().st_size <= 5 * KIB64
    assert [increment.type for increment in image.increments] == ["FULL"] + ["INCREMENT"] * 3
    for number, moment in enumerate(moments):
        assert [site.brought_back(image, disk_id, number) for disk_id in (0, 1)] == moment, number
    assert passing(site.world) == set()
    # Of each disk the newest is kept, and the one before until the next backup knows that it is not needed.
    assert len(kept(site, own(vm))) == 2


# What a file has beside the data: headers and tables, and the blocks around where a volume begins and ends.
OVERHEAD = 8 * KIB64


@pytest.mark.parametrize(("provider", "block"), [("LVM_THIN", KIB64), ("ZFS", 8192), ("ZFS_THIN", 8192)])
@pytest.mark.parametrize("blocks", [64, 400], ids=["few", "many"])
@pytest.mark.parametrize("is_compared", [False, True], ids=["told", "compared"])
def test_an_increment_is_no_larger_than_the_blocks_that_have_changed(
    make_world: MakeWorld, provider: str, block: int, blocks: int, is_compared: bool
) -> None:
    configuration = 'BACKUP_COMPARE="yes"\n' if is_compared else ""
    site = Site(make_world(pools=(Pool("data", provider, 20480),), configuration=configuration))
    for node in site.world.cloud.hosts if is_compared else ():
        site.world.sandbox.refuse_sudo(node, "ALL")
    add_image(site.world, mib=64)
    vm = site.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", site.world.system)
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    # Each alone: the worst that a guest can do.
    for number in range(blocks):
        site.write(vm, 0, b"%d" % number, number * 2 * KIB64)
    image = site.cloud.backup(vm, site.datastore)
    assert ("comparing disk 0" in last(site.world, "prebackup_live").stderr) == is_compared
    assert blocks * block <= site.stored(vm, image, 0).stat().st_size <= 1.1 * blocks * block + OVERHEAD
    assert site.brought_back(image, 0) == site.content(vm, 0)


def test_keep_last_merges_and_the_chain_goes_on(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    for number in range(4):
        site.write(vm, 0, b"%d" % number * 1000, number * 400_000)
        image = site.cloud.backup(vm, site.datastore, "INCREMENT", keep_last=2)
    assert len(image.increments) == 2 and "ERROR" not in image.attributes
    assert site.brought_back(image, 0) == site.content(vm, 0)


def test_a_chain_that_is_begun_anew_is_another_chain(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.write(vm, 0, b"first")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    site.write(vm, 0, b"again")
    content = site.content(vm, 0)
    image = site.cloud.backup(vm, site.datastore, reset=True)
    assert site.brought_back(image, 0) == content and len(kept(site, own(vm))) == 1
    site.write(vm, 0, b"third")
    image = site.cloud.backup(vm, site.datastore)
    assert len(image.increments) == 2 and site.brought_back(image, 0) == site.content(vm, 0)


@pytest.mark.parametrize("release", ["7.4", "7.2"])
def test_a_backup_that_fails_at_its_datastore_does_not_harm_the_chain(make_world: MakeWorld, release: str) -> None:
    site = Site(make_world(release=release))
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    site.write(vm, 0, b"second")
    site.server.fail("backup")
    with pytest.raises(ActionFailed):
        site.cloud.backup(vm, site.datastore)
    # Before 7.3.80 postbackup is not told, so that the next backup removes the snapshot.
    assert len(kept(site, own(vm))) == (2 if release == "7.2" else 1) and not site.staged(vm).exists()
    site.write(vm, 0, b"thrice", MIB)
    image = site.cloud.backup(vm, site.datastore)
    assert len(image.increments) == 2 and site.brought_back(image, 0) == site.content(vm, 0)


def test_a_base_that_is_gone_makes_an_increment_of_all_and_says_so(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.write(vm, 0, b"old", 2 * MIB)
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    (base,) = kept(site, own(vm))
    post(site.world, f"/v1/resource-definitions/{own(vm)}/snapshots/{base}", None, "DELETE")
    site.discard(vm, 0, 2 * MIB, KIB64)
    image = site.cloud.backup(vm, site.datastore)
    assert "this increment has all of the disk" in last(site.world, "prebackup_live").stderr
    assert len(image.increments) == 2 and site.brought_back(image, 0) == site.content(vm, 0)


@pytest.mark.parametrize("moved", [1, 2], ids=["one", "all"])
def test_replicas_that_were_made_anew_on_other_nodes_make_no_wrong_increment(make_world: MakeWorld, moved: int) -> None:
    site = Site(make_world(nodes=("node1", "node2", "node3", "node4")))
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.write(vm, 0, b"old", 2 * MIB)
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    before = replicas(site.world, own(vm))
    for went, came in list(zip(sorted(before), sorted({*site.cloud.hosts} - before)))[:moved]:
        toggle(site.world, own(vm), came, "diskful/data")
        toggle(site.world, own(vm), went, "diskless")
    assert len(replicas(site.world, own(vm)) & before) == 2 - moved
    site.write(vm, 0, b"new", 3 * MIB)
    site.discard(vm, 0, 2 * MIB, KIB64)
    for number in (1, 2):
        image = site.cloud.backup(vm, site.datastore)
        is_of_all = "this increment has all of the disk" in last(site.world, "prebackup_live").stderr
        assert is_of_all == (moved == 2 and number == 1)
        assert len(image.increments) == number + 1 and site.brought_back(image, 0) == site.content(vm, 0)
        site.write(vm, 0, b"newer")


@pytest.mark.parametrize("unknown", ["of the VM", "of the image"])
def test_an_increment_that_only_one_of_both_knows_of_has_the_next_behind_it_by_its_right_name(
    site: Site, unknown: str
) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    moments = []
    for number in range(5):
        site.write(vm, 0, b"%d" % number * 1000, number * 400_000)
        moments.append(site.content(vm, 0))
        image = site.cloud.backup(vm, site.datastore, "INCREMENT", keep_last=0)
        if number == 2 and unknown == "of the VM":
            # oned was killed between the two, which it stores one after the other.
            vm.backups.config["LAST_INCREMENT_ID"] = "1"
        elif number == 2:
            # Its database was restored.
            image.increments.pop()
            moments.pop()
        elif number == 3:
            assert "this increment has all of the disk" in last(site.world, "prebackup_live").stderr
    assert [site.brought_back(image, 0, number) for number in range(len(moments))] == moments
    assert site.stored(vm, image, 0).stat().st_size < 16 * KIB64


def test_a_vm_that_has_moved_grown_and_gone_back_is_backed_up_right(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.write(vm, 0, b"one", MIB)
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    site.cloud.migrate_live(vm, "node3")
    site.write(vm, 0, b"two", 2 * MIB)
    site.cloud.backup(vm, site.datastore)
    site.cloud.snapshot_create(vm, vm.disk(0))
    site.cloud.resize_disk(vm, vm.disk(0), 9)
    site.write(vm, 0, b"grown", 8 * MIB)
    grown = site.content(vm, 0)
    image = site.cloud.backup(vm, site.datastore)
    assert site.brought_back(image, 0) == grown
    site.cloud.poweroff(vm)
    site.cloud.snapshot_revert(vm, vm.disk(0), vm.snapshots[0].get(0))
    reverted = site.content(vm, 0)
    image = site.cloud.backup(vm, site.datastore)
    assert len(image.increments) == 4
    back = site.brought_back(image, 0)
    # What has become smaller has zeroes behind its end, which hide what was there.
    assert back == reverted + bytes(len(back) - len(reverted)) and site.brought_back(image, 0, 2) == grown


def test_without_rights_on_the_node_an_increment_is_refused_or_compared(make_world: MakeWorld) -> None:
    site = Site(make_world())
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    for node in site.world.cloud.hosts:
        site.world.sandbox.refuse_sudo(node, "ALL")
    site.write(vm, 0, b"second")
    before = volumes(site.world), kept(site, own(vm))
    with pytest.raises(ActionFailed, match=r"No increment can be made: .*docs/backup.md.*BACKUP_COMPARE=yes"):
        site.cloud.backup(vm, site.datastore)
    assert (volumes(site.world), kept(site, own(vm))) == before
    conf = site.world.folder.parent / "linstor_un.conf"
    conf.write_text(conf.read_text() + 'BACKUP_COMPARE="yes"\n')
    image = site.cloud.backup(vm, site.datastore)
    assert site.stored(vm, image, 0).stat().st_size < 8 * KIB64
    assert site.brought_back(image, 0) == site.content(vm, 0) and passing(site.world) == set()


def test_a_list_of_changes_that_comes_in_part_makes_no_increment(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    site.write(vm, 0, b"second")
    # What comes first is the VM's XML.
    tool, came = site.world.sandbox.host(vm.host) / "steps" / "dd", site.world.folder / "came"
    tool.write_text(f'#!/bin/sh\n[ ! -e {came} ] || exit 1\ntouch {came}\nexec /bin/dd "$@"\n')
    tool.chmod(0o755)
    with pytest.raises(ActionFailed, match="has not come to its end"):
        site.cloud.backup(vm, site.datastore)
    tool.unlink()
    image = site.cloud.backup(vm, site.datastore)
    assert len(image.increments) == 2 and site.brought_back(image, 0) == site.content(vm, 0)


METADATA = '<superblock uuid="" time="1" transaction="1" version="2" data_block_size="128" nr_data_blocks="99">'


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            f"sudo -n dmsetup message vg_data-data-tpool 0 release_metadata_snap\necho '{METADATA}'\n",
            "somebody else has released the metadata of vg_data/data",
        ),
        (f"echo '{METADATA}'\necho '    <moved begin=\"1\" length=\"2\"/>'\n", "moved begin"),
        (f"[ \"$1\" = -V ] || echo '{METADATA}'\n", "has not come to its end"),
        ('[ "$1" = -V ] || echo "</superblock>"\n', "has not come to its end"),
        (":\n", "ended early: retry"),
        (f"[ \"$1\" != -V ] || echo 'thin_delta 1.0.4'\necho '{METADATA}'\n", "thin_delta 1.0.0 to 1.0.5"),
    ],
)
def test_what_thin_delta_says_of_lost_metadata_or_in_other_words_or_wrongly_is_not_taken(
    site: Site, script: str, reason: str
) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    for node in site.world.cloud.hosts:
        replace_tool(site.world.sandbox, node, "thin_delta", script)
    with pytest.raises(ActionFailed, match=f"No increment can be made: .*{reason}"):
        site.cloud.backup(vm, site.datastore)
    assert site.world.sandbox.snapshot_of_state()["metadata_snapshots"] == []


def test_a_base_in_another_pool_of_the_node_is_compared_with_nothing(make_world: MakeWorld) -> None:
    site = Site(make_world(pools=(Pool("data", "LVM_THIN", 20480), Pool("fast", "LVM_THIN", 20480))))
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    node = max(replicas(site.world, own(vm)) - {vm.host})
    path = f"/v1/resource-definitions/{own(vm)}/resources/{node}"
    post(site.world, path, None, "DELETE")
    post(site.world, path, {"resource": {"props": {"StorPoolName": "fast"}}})
    site.cloud.migrate_live(vm, node)
    with pytest.raises(ActionFailed, match=r"No increment can be made: .*as thin volumes of one pool"):
        site.cloud.backup(vm, site.datastore)


def test_a_pool_is_released_before_what_has_changed_is_copied(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    (base,) = kept(site, own(vm))
    # More than what waits in pipes for a reader who takes his time.
    ranges = 'seq 0 2 400000 | sed \'s/.*/    <different begin="&" length="1"\\/>/\''
    script = f"echo '{METADATA}'\n{ranges}\necho '</superblock>'\n"
    replace_tool(site.world.sandbox, "node1", "thin_delta", script)
    found = changes.of_thin_pool(host(site.world.sandbox, "node1"), f"{own(vm)}_00000", base, base)
    assert next(found) == (0, KIB64)
    assert site.world.sandbox.snapshot_of_state()["metadata_snapshots"] == []
    assert sum(1 for _ in found) == 200000


def test_a_right_to_zfs_send_with_any_arguments_is_one(make_world: MakeWorld) -> None:
    site = Site(make_world(pools=(Pool("data", "ZFS_THIN", 20480),)))
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    for node in site.world.cloud.hosts:
        tool = site.world.sandbox.host(node) / "bin" / "sudo"
        own_tool = tool.rename(tool.with_name(".sudo"))
        # As `zfs send *` in sudoers: without any it is no right.
        replace_tool(site.world.sandbox, node, "sudo", f'[ "$*" != "-n -l zfs send" ] || exit 1\nexec {own_tool} "$@"')
    site.write(vm, 0, b"second")
    image = site.cloud.backup(vm, site.datastore)
    assert site.brought_back(image, 0) == site.content(vm, 0)


@pytest.mark.parametrize("attributes", ["", 'ENCRYPTION="yes" BACKUP_COMPARE="yes"'])
def test_an_increment_has_what_is_behind_size_also_where_the_full_one_has_not(site: Site, attributes: str) -> None:
    # This driver's earlier full backups end at SIZE, as those of others do.
    post(site.world, "/v1/encryption/passphrase", {"new_passphrase": "word"})
    template = SYSTEM_TEMPLATE.replace("linstor-system", "another")
    datastore = site.cloud.create_datastore(f"{template} {attributes}")
    add_image(site.world)
    vm = site.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", datastore)
    site.write(vm, 0, b"behind", len(site.content(vm, 0)) - 512)
    image = site.cloud.backup(vm, site.datastore, "INCREMENT")
    full = str(site.stored(vm, image, 0))
    subprocess.run(["qemu-img", "resize", "-q", "--shrink", full, "4M"], check=True)
    image = site.cloud.backup(vm, site.datastore)
    assert image.increments[-1].type == "INCREMENT"
    assert site.brought_back(image, 0) == site.content(vm, 0)


def test_a_disk_that_is_encrypted_below_drbd_is_refused_or_compared(site: Site) -> None:
    post(site.world, "/v1/encryption/passphrase", {"new_passphrase": "word"})
    crypt = site.cloud.create_datastore(f'{SYSTEM_TEMPLATE.replace("linstor-system", "crypt")} ENCRYPTION="yes"')
    add_image(site.world)
    vm = site.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", crypt)
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    site.write(vm, 0, b"second")
    with pytest.raises(ActionFailed, match="has layers DRBD,LUKS,STORAGE"):
        site.cloud.backup(vm, site.datastore)
    crypt.attributes["BACKUP_COMPARE"] = "yes"
    image = site.cloud.backup(vm, site.datastore)
    assert site.brought_back(image, 0) == site.content(vm, 0)


def test_a_persistent_image_that_is_given_back_keeps_no_snapshot_of_backups(site: Site) -> None:
    vm = start(site.world)
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    image = volume(site.world.cloud.images[1])
    assert len(kept(site, image)) == 1 and link(site.world, vm, 1) == image
    site.cloud.terminate(vm)
    assert kept(site, image) == []


def test_what_keeps_the_hosts_own_part_from_being_done_is_told_as_it_is(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    site.write(vm, 0, b"second")
    site.world.sandbox.remove_tool(vm.host, "qemu-io")
    with pytest.raises(ActionFailed, match=r"a program is missing on node1 \(.*qemu-io.*\); install it there"):
        site.cloud.backup(vm, site.datastore)
