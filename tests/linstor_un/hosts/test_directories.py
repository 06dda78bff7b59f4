"""The VM's directory on its way between hosts: everything arrives, or nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn, Optional

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_un.errors import CommandFailed, DriverError, HostUnreachable
from linstor_un.hosts import directories
from linstor_un.hosts.runner import Host
from linstor_un.undo import STOPPING_SIGNALS
from tests.linstor_un.hosts.hosts_in_a_box import DATASTORES, below, host, replace_tool

DIRECTORY = f"{DATASTORES}/100/7"
NAMES = (
    "plain",
    "a blank",
    "-n",
    "--help",
    "new\nline",
    "quote'\"`$(x)",
    "\u65e5\u672c\u8a9e",
    ".hidden",
    "*",
    "back\\slash",
)
SPARSE_BYTES = 64 << 20


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A move stops listening to signals, for an action that ends soon."""
    before = {number: signal.getsignal(number) for number in STOPPING_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def shared_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Return three hosts."""
    pools = (Pool("data", "LVM_THIN"),)
    with Sandbox(tmp_path_factory.mktemp("directories"), nodes=("node1", "node2", "node3"), pools=pools) as made:
        yield made
        assert made.exceptions == []


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    """Return the hosts with nothing in their datastores, and with their own tools again afterwards."""
    yield shared_sandbox
    for name in ("node1", "node2", "node3"):
        for tool in ("tar", "rm"):
            (shared_sandbox.host(name) / "bin" / tool).unlink(missing_ok=True)
        top = below(shared_sandbox, name, DATASTORES)
        if top.is_symlink():
            top.unlink()
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir()


@pytest.fixture
def here(sandbox: Sandbox) -> Host:
    return host(sandbox, "node1")


@pytest.fixture
def there(sandbox: Sandbox) -> Host:
    return host(sandbox, "node2")


@pytest.fixture
def source(sandbox: Sandbox) -> Path:
    """Return the directory of VM 7 on node1, with all that can be in one."""
    top = below(sandbox, "node1", DIRECTORY)
    (top / "folder" / "deeper").mkdir(parents=True)
    (top / "empty folder").mkdir()
    for number, name in enumerate(NAMES):
        (top / name).write_bytes(name.encode() * number)
        (top / "folder" / name).write_text("below")
    (top / "disk.4").write_bytes(b"context" * 1000)
    with (top / "vm.nvram").open("wb") as file:
        file.seek(20 << 20)
        file.write(b"middle")
        file.truncate(SPARSE_BYTES)
    (top / "plain").chmod(0o640)
    (top / "link").symlink_to("plain")
    (top / "disk.0").symlink_to(below(sandbox, "node1", "/dev/drbd/by-res/one-vm-7-disk-0/0"))
    (top / "disk.1").symlink_to(below(sandbox, "node1", "/dev/drbd/by-res/one-image-1/0"))
    return top


def described(top: Path) -> dict[str, object]:
    """Return what is in a directory, without links to volumes."""
    found: dict[str, object] = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if path.is_symlink():
            if not path.name.startswith("disk."):
                found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = (
                path.read_bytes() if path.stat().st_size < 1 << 20 else path.stat().st_size,
                path.stat().st_mode,
            )
        elif path.is_dir():
            found[name] = "directory"
    return found


@pytest.mark.parametrize("target_directory", [DIRECTORY, f"{DATASTORES}/101/7"])
def test_everything_but_the_links_to_volumes_arrives(
    sandbox: Sandbox, here: Host, there: Host, source: Path, target_directory: str
) -> None:
    before = described(source)
    unlinked = directories.move(here, DIRECTORY, there, target_directory)
    target = below(sandbox, "node2", target_directory)
    assert described(target) == before
    assert not source.exists()
    assert sorted(unlinked) == ["/dev/drbd/by-res/one-image-1/0", "/dev/drbd/by-res/one-vm-7-disk-0/0"]
    assert not (target / "disk.0").is_symlink()


def test_holes_stay_holes(sandbox: Sandbox, here: Host, there: Host, source: Path) -> None:
    directories.move(here, DIRECTORY, there, DIRECTORY)
    moved = below(sandbox, "node2", DIRECTORY) / "vm.nvram"
    assert moved.stat().st_size == SPARSE_BYTES
    assert moved.stat().st_blocks * 512 < 1 << 20
    with moved.open("rb") as file:
        file.seek((20 << 20) - 1)
        assert file.read(8) == b"\0middle\0"


def test_sockets_and_fifos_are_no_obstacle(sandbox: Sandbox, here: Host, there: Host) -> None:
    top = below(sandbox, "node1", DIRECTORY)
    top.mkdir(parents=True)
    (top / "file").write_text("x")
    os.mkfifo(top / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(top)
    try:
        listener.bind("monitor.sock")
    finally:
        os.chdir(before)
    directories.move(here, DIRECTORY, there, DIRECTORY)
    listener.close()
    assert sorted(path.name for path in below(sandbox, "node2", DIRECTORY).iterdir()) == ["file"]
    assert not top.exists()


@pytest.mark.parametrize("target_host", ["node1", "node2"])
def test_a_move_that_is_done_is_no_failure_whatever_stops_the_action_then(
    sandbox: Sandbox, here: Host, source: Path, target_host: str
) -> None:
    def stop(number: int, frame: Optional[FrameType]) -> NoReturn:
        raise AssertionError("the action would say that nothing was moved")

    signal.signal(signal.SIGTERM, stop)
    tool = replace_tool(sandbox, "node1", "rm", f'kill -TERM {os.getpid()}; sleep 0.2; exec /bin/rm "$@"')
    target = below(sandbox, target_host, f"{DATASTORES}/101/7")
    directories.move(here, DIRECTORY, host(sandbox, target_host), f"{DATASTORES}/101/7")
    tool.unlink()
    assert not source.exists()
    assert (target / "plain").is_file()


def test_a_directory_that_cannot_be_read_to_its_end_is_not_removed(
    sandbox: Sandbox, here: Host, there: Host, source: Path
) -> None:
    before = described(source)
    # Before the sandbox's own, which is needed again.
    tool = sandbox.host("node1") / "steps" / "find"
    tool.write_text(
        "#!/bin/sh\ncase $* in *-print0*) printf './plain\\0'; echo 'find: .: Input/output error' >&2; exit 1 ;; esac\n"
        'exec /usr/bin/find "$@"\n'
    )
    tool.chmod(0o755)
    try:
        with pytest.raises(CommandFailed, match="Input/output error"):
            directories.move(here, DIRECTORY, there, DIRECTORY)
    finally:
        tool.unlink()
    assert described(source) == before


def test_one_connection_to_each_host(sandbox: Sandbox, here: Host, there: Host, source: Path) -> None:
    sandbox.clear_connections()
    directories.move(here, DIRECTORY, there, DIRECTORY)
    assert sorted(connection.host for connection in sandbox.connections) == ["node1", "node2"]


def test_what_is_at_the_target_already_is_replaced_or_kept(
    sandbox: Sandbox, here: Host, there: Host, source: Path
) -> None:
    target = below(sandbox, "node2", DIRECTORY)
    target.mkdir(parents=True)
    (target / "plain").write_text("of an earlier try that broke off")
    (target / "disk.0").symlink_to("/dev/drbd/by-res/one-vm-7-disk-0/0")
    directories.move(here, DIRECTORY, there, DIRECTORY)
    assert (target / "plain").read_bytes() == b""
    assert (target / "disk.0").is_symlink(), "the disks' lines came before and have made their links"


def test_moving_twice_is_as_moving_once(sandbox: Sandbox, here: Host, there: Host, source: Path) -> None:
    before = described(source)
    directories.move(here, DIRECTORY, there, DIRECTORY)
    assert directories.move(here, DIRECTORY, there, DIRECTORY) == []
    assert described(below(sandbox, "node2", DIRECTORY)) == before


def test_a_directory_that_is_not_there_is_an_empty_one(sandbox: Sandbox, here: Host, there: Host) -> None:
    assert directories.move(here, DIRECTORY, there, DIRECTORY) == []
    assert list(below(sandbox, "node2", DIRECTORY).iterdir()) == []


def test_a_device_that_another_vm_has_linked_is_not_unlinked(
    sandbox: Sandbox, here: Host, there: Host, source: Path
) -> None:
    other = below(sandbox, "node1", f"{DATASTORES}/101/8")
    other.mkdir(parents=True)
    (other / "disk.0").symlink_to(below(sandbox, "node1", "/dev/drbd/by-res/one-image-1/0"))
    assert directories.move(here, DIRECTORY, there, DIRECTORY) == ["/dev/drbd/by-res/one-vm-7-disk-0/0"]
    assert (other / "disk.0").is_symlink()


def test_on_one_host_everything_goes_to_the_other_datastore(sandbox: Sandbox, here: Host, source: Path) -> None:
    before = described(source)
    directories.move(here, DIRECTORY, here, f"{DATASTORES}/101/7")
    target = below(sandbox, "node1", f"{DATASTORES}/101/7")
    assert described(target) == before
    assert not source.exists() and not (target / "disk.0").is_symlink()
    assert (target / "vm.nvram").stat().st_blocks * 512 < 1 << 20


def share(sandbox: Sandbox) -> None:
    """Let node2 see the datastores of node1, as over NFS."""
    datastores = below(sandbox, "node2", DATASTORES)
    datastores.rmdir()
    datastores.symlink_to(below(sandbox, "node1", DATASTORES))


def test_a_directory_that_both_hosts_see_is_left_alone(sandbox: Sandbox, here: Host, there: Host, source: Path) -> None:
    share(sandbox)
    before = described(source)
    assert directories.move(here, DIRECTORY, there, DIRECTORY) == []
    assert described(source) == before
    assert (source / "disk.0").is_symlink()


def test_a_shared_directory_is_not_removed_behind_a_vm_that_has_moved(
    sandbox: Sandbox, here: Host, there: Host, source: Path
) -> None:
    share(sandbox)
    before = described(source)
    assert len(directories.remove_unless_shared(here, there, DIRECTORY)) == 2, "no other VM has a link to these"
    assert described(source) == before


def test_a_directory_of_its_own_is_removed_behind_a_vm_that_has_moved(
    sandbox: Sandbox, here: Host, there: Host, source: Path
) -> None:
    below(sandbox, "node2", DIRECTORY).mkdir(parents=True)
    assert len(directories.remove_unless_shared(here, there, DIRECTORY)) == 2
    assert not source.exists()
    assert list(below(sandbox, "node2", DIRECTORY).iterdir()) == []


def test_what_cannot_be_told_apart_is_not_removed(sandbox: Sandbox, here: Host, source: Path) -> None:
    with pytest.raises(HostUnreachable) as failure:
        directories.remove_unless_shared(here, host(sandbox, "node9"), DIRECTORY)
    assert failure.value.host == "node9"
    assert source.exists()


def test_a_copy_keeps_the_source(sandbox: Sandbox, here: Host, there: Host, source: Path) -> None:
    before = described(source)
    directories.copy(here, DIRECTORY, there, DIRECTORY)
    directories.copy(here, DIRECTORY, here, f"{DATASTORES}/101/7")
    directories.copy(here, DIRECTORY, here, DIRECTORY)
    for name, directory in (("node1", DIRECTORY), ("node2", DIRECTORY), ("node1", f"{DATASTORES}/101/7")):
        assert described(below(sandbox, name, directory)) == before
    assert (source / "disk.0").is_symlink()


def nothing_lost(source: Path, before: dict[str, object], target: Path) -> None:
    """Check that a move that failed has left the source as it was, and no mark of its own at the target."""
    assert described(source) == before
    assert (source / "disk.0").is_symlink()
    assert [path.name for path in target.glob(".linstor_un*")] == []


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("node2", "echo 'tar: write error: No space left on device' >&2; exit 2"),
        ("node2", "head -c 1000 >/dev/null; echo 'tar: write error: No space left on device' >&2; exit 2"),
        ("node2", "cat >/dev/null; echo 'tar: write error: No space left on device' >&2; exit 2"),
        ("node1", "echo 'tar: file changed: No space left on device' >&2; exit 2"),
    ],
)
def test_a_host_that_cannot_pack_or_unpack_fails_the_move_with_its_words(
    sandbox: Sandbox, here: Host, there: Host, source: Path, name: str, script: str
) -> None:
    before = described(source)
    replace_tool(sandbox, name, "tar", script)
    with pytest.raises(DriverError, match="No space left on device"):
        directories.move(here, DIRECTORY, there, DIRECTORY)
    nothing_lost(source, before, below(sandbox, "node2", DIRECTORY))


@pytest.mark.parametrize(
    "packed", ["head -c 1000000 /dev/zero", "head -c 1000000 /dev/urandom", "/usr/bin/tar -cf - plain folder"]
)
def test_a_source_that_dies_on_the_way_fails_the_move(
    sandbox: Sandbox, here: Host, there: Host, source: Path, packed: str
) -> None:
    before = described(source)
    replace_tool(sandbox, "node1", "tar", f'{packed}; kill -s KILL -- "-$(ps -o pgid= $$ | tr -d " ")"')
    with pytest.raises((HostUnreachable, CommandFailed)):
        directories.move(here, DIRECTORY, there, DIRECTORY)
    nothing_lost(source, before, below(sandbox, "node2", DIRECTORY))


def test_a_source_that_hangs_over_the_removal_is_named_and_the_target_has_everything(
    sandbox: Sandbox, here: Host, there: Host, source: Path
) -> None:
    before = described(source)
    replace_tool(sandbox, "node1", "rm", "sleep 60")
    slow = here._replace(settings=here.settings._replace(command_timeout_seconds=1))
    with pytest.raises(HostUnreachable, match=r"Removing .* failed: host node1 has not done it in 1 s") as failure:
        directories.move(slow, DIRECTORY, there, DIRECTORY)
    assert failure.value.host == "node1"
    assert described(below(sandbox, "node2", DIRECTORY)) == before


@pytest.mark.parametrize("dead", ["node1", "node2"])
def test_a_host_that_does_not_answer_is_named_and_nothing_is_lost(
    sandbox: Sandbox, here: Host, there: Host, source: Path, dead: str
) -> None:
    before = described(source)
    sandbox.refuse_ssh(dead)
    try:
        with pytest.raises(HostUnreachable) as failure:
            directories.move(here, DIRECTORY, there, DIRECTORY)
    finally:
        sandbox.refuse_ssh(dead, False)
    assert failure.value.host == dead
    nothing_lost(source, before, below(sandbox, "node2", DIRECTORY))


class Interrupted(BaseException):
    """What a signal raises."""


def test_an_action_that_is_stopped_on_the_way_loses_nothing(sandbox: Sandbox, source: Path) -> None:
    before = described(source)
    replace_tool(sandbox, "node1", "tar", "/usr/bin/tar -cf - plain folder; sleep 60")

    def interrupt(_: int, __: Optional[FrameType]) -> NoReturn:
        raise Interrupted

    handler = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.7)
    here, there = (host(sandbox, name, in_use_timeout_seconds=1) for name in ("node1", "node2"))
    try:
        with pytest.raises(Interrupted):
            directories.move(here, DIRECTORY, there, DIRECTORY)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    nothing_lost(source, before, below(sandbox, "node2", DIRECTORY))


@pytest.mark.parametrize(
    "directory", ["/", "/var/lib/one", "/var/lib/one/datastores", "/etc/7", "", "relative", "/a/b/c"]
)
def test_only_a_vms_directory_is_ever_removed(sandbox: Sandbox, here: Host, source: Path, directory: str) -> None:
    before = described(source)
    with pytest.raises(CommandFailed, match="is not a VM's directory"):
        directories.remove(here, directory)
    assert described(source) == before


def test_removing_tells_what_was_linked_and_removing_again_is_done(here: Host, source: Path) -> None:
    assert len(directories.remove(here, DIRECTORY)) == 2
    assert not source.exists()
    assert directories.remove(here, DIRECTORY) == []


def test_removing_a_directory_removes_nothing_behind_its_links(
    sandbox: Sandbox, here: Host, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("x")
    (source / "outside").symlink_to(tmp_path)
    directories.remove(here, DIRECTORY)
    assert (tmp_path / "precious").exists()


# The pytest that Python 3.9 has names a test by all of its bytes: processes that drew others found different tests.
@pytest.mark.parametrize(
    "content", [b"", b"x", b"0\n5\n" * 100, os.urandom(3 << 20)], ids=["nothing", "a byte", "numbers", "much"]
)
@pytest.mark.parametrize("name", ["disk.4", "a blank\nand '$(x)'"])
def test_a_file_is_put_on_a_host(sandbox: Sandbox, here: Host, name: str, content: bytes) -> None:
    directories.write_file(here, f"{DIRECTORY}/{name}", [content[:5], b"", content[5:]])
    assert {path.name: path.read_bytes() for path in below(sandbox, "node1", DIRECTORY).iterdir()} == {name: content}


def test_a_file_in_use_is_replaced_at_once(sandbox: Sandbox, here: Host) -> None:
    path = below(sandbox, "node1", f"{DIRECTORY}/disk.4")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    with path.open("rb") as file:
        directories.write_file(here, f"{DIRECTORY}/disk.4", [b"new"])
        assert file.read() == b"old", "who has it open goes on with what it opened"
    assert path.read_bytes() == b"new"


def test_a_file_that_cannot_be_put_leaves_nothing(sandbox: Sandbox, here: Host) -> None:
    path = below(sandbox, "node1", f"{DIRECTORY}/disk.4")
    path.mkdir(parents=True)
    (path / "x").write_text("not empty")
    with pytest.raises(CommandFailed, match=f"Copying {DIRECTORY}/disk.4"):
        directories.write_file(here, f"{DIRECTORY}/disk.4", [b"new" * 1000])
    assert [found.name for found in path.parent.iterdir()] == ["disk.4"]


def test_a_file_whose_making_fails_in_the_middle_leaves_nothing(sandbox: Sandbox, here: Host) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise KeyError

    with pytest.raises(KeyError):
        directories.write_file(here, f"{DIRECTORY}/disk.4", broken())
    top = below(sandbox, "node1", DIRECTORY)
    assert not top.exists() or list(top.iterdir()) == []


def test_a_link_in_the_way_of_a_new_file_is_not_written_through(sandbox: Sandbox, here: Host, source: Path) -> None:
    other = below(sandbox, "node1", "/var/tmp/other")
    other.write_bytes(b"somebody's")
    (source / ".disk.4.new").symlink_to(other)
    directories.write_file(here, f"{DIRECTORY}/disk.4", [b"new"])
    assert other.read_bytes() == b"somebody's"
    assert (source / "disk.4").read_bytes() == b"new" and not (source / "disk.4").is_symlink()
    other.unlink()


@pytest.mark.parametrize("transport", [directories.move, directories.copy])
@pytest.mark.parametrize("target_host", ["node1", "node2"])
def test_a_link_in_the_way_of_what_arrives_is_not_written_through(
    sandbox: Sandbox, source: Path, transport: Callable[[Host, str, Host, str], object], target_host: str
) -> None:
    before = described(source)
    target = below(sandbox, target_host, f"{DATASTORES}/101/7")
    target.mkdir(parents=True)
    other = below(sandbox, target_host, "/var/tmp/other")
    other.write_bytes(b"somebody's")
    for name in ("disk.4", "plain"):
        (target / name).symlink_to(other)
    transport(host(sandbox, "node1"), DIRECTORY, host(sandbox, target_host), f"{DATASTORES}/101/7")
    assert other.read_bytes() == b"somebody's"
    assert described(target) == before
    other.unlink()


@pytest.mark.parametrize("target_host", ["node1", "node2"])
def test_a_link_in_the_way_of_a_folder_does_not_lead_what_is_in_it_elsewhere(
    sandbox: Sandbox, source: Path, target_host: str
) -> None:
    target = below(sandbox, target_host, f"{DATASTORES}/101/7")
    target.mkdir(parents=True)
    other = below(sandbox, target_host, "/var/tmp/other")
    other.mkdir()
    (target / "folder").symlink_to(other)
    there = host(sandbox, target_host)
    if target_host == "node1":
        # cp does not take a link away for a folder, and says so.
        with pytest.raises(CommandFailed, match="folder"):
            directories.move(there, DIRECTORY, there, f"{DATASTORES}/101/7")
        assert source.exists()
    else:
        directories.move(host(sandbox, "node1"), DIRECTORY, there, f"{DATASTORES}/101/7")
        assert (target / "folder" / "deeper").is_dir() and not (target / "folder").is_symlink()
    assert list(other.iterdir()) == []
    other.rmdir()
