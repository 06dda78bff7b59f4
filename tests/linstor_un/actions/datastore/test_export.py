"""datastore/export: a file for a marketplace, its checksum, and how to dispose of it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from lxml import etree

from linstor_sandbox.opennebula import ActionFailed
from linstor_sandbox.opennebula.images import Image
from tests.conftest import CHECKOUT, World
from tests.linstor_un.living import BLOCK, snapshots, start, write
from tests.linstor_un.scenes import MIB, add_image, content, last, replicas, volume, volumes, write_behind


def exported(world: World, image: Image) -> tuple[etree._Element, bytes]:
    """The answer, and the image's bytes in the file that it names, which must have the checksum that it says."""
    answer = etree.fromstring(world.cloud.export_image(image, 77).stdout.encode())
    source = answer.findtext("IMPORT_SOURCE", "")
    host, _, path = source[len("ssh://") :].partition(":")
    file = Path(path)
    assert source.startswith("ssh://") and host in world.cloud.hosts
    assert hashlib.md5(file.read_bytes()).hexdigest() == answer.findtext("MD5")
    raw = world.folder / "exported.raw"
    subprocess.run(["qemu-img", "convert", "-f", answer.findtext("FORMAT", ""), "-O", "raw", path, raw], check=True)
    command = answer.findtext("DISPOSE_CMD", "")
    assert answer.findtext("DISPOSE") == "YES"
    environment = {**world.cloud.scripts.environment}
    subprocess.run(["sh", "-c", command], env=environment, check=True)
    assert not file.exists()
    return answer, raw.read_bytes()


def test_an_image_that_vms_were_cloned_from(world: World) -> None:
    start(world)
    answer, data = exported(world, world.cloud.images[0])
    assert data == content(1)
    assert answer.findtext("SIZE") == "4"
    assert last(world, "export").counts == {"rest": 2, "ssh": 1}


def test_a_persistent_image_that_a_vm_writes_to_is_as_it_was_at_one_moment(world: World) -> None:
    vm = start(world)
    image = world.cloud.images[1]
    write(world, vm, 1, "exported")
    known = volumes(world)
    _, data = exported(world, image)
    assert data[:BLOCK].rstrip(b".") == b"exported"
    assert data[BLOCK:] == content(2)[BLOCK:]
    assert volumes(world) == known
    assert snapshots(world, volume(image)) == set()
    write(world, vm, 1, "it runs")


def test_what_is_behind_size_is_exported_where_there_is_something(world: World) -> None:
    image = add_image(world)
    expected = write_behind(world, volume(image))
    answer, data = exported(world, image)
    assert data == expected
    assert answer.findtext("SIZE") == str(-(-len(expected) // MIB))


def test_a_cdrom_in_use(world: World) -> None:
    start(world, "DISK=[IMAGE_ID=2]")
    assert exported(world, world.cloud.images[2])[1] == content(3)


@pytest.mark.parametrize("broken", ["LINSTOR", "host"])
def test_a_failure_leaves_no_file(world: World, broken: str) -> None:
    image = add_image(world)
    if broken == "LINSTOR":
        world.sandbox.faults.fail(r"GET .*/resources", 998)
    else:
        for node in world.cloud.hosts:
            world.sandbox.refuse_ssh(node)
    with pytest.raises(ActionFailed) as failed:
        world.cloud.export_image(image)
    assert failed.value.call.stdout == ""
    assert staged(world) == []


def staged(world: World) -> list[Path]:
    """What lies in the staging directories of all hosts."""
    return [path for node in world.cloud.hosts for path in (world.sandbox.host(node) / "var/tmp").iterdir()]


def test_a_failure_behind_the_file_takes_it_back(world: World) -> None:
    start(world)
    image = world.cloud.images[1]
    world.sandbox.faults.fail(f"DELETE .*/resource-definitions/{volume(image)}-", times=1)
    with pytest.raises(ActionFailed):
        world.cloud.export_image(image)
    assert staged(world) == []
    exported(world, image)
    assert staged(world) == []


def test_an_answer_that_nobody_reads_leaves_no_file(world: World) -> None:
    image = add_image(world)
    call = world.cloud.export_image(image)
    assert len(staged(world)) == 1
    process = subprocess.Popen(
        [CHECKOUT / "datastore" / "linstor_un" / "export", *call.argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=world.cloud.scripts.environment,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.write(call.stdin.encode())
    process.stdin.close()
    said = process.stderr.read().decode()
    assert process.wait() == 1
    assert "no longer waits for this action's answer" in said
    assert len(staged(world)) == 1


@pytest.mark.parametrize("is_answered", [True, False])
def test_an_attachment_that_was_made_and_not_confirmed_is_taken_back(world: World, is_answered: bool) -> None:
    image = add_image(world)
    # LINSTOR knows its tie-breaker there, and makes it one again.
    before = world.sandbox.snapshot_of_state()["resource_definitions"]
    (away,) = set(world.cloud.hosts) - replicas(world, volume(image))
    world.images.attributes["BRIDGE_LIST"] = away
    break_off = world.sandbox.faults.fail if is_answered else world.sandbox.faults.drop
    break_off("POST .*/make-available", after_work=True, times=1 if is_answered else 9)
    with pytest.raises(ActionFailed):
        world.cloud.export_image(image)
    assert world.sandbox.snapshot_of_state()["resource_definitions"] == before
