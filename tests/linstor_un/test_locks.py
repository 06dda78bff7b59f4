"""One action at a time on a volume, whatever becomes of the others."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest

from linstor_un import locks, log
from linstor_un.errors import Busy, InvalidSetting
from linstor_un.locks import Holder
from linstor_un.settings import Settings
from tests.conftest import CHECKOUT

HOLDER = """
import select, signal, sys, time
from linstor_un.locks import volume_lock
def stop(number, frame):
    raise SystemExit("stopped")
signal.signal(signal.SIGTERM, stop)
with volume_lock(sys.argv[1], "one-image-1", 5):
    try:
        print("held", flush=True)
        # A signal between the last look for one and a read would be told of only behind the read.
        while not select.select([sys.stdin], [], [], 0.05)[0]:
            pass
    finally:
        if sys.argv[2:]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(float(sys.argv[2]))
            print("cleaned up", flush=True)
"""
COUNTER = """
import os, sys
from linstor_un.locks import volume_lock
directory, counter, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
for _ in range(times):
    with volume_lock(directory, "one-image-1", 60):
        with open(counter) as file:
            value = int(file.read())
        with open(counter, "w") as file:
            file.write(str(value + 1))
"""


FULL = """
import resource, sys
from linstor_un.errors import InvalidSetting
from linstor_un.locks import shared_guest, volume_lock
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
for lock in (volume_lock(sys.argv[1], "one-image-1", 5), shared_guest(sys.argv[1], "one-image-1", "node1", 5)):
    try:
        with lock:
            print("held")
    except InvalidSetting as error:
        print(error)
"""


SIGNALLED = """
import signal, sys
from linstor_un.locks import volume_lock
def stop(number, frame):
    raise SystemExit("stopped")
signal.signal(signal.SIGTERM, stop)
sys.addaudithook(lambda event, arguments: event == "os.remove" and signal.raise_signal(signal.SIGTERM))
with volume_lock(sys.argv[1], "one-image-1", 5):
    pass
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python that has the library."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def holder(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock of one-image-1."""
    process = start(HOLDER, str(directory), *arguments)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def _log() -> None:
    log.start("test/locks")


def test_the_lock_is_a_file_while_it_is_held(tmp_path: Path) -> None:
    with locks.volume_lock(str(tmp_path), "one-image-1", 0):
        (path,) = tmp_path.iterdir()
        assert path.name == "linstor_un-one-image-1.lock"
        assert path.read_text() == str(os.getpid())
        assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []


def test_the_lock_says_what_its_holder_does(tmp_path: Path) -> None:
    settings = Settings(lock_directory=str(tmp_path))
    with locks.volume_lock(str(tmp_path), "One-image-1", 0):
        assert locks.holders(settings) == [Holder("one-image-1", os.getpid(), None, None, "")]
        log.doing("Copying much\n of it to a\tdisk")
        log.progress(5, 1 << 40)
        assert locks.holders(settings) == [
            Holder("one-image-1", os.getpid(), 5, 1 << 40, "Copying much of it to a disk")
        ]
        log.doing("Less")
        assert locks.holders(settings) == [Holder("one-image-1", os.getpid(), None, None, "Less")]
        with pytest.raises(Busy, match=f"process {os.getpid()}"), locks.volume_lock(str(tmp_path), "one-image-1", 0):
            pytest.fail("two have the lock")
    log.doing("More")
    assert locks.holders(settings) == []


def test_what_a_lock_cannot_say_stops_nobody(tmp_path: Path) -> None:
    with locks.volume_lock(str(tmp_path), "one-image-1", 0), Path(os.devnull).open() as unwritable:
        log.show_in(unwritable.fileno())
        log.doing("Writing to what cannot be written to")
        log.hide_from(unwritable.fileno())
        assert locks.holders(Settings(lock_directory=str(tmp_path)))[0].step.startswith("Writing")


def test_a_failing_action_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locks.volume_lock(str(tmp_path), "one-image-1", 0):
        raise KeyError
    with locks.volume_lock(str(tmp_path), "one-image-1", 0):
        pass


def test_one_volume_is_no_obstacle_to_another(tmp_path: Path) -> None:
    with locks.volume_lock(str(tmp_path), "one-image-1", 0), locks.volume_lock(str(tmp_path), "one-image-11", 0):
        assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["one-image-1", "ONE-Image-1"])
