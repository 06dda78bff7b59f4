"""vmm/kvm/restore_linstor_un: a VM goes on where it was saved, on any host and in any system datastore."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from linstor_sandbox.opennebula import ActionFailed
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.living import EVERY_KIND, guest, start, text, twice, write
from tests.linstor_un.scenes import files, last, link, links, own, path, volumes


def goes_on(world: World, seed: bytes) -> None:
    (vm,) = world.cloud.machines
    assert (guest(world, vm).state, guest(world, vm).seed) == ("running", seed)
    write(world, vm, 0, f"on {vm.host}")
    assert text(world, own(vm)) == f"on {vm.host}"
    assert f"one-vm-{vm.identifier}-checkpoint" not in volumes(world)
    assert [name for name in files(world, vm.host) if "checkpoint" in name] == []


def test_suspended_stopped_and_migrated_over_hosts_and_datastores(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = start(world, EVERY_KIND)
    other = world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("linstor-system", "linstor-system2"))
    seed = guest(world, vm).seed
    twice(world, monkeypatch)
    world.cloud.suspend(vm)
    world.cloud.resume(vm)
    goes_on(world, seed)
    world.cloud.stop(vm)
    assert links(world) == {}
    world.cloud.deploy(vm, "node3", other)
    goes_on(world, seed)
    world.cloud.migrate_cold(vm, "node2", world.system, poff=False)
    goes_on(world, seed)
    assert link(world, vm, 0) == own(vm) and path(world, vm, "disk.5").is_file()
    world.cloud.suspend(vm)
    world.cloud.migrate_cold(vm, "node1", other)
    world.cloud.resume(vm)
    goes_on(world, seed)
    assert last(world, "restore_linstor_un").counts["ssh"] == 1
    assert last(world, "restore_linstor_un").counts["rest"] <= 4


def test_a_source_that_does_not_answer_does_not_keep_a_suspended_vm(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1]")
    seed = guest(world, vm).seed
    world.cloud.suspend(vm)
    world.sandbox.refuse_ssh("node1")
    world.cloud.migrate_cold(vm, "node3")
    world.cloud.resume(vm)
    goes_on(world, seed)


def test_three_tries(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0]")
    seed = guest(world, vm).seed
    world.cloud.suspend(vm)
    world.sandbox.fail_virsh("restore", times=2)
    world.cloud.resume(vm)
    goes_on(world, seed)


def test_a_failed_restore_keeps_the_memory_for_the_next_try(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0]")
    seed = guest(world, vm).seed
    world.cloud.stop(vm)
    world.sandbox.fail_virsh("restore", times=3)
    with pytest.raises(ActionFailed, match="injected failure"):
        world.cloud.deploy(vm, "node2", world.system)
    assert vm.lcm_state.name == "BOOT_STOPPED_FAILURE"
    world.cloud.recover_retry(vm)
    goes_on(world, seed)


def test_restored_and_the_volume_is_still_there(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0]")
    seed = guest(world, vm).seed
    world.cloud.suspend(vm)
    world.sandbox.faults.fail(r"DELETE .*checkpoint", 998)
    world.cloud.resume(vm)
    call = last(world, "restore_linstor_un")
    assert f"one-vm-{vm.identifier}-checkpoint" in volumes(world)
    again = world.cloud.scripts.local_action("restore_linstor_un", call.argv, call.stdin)
    assert again.succeeded, again.stderr
    goes_on(world, seed)


def test_memory_that_is_damaged_is_told(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0]")
    world.cloud.suspend(vm)
    world.sandbox.write(f"one-vm-{vm.identifier}-checkpoint", b"x" * 4096, (3 << 20) + 4096)
    with pytest.raises(ActionFailed, match="damaged"):
        world.cloud.resume(vm)
    assert vm.state.name == "SUSPENDED"


def test_a_host_that_does_not_answer_is_a_sentence(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0]")
    world.cloud.suspend(vm)
    context, vm.context = vm.context, None
    world.sandbox.refuse_ssh("node1")
    with pytest.raises(ActionFailed, match="host node1 does not answer over ssh"):
        world.cloud.resume(vm)
    vm.context = context
    world.sandbox.refuse_ssh("node1", False)
    world.cloud.resume(vm)


def test_saved_to_a_file_before_the_override_was_installed(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = make_world()
    vm = start(world, "DISK=[IMAGE_ID=0]")
    monkeypatch.setattr(world.cloud.scripts, "has_local_action", lambda verb: False)
    world.cloud.suspend(vm)
    monkeypatch.undo()
    script = world.sandbox.host("node1") / "var/tmp/one/vmm/kvm/restore"
    script.parent.mkdir(parents=True)
    script.write_text('#!/bin/sh\ncat >/dev/null\nexec virsh restore "$1"\n')
    script.chmod(0o755)
    world.cloud.resume(vm)
    write(world, vm, 0, "it runs")


@pytest.mark.parametrize("wanted", ["yes", "no"])
def test_the_guests_clock_is_set_as_kvmrc_says(world: World, wanted: str) -> None:
    kvmrc = world.sandbox.host("node1") / "var/tmp/one/etc/vmm/kvm/kvmrc"
    kvmrc.parent.mkdir(parents=True)
    kvmrc.write_text(f"export SYNC_TIME={wanted}\n")
    slow = world.sandbox.host("node1") / "steps/setsid"
    slow.parent.mkdir(exist_ok=True)
    slow.write_text('#!/bin/sh\n[ "$1" = -w ] || sleep 1\nexec /usr/bin/setsid "$@"\n')
    slow.chmod(0o755)
    vm = start(world, "DISK=[IMAGE_ID=0]")
    world.cloud.suspend(vm)
    world.cloud.resume(vm)
    events = world.sandbox.domains.events
    deadline = time.monotonic() + 10
    while wanted == "yes" and events[-1].what != "domtime" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [event.what for event in events[-2:]] == (["restore", "domtime"] if wanted == "yes" else ["save", "restore"])
