"""The context ISO: built on the front-end, on the host as a file beside the links, replaced at once."""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from linstor_sandbox.opennebula import VirtualMachine
from linstor_un.actions.tm import context
from linstor_un.driver import Call
from linstor_un.hosts.runner import Host
from linstor_un.settings import Settings
from tests.conftest import World
from tests.linstor_un.scenes import failure, path, run, sentence, succeed


def listing(iso: Path) -> list[str]:
    """The names in an ISO image, with their Rock Ridge names."""
    done = subprocess.run(["isoinfo", "-R", "-f", "-i", str(iso)], capture_output=True, text=True, check=True)
    return sorted(done.stdout.split())


def read(iso: Path, name: str) -> bytes:
    return subprocess.run(["isoinfo", "-R", "-x", name, "-i", str(iso)], capture_output=True, check=True).stdout


def start(world: World) -> VirtualMachine:
    return world.cloud.instantiate(
        """DISK=[TYPE=swap,SIZE=4] CONTEXT=[NETWORK="YES",TITLE="it's $(id) `id`"]""", "node1", world.system
    )


TARGET = "node1:/var/lib/one//datastores/100/0/disk.1 0 100"


def test_the_context_of_a_vm_is_an_iso_labelled_context(world: World) -> None:
    vm = start(world)
    iso = path(world, vm, "disk.1")
    assert not iso.is_symlink()
    label = subprocess.run(["isoinfo", "-d", "-i", str(iso)], capture_output=True, text=True, check=True).stdout
    assert "Volume id: CONTEXT\n" in label
    assert listing(iso) == ["/context.sh"]
    assert read(iso, "/context.sh") == (world.cloud.var / "vms/0/context.sh").read_bytes()


def test_files_come_under_the_names_that_the_template_gives(world: World) -> None:
    vm = start(world)
    world.file("init.sh", b"#!/bin/sh\n")
    world.file("key", b"secret")
    (world.folder / "tree").mkdir()
    world.file("tree/inner", b"deep")
    files = f"{world.folder}/init.sh {world.folder}/key:'keys/host' {world.folder}/tree"
    succeed(world, f"context {world.cloud.var}/vms/0/context.sh {files} {TARGET}")
    iso = path(world, vm, "disk.1")
    assert {"/context.sh", "/init.sh", "/keys/host", "/tree/inner"} <= set(listing(iso))
    assert read(iso, "/keys/host") == b"secret"
    assert read(iso, "/tree/inner") == b"deep"


OPTIONS = ("-path-list", "-exclude-list", "-output", "-o", "-log-file", "--", "-r", "-help")