def test_the_wait_is_bounded_and_its_end_names_the_holder_and_the_remedy(tmp_path: Path, name: str) -> None:
    with holder(tmp_path) as other:
        with pytest.raises(Busy) as busy, locks.volume_lock(str(tmp_path), name, 0.05):
            pytest.fail("two have the lock")
        assert str(busy.value) == (
            f"Another action (process {other.pid}) has held volume {name} for more than 0.05 s: wait until it ends and "
            "retry, or raise LOCK_TIMEOUT in linstor_un.conf"
        )
        assert other.poll() is None, "a mere wait must not stop the holder"


def test_whoever_waits_gets_the_lock_when_it_is_given_back(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        waiting = start(COUNTER, str(tmp_path), write(tmp_path / "counter", "0"), "1")
        other.communicate(timeout=30)
        _, errors = waiting.communicate(timeout=30)
        assert (waiting.returncode, errors) == (0, "")


def write(path: Path, text: str) -> str:
    """Return the path of a file with this text."""
    path.write_text(text)
    return str(path)


def test_a_file_that_a_killed_action_left_is_no_obstacle(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        assert len(list(tmp_path.iterdir())) == 1, "a killed process cannot unlink its lock"
        with locks.volume_lock(str(tmp_path), "one-image-1", 0):
            assert (tmp_path / "linstor_un-one-image-1.lock").read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "not a number", "4194304999", "0", "-1", "1" * 50])
def test_whatever_is_written_in_a_stale_file_is_no_obstacle(tmp_path: Path, content: str) -> None:
    (tmp_path / "linstor_un-one-image-1.lock").write_text(content)
    with locks.volume_lock(str(tmp_path), "one-image-1", 0, interrupt_holder=True):
        pass


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "linstor_un-one-image-1.lock").symlink_to(victim)
    with pytest.raises(InvalidSetting, match="LOCK_DIR"), locks.volume_lock(str(tmp_path), "one-image-1", 0):
        pytest.fail("the link was followed")
    assert victim.read_text() == "precious"


def test_a_directory_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    wanted = rf"{missing}/linstor_un-one-image-1.lock .*LOCK_DIR"
    with pytest.raises(InvalidSetting, match=wanted), locks.volume_lock(str(missing), "one-image-1", 0):
        pytest.fail("there is no lock")


def test_a_lock_that_cannot_be_removed_is_a_warning_as_the_work_is_done(tmp_path: Path) -> None:
    with locks.volume_lock(str(tmp_path), "one-image-1", 0):
        (path,) = tmp_path.iterdir()
        path.unlink()
        path.mkdir()
    (line,) = log.lines()
    assert line.startswith(f"WARN: test/locks: the lock file {path} cannot be removed (Is a directory)"), line


def test_a_signal_while_the_lock_is_given_back_leaves_no_lock(tmp_path: Path) -> None:
    _, errors = start(SIGNALLED, str(tmp_path)).communicate(timeout=30)
    assert errors == "stopped\n"
    assert list(tmp_path.iterdir()) == []


def test_a_directory_without_room_is_a_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    process = start(FULL, str(tmp_path))
    output, errors = process.communicate(timeout=30)
    remedy = "cannot be written (File too large): free space there, or set LOCK_DIR in linstor_un.conf to a directory"
    names = ("linstor_un-one-image-1.lock", "linstor_un-one-image-1@node1.lock")
    assert errors == ""
    assert [line.partition(" that ")[0] for line in output.splitlines()] == [
        f"The lock {tmp_path}/{name} {remedy}" for name in names
    ]
    assert list(tmp_path.iterdir()) == []


