"""Two OpenNebulas on one LINSTOR, and one OpenNebula whose front-ends take over from each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from linstor_sandbox.opennebula import ActionFailed, Cloud
from linstor_un.cli import audit
from tests.conftest import CHECKOUT, World
from tests.linstor_un.living import killed_while, text, write
from tests.linstor_un.scenes import MIB, content, link, links, own, volumes

DISKS = 'DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1] DISK=[TYPE=fs,FORMAT=raw,SIZE=4] CONTEXT=[NETWORK="YES"]'


def start(world: World, host: str) -> None:
    """Image 0, which is cloned, 1, which is persistent, and VM 0 with both."""
    for number, persistent in enumerate((False, True)):
        path = world.file(f"{number}.raw", content(number))
        world.cloud.create_image(world.images, path, persistent=persistent)
    world.cloud.instantiate(DISKS, host, world.system)


@pytest.fixture
def neighbours(make_world: Callable[..., World], tmp_path: Path) -> Iterator[tuple[World, World]]:
    """One that has node1 and node2, and one with PREFIX two that has node3 and node4, on a LINSTOR of all."""
    world = make_world(nodes=("node1", "node2", "node3", "node4"))
    world.cloud.hosts[:] = ["node1", "node2"]
    conf = tmp_path / "two.conf"
    conf.write_text(f'{(world.folder.parent / "linstor_un.conf").read_text()}PREFIX="two"\n')
    environment = {**world.cloud.scripts.environment, "LINSTOR_UN_CONF": str(conf)}
    (tmp_path / "two/files").mkdir(parents=True)
    with Cloud(CHECKOUT, tmp_path / "two/oned", ("node3", "node4"), environment=environment) as cloud:
        yield world, World(world.sandbox, cloud, tmp_path / "two/files")


def findings(world: World, patch: pytest.MonkeyPatch) -> list[str]:
    """What the audit of one of them finds."""
    for name, value in world.cloud.scripts.environment.items():
        patch.setenv(name, value)
    found = json.loads(CliRunner().invoke(audit.command, ["--json"]).stdout)
    return [finding["finding"] for finding in found]


def test_two_opennebulas_with_the_same_ids_never_touch_each_others_volumes(
    neighbours: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = neighbours
    start(one, "node1")
    first = one.cloud.machines[0]
    write(one, first, 1, "of one")
    # All hosts here know domains by one set of names.
    one.cloud.poweroff(first)
    start(two, "node3")
    second = two.cloud.machines[0]
    write(two, second, 1, "of two")
    kinds = ("image-0", "image-1", "vm-0-disk-0", "vm-0-disk-2")
    assert volumes(one) == {f"{prefix}-{kind}" for prefix in ("one", "two") for kind in kinds}
    two.cloud.snapshot_create(second, second.disk(0))
    two.cloud.migrate_live(second, "node4")
    two.cloud.suspend(second)
    two.cloud.resume(second)
    one.cloud.migrate_cold(first, "node2")
    assert (text(one, "one-image-1"), text(one, "two-image-1")) == ("of one", "of two")
    assert findings(one, monkeypatch) == findings(two, monkeypatch) == []
    two.cloud.recover_delete(second)
    for image in list(two.cloud.images):
        two.cloud.delete_image(image)
    assert volumes(one) == {f"one-{kind}" for kind in kinds}
    one.cloud.resume(first)
    assert one.sandbox.read(own(first), 0, 4 * MIB) == content(0) and text(one, "one-image-1") == "of one"
    one.cloud.terminate(first)
    assert volumes(one) == {"one-image-0", "one-image-1"}


def test_without_another_prefix_the_second_gets_no_image_and_takes_none(neighbours: tuple[World, World]) -> None:
    one, two = neighbours
    start(one, "node1")
    Path(two.cloud.scripts.environment["LINSTOR_UN_CONF"]).write_text(
        (one.folder.parent / "linstor_un.conf").read_text()
    )
    before = volumes(one)
    with pytest.raises(ActionFailed) as failed:
        two.cloud.create_image(two.images, two.file("x.raw", content(5)))
    said = failed.value.call.stderr
    assert "already has a volume one-image-0 that was not made for this image" in said
    assert "set another PREFIX in linstor_un.conf" in said and "took back" not in said
    assert volumes(one) == before and one.sandbox.read("one-image-0", 0, 4 * MIB) == content(0)


def fail_over(world: World, to: str) -> None:
    """Another front-end has become the leader: with oned's database, and nothing else that the one before had."""
    world.cloud.frontend = to
    for path in (world.frontend, world.folder.parent / "locks"):
        shutil.rmtree(path)
        path.mkdir()


def test_another_front_end_goes_on_wherever_the_first_has_left_off(world: World) -> None:
    start(world, "node1")
    vm = world.cloud.machines[0]
    write(world, vm, 1, "before")
    world.cloud.snapshot_create(vm, vm.disk(0))
    fail_over(world, "fe2")
    world.cloud.migrate_live(vm, "node2")
    world.cloud.suspend(vm)
    fail_over(world, "fe3")
    world.cloud.resume(vm)
    world.cloud.stop(vm)
    fail_over(world, "fe2")
    # Its memory is on a volume, and its directory's files are made anew.
    world.cloud.deploy(vm, "node3", world.system)
    assert world.cloud.hypervisor.running[vm.identifier] == "node3"
    assert text(world, "one-image-1") == "before" and link(world, vm, 0) == own(vm)
    world.cloud.undeploy(vm)
    fail_over(world, "onefe")
    world.cloud.terminate(vm)
    assert volumes(world) == {"one-image-0", "one-image-1"} and links(world) == {}


@pytest.mark.parametrize(
    "request_killed", [r"POST .*/snapshot-restore-resource/.*", r"POST .*one-image-1/.*make-available"]
)
def test_another_front_end_repeats_what_the_first_has_died_over(world: World, request_killed: str) -> None:
    start(world, "node1")
    world.cloud.terminate(world.cloud.machines[0])
    vm = world.cloud.create_vm(DISKS, world.system)
    with killed_while(world, request_killed), pytest.raises(ActionFailed):
        world.cloud.deploy(vm, "node2", world.system)
    fail_over(world, "fe2")
    world.cloud.recover_retry(vm)
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(0) and link(world, vm, 1) == "one-image-1"
    world.cloud.terminate(vm)
    assert volumes(world) == {"one-image-0", "one-image-1"}