@pytest.mark.parametrize("builder", context._BUILDERS)
def test_no_name_that_an_owner_gives_is_an_option_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builder: Sequence[str]
) -> None:
    if shutil.which(builder[0]) is None:
        pytest.skip(f"{builder[0]} is not installed")
    monkeypatch.setattr(context, "_BUILDERS", (builder,))
    monkeypatch.setattr(context.runner, "host", lambda name, _: Host(name, Settings(), is_frontend=True))
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "file").write_text(f"{tmp_path}/secret\n")
    named = [f"{tmp_path}/file:{name}" for name in OPTIONS]
    context.run(Call((*named, f"onefe:{tmp_path}/100/0/disk.1", "0", "100"), b"", {}))
    assert listing(tmp_path / "100/0/disk.1") == sorted(f"/{name}" for name in OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["100", "file", "secret"]


def test_a_new_context_replaces_the_old_in_one_step(world: World) -> None:
    vm = start(world)
    iso = path(world, vm, "disk.1")
    with iso.open("rb") as in_use:
        before = iso.read_bytes()
        world.file("more", b"more")
        succeed(world, f"context {world.cloud.var}/vms/0/context.sh {world.folder}/more {TARGET}")
        assert in_use.read() == before, "whoever has the old one open still reads it"
    assert "/more" in listing(iso)
    assert sorted(file.name for file in iso.parent.iterdir()) == ["deployment.0", "disk.0", "disk.1"]


@pytest.mark.parametrize("stale", ["file", "link"])
def test_what_is_at_its_place_is_replaced_and_a_link_is_not_followed(world: World, stale: str) -> None:
    vm = start(world)
    iso = path(world, vm, "disk.1")
    precious = world.sandbox.host("node1") / "precious"
    precious.write_bytes(b"precious")
    iso.unlink()
    if stale == "file":
        iso.write_bytes(b"stale")
        iso.chmod(0o400)
    else:
        iso.symlink_to(precious)
    succeed(world, f"context {world.cloud.var}/vms/0/context.sh {TARGET}")
    assert not iso.is_symlink() and listing(iso) == ["/context.sh"]
    assert precious.read_bytes() == b"precious"


def test_every_boot_makes_it_on_the_host_where_the_vm_is(world: World) -> None:
    vm = start(world)
    world.cloud.poweroff(vm)
    path(world, vm, "disk.1").unlink()
    world.cloud.resume(vm)
    assert listing(path(world, vm, "disk.1")) == ["/context.sh"]
    world.cloud.migrate_cold(vm, "node3")
    assert listing(path(world, vm, "disk.1", "node3")) == ["/context.sh"]


def test_it_asks_neither_linstor_nor_oned(world: World) -> None:
    start(world)
    rest, oned = len(world.sandbox.requests), world.cloud.rpc.http_requests
    world.sandbox.stop_controller()
    succeed(world, f"context {world.cloud.var}/vms/0/context.sh {TARGET}")
    assert (len(world.sandbox.requests), world.cloud.rpc.http_requests) == (rest, oned)


def test_a_front_end_that_is_the_host_needs_no_ssh(make_world: Callable[..., World]) -> None:
    world = make_world(configuration='FRONTEND_HOSTNAME="kvm-fe"')
    vm = world.cloud.create_vm('DISK=[TYPE=swap,SIZE=4] CONTEXT=[NETWORK="YES"]', world.system)
    script = world.file("context.sh", b"# context\n")
    succeed(world, f"context {script} kvm-fe:/var/lib/one//datastores/100/{vm.identifier}/disk.1 {vm.identifier} 100")
    assert listing(world.frontend / "datastores/100/0/disk.1") == ["/context.sh"]
    assert world.sandbox.connections == []


def test_a_host_that_does_not_answer_is_a_sentence_and_the_boot_can_be_retried(world: World) -> None:
    vm = start(world)
    world.cloud.poweroff(vm)
    world.sandbox.refuse_ssh("node1")
    assert "host node1 does not answer" in failure(lambda: world.cloud.resume(vm))
    world.sandbox.refuse_ssh("node1", False)
    world.cloud.recover_retry(vm)
    assert listing(path(world, vm, "disk.1")) == ["/context.sh"]


def test_files_that_cannot_be_taken_are_sentences_and_the_old_iso_stays(world: World) -> None:
    vm = start(world)
    before = path(world, vm, "disk.1").read_bytes()
    for file, part in (
        ("/no/such/file", "Context file /no/such/file is not there or cannot be read"),
        ("relative", "Context file 'relative' is not /path or /path:name"),
        ("/etc/hostname:../../../etc/cron.d/x", "is not /path or /path:name"),
        ("/etc/hostname:a/../../b", "is not /path or /path:name"),
    ):
        assert part in sentence(run(world, f"context {world.cloud.var}/vms/0/context.sh {file} {TARGET}"))
    assert path(world, vm, "disk.1").read_bytes() == before


def test_it_is_built_on_a_front_end_whose_disks_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        assert b"".join(context._output(("echo", "iso"))) == b"iso\n"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_that_make_no_sense_are_refused(world: World) -> None:
    for line in (
        "context node1:/d/100/0/disk.1 0 100",
        "context /x/context.sh node1:/d/100/0/disk.1 0",
        "context /x/context.sh node1:/d/100/9/disk.1 0 100",
        "context /x/context.sh node1:/d/100/0 0 100",
        "context /x/context.sh node1:/d/100/0/disk.1 0 x",
    ):
        assert sentence(run(world, line))
    assert world.sandbox.connections == []