def test_many_processes_never_hold_it_together_although_each_unlinks_it(tmp_path: Path) -> None:
    directory = tmp_path / "locks"
    directory.mkdir()
    counter = write(tmp_path / "counter", "0")
    processes = [start(COUNTER, str(directory), counter, "40") for _ in range(8)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    assert Path(counter).read_text() == "320"
    assert list(directory.iterdir()) == []


def test_a_delete_asks_the_holder_to_stop_and_waits_until_it_has_cleaned_up(tmp_path: Path) -> None:
    with holder(tmp_path, "0.2") as other, locks.volume_lock(str(tmp_path), "one-image-1", 30, interrupt_holder=True):
        # The holder lets go of the lock only after its clean-up.
        output, errors = other.communicate(timeout=30)
        assert output == "cleaned up\n"
        assert "stopped" in errors
    assert f"INFO: test/locks: asking process {other.pid}, which holds one-image-1, to stop" in log.lines()


def test_a_holder_that_does_not_stop_ends_the_wait(tmp_path: Path) -> None:
    lock = locks.volume_lock(str(tmp_path), "one-image-1", 0.3, interrupt_holder=True)
    with holder(tmp_path, "30"), pytest.raises(Busy), lock:
        pytest.fail("two have the lock")


SHARER = """
import sys
from linstor_un.locks import shared_guest
with shared_guest(sys.argv[1], "one-image-1", "node1", 60) as guest:
    guest.note_attached()
    print("shared", flush=True)
    sys.stdin.readline()
    print(guest.may_detach(), flush=True)
    sys.stdin.readline()
"""


def test_whoever_shares_a_volume_that_is_being_detached_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    with locks.shared_guest(str(tmp_path), "one-image-1", "node1", 1) as guest:
        guest.note_attached()
        assert guest.may_detach()
        another = locks.shared_guest(str(tmp_path), "one-image-1", "node1", 0.3)
        with pytest.raises(Busy, match="has held volume one-image-1 for more than 0.3 s"), another:
            pytest.fail("somebody reads what is being detached")


def test_it_is_told_whether_another_had_the_lock(tmp_path: Path) -> None:
    with locks.volume_lock(str(tmp_path), "one-image-1", 1) as is_contended:
        assert not is_contended
    with holder(tmp_path), locks.volume_lock(str(tmp_path), "one-image-1", 5, interrupt_holder=True) as is_contended:
        assert is_contended


def answer(process: subprocess.Popen[str]) -> str:
    """Let a sharer go on, and return what it prints."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.fixture
def sharers(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return a function that starts a process which shares one-image-1 on node1."""
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        process = start(SHARER, str(tmp_path))
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "shared\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def finish(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Let sharers end and check that they did so without complaint."""
    for process in processes:
        output, errors = process.communicate("\n", timeout=30)
        assert (process.returncode, output, errors) == (0, "", "")


def test_only_the_last_to_share_a_volume_is_the_last(
    tmp_path: Path, sharers: Callable[[], subprocess.Popen[str]]
) -> None:
    first, second, third = sharers(), sharers(), sharers()
    assert answer(second) == "False"
    assert answer(first) == "False"
    assert answer(third) == "True"
    finish([first, second, third])
    assert list(tmp_path.iterdir()) == []


def test_nobody_begins_to_share_while_the_last_one_detaches(
    tmp_path: Path, sharers: Callable[[], subprocess.Popen[str]]
) -> None:
    first = sharers()
    second = start(SHARER, str(tmp_path))
    try:
        assert second.stdout is not None
        assert second.stdout.readline() == "shared\n"
        assert (answer(first), answer(second)) == ("False", "True")
        third = start(SHARER, str(tmp_path))
        assert third.stdout is not None
        assert select.select([third.stdout], [], [], 0.3)[0] == [], "the third shares what is being detached"
        finish([first, second])
        assert third.stdout.readline() == "shared\n"
        assert answer(third) == "True"
        finish([third])
    finally:
        second.kill()
        second.communicate()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_nobody_else_holds_a_lock_or_says_which_process_does(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    lock = tmp_path / "linstor_un-one-image-1.lock"
    lock.write_text(str(bystander.pid))
    os.chown(lock, 424242, -1)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        wanted = locks.volume_lock(str(tmp_path), "one-image-1", 0.1, interrupt_holder=True)
        with pytest.raises(InvalidSetting, match="belongs to somebody else.*set LOCK_DIR"), wanted:
            pass
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_what_is_held_now_is_known(tmp_path: Path) -> None:
    settings = Settings(lock_directory=str(tmp_path))
    (tmp_path / "linstor_un-one-image-9.lock").write_text("1")
    (tmp_path / "another.lock").write_text("")
    directory = str(tmp_path)
    with locks.volume_lock(directory, "One-Image-1", 1), locks.shared_guest(directory, "one-image-2", "node1", 1):
        assert locks.held(settings) == {"one-image-1", "one-image-2"}
    assert locks.held(settings) == frozenset()
