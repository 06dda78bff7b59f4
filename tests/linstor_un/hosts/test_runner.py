"""Running scripts on hosts: values arrive as they are, failures as sentences, and nothing goes on unobserved."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linstor_sandbox import Pool, Sandbox
from linstor_un.errors import CommandFailed, HostUnreachable, MissingDependency
from linstor_un.hosts.runner import Host, Step, host, is_frontend, joined
from linstor_un.settings import Settings
from linstor_un.undo import STOPPING_SIGNALS
from linstor_un.units import MIB

HERE = Host("onefe", Settings(in_use_timeout_seconds=5), is_frontend=True)
SHOW = Step('for value; do printf "%s\\036" "$value"; done', ())
# What a C string can hold, and what a decoder gives back.
TEXTS = st.text(st.characters(exclude_characters="\x00\x1e", exclude_categories=["Cs"]), max_size=40)
NASTY = (
    "",
    " ",
    "a b  c",
    "\n",
    "trailing newline\n",
    "$(touch canary)",
    "`touch canary`",
    "${HOME}",
    "'",
    '"',
    "'\"'\"'",
    "\\",
    "a;b&c|d>e<f",
    "*",
    "?[a]",
    "~",
    "-n",
    "--",
    "!history",
    "%s",
    "\u65e5\u672c\u8a9e",
    "\x07\x1b[31m",
    "#comment",
    "key=value",
)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Return hosts that are reached over ssh."""
    with Sandbox(
        tmp_path_factory.mktemp("runner"), nodes=("node1", "node2"), pools=(Pool("data", "LVM_THIN"),)
    ) as made:
        yield made


@pytest.fixture
def remote(sandbox: Sandbox) -> Host:
    """Return a host that is reached over ssh."""
    return remote_host(sandbox, "node1")


def remote_host(sandbox: Sandbox, name: str) -> Host:
    """Return a host of the sandbox by its name."""
    ssh = (str(sandbox.root / "bin" / "ssh"),)
    return Host(name, Settings(ssh=ssh, in_use_timeout_seconds=5))


@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_whatever_a_value_is_it_arrives_as_it_is(values: list[str]) -> None:
    printed = HERE.run("Showing", SHOW._replace(values=tuple(values)))
    assert printed.split("\x1e")[:-1] == values


@settings(max_examples=40)
@given(st.lists(st.lists(TEXTS, max_size=5), min_size=2, max_size=5))
def test_each_step_gets_its_own_values(steps: list[list[str]]) -> None:
    printed = HERE.run("Showing", *(SHOW._replace(values=tuple(values)) for values in steps))
    assert printed.split("\x1e")[:-1] == [value for values in steps for value in values]


def test_values_arrive_over_ssh_as_they_are(remote: Host, sandbox: Sandbox) -> None:
    before = sandbox.snapshot_of_state()["files"]
    assert remote.run("Showing", SHOW._replace(values=NASTY)).split("\x1e")[:-1] == list(NASTY)
    assert sandbox.snapshot_of_state()["files"] == before


def test_values_that_are_no_text_are_written_out() -> None:
    assert HERE.run("Showing", SHOW._replace(values=(7, Path("/a b")))) == "7\x1e/a b\x1e"


def test_many_values_are_no_obstacle() -> None:
    steps = [Step('printf "%s %s\\n" "$1" "${12}"', tuple(range(first, first + 12))) for first in (0, 12, 24)]
    assert HERE.run("Showing", *steps).splitlines() == ["0 11", "12 23", "24 35"]


def test_several_steps_travel_in_one_connection(remote: Host, sandbox: Sandbox) -> None:
    sandbox.clear_connections()
    assert remote.run("Counting", Step("echo 1", ()), Step('echo "$1"', (2,))) == "1\n2\n"
    assert len(sandbox.connections) == 1


@pytest.mark.parametrize("failing", ["false", "exit 3", "echo why >&2; false", "none-such-program", '[ "$1" = 2 ]'])
def test_steps_stop_at_the_first_that_fails(tmp_path: Path, failing: str) -> None:
    mark = tmp_path / "mark"
    steps = [Step('echo 1 >>"$1"', (mark,)), Step(failing, (1,)), Step('echo 3 >>"$1"', (mark,))]
    with pytest.raises((CommandFailed, MissingDependency)):
        HERE.run("Doing it", *steps)
    assert mark.read_text() == "1\n"


def test_a_step_changes_nothing_for_the_next() -> None:
    first = Step("set -- other values", ("a",))
    assert HERE.run("Showing", first, Step('echo "$1"', ("b",))) == "b\n"


def test_a_joined_step_can_be_joined_again() -> None:
    inner = joined([Step('echo "$1"', (1,)), Step('echo "$1"', (2,))])
    assert HERE.run("Showing", inner, Step('echo "$1"', (3,))) == "1\n2\n3\n"


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("exit 1", CommandFailed, "Doing it on onefe failed: exit status 1; correct that and retry"),
        ("echo no room >&2; exit 1", CommandFailed, "Doing it on onefe failed: no room; correct that and retry"),
        ("printf 'a\\n\\n  b' >&2; exit 9", CommandFailed, "Doing it on onefe failed: a b; correct that and retry"),
        ("exit 255", CommandFailed, "exit status 255"),
        ("echo $unset", CommandFailed, "unset"),
        (
            "none-such-program",
            MissingDependency,
            "a program is missing on onefe .*none-such-program.*; install it there",
        ),
        ("printf '\\377\\376' >&2; exit 1", CommandFailed, "\ufffd"),
    ],
)
def test_a_failure_is_a_sentence(script: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        HERE.run("Doing it", Step(script, ()))


def test_a_long_complaint_is_cut_to_its_end() -> None:
    with pytest.raises(CommandFailed) as failure:
        HERE.run("Doing it", Step("seq 100000 >&2; exit 1", ()))
    assert "99999 100000; correct" in str(failure.value)
    assert len(str(failure.value)) < 700


def test_much_output_and_many_complaints_do_not_block_each_other() -> None:
    printed = HERE.run("Doing it", Step("seq 50000; seq 50000 >&2; seq 3", ()))
    assert printed.endswith("50000\n1\n2\n3\n")


def test_output_that_is_not_utf8_is_replaced() -> None:
    assert HERE.run("Showing", Step("printf '\\377x'", ())) == "\ufffdx"


def test_programs_of_the_system_administrator_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert ":/usr/sbin:/sbin" in HERE.run("Showing", Step('echo "$PATH"', ()))


def test_messages_are_in_one_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert HERE.run("Showing", Step('echo "$LC_ALL"', ())) == "C\n"


@pytest.mark.parametrize("name", ["node9", "node2"])
def test_a_host_that_does_not_answer_is_named_with_the_remedy(sandbox: Sandbox, name: str) -> None:
    sandbox.set_node("node2", online=False)
    try:
        with pytest.raises(HostUnreachable) as failure:
            remote_host(sandbox, name).run("Linking disk 0", Step("exit 0", ()))
    finally:
        sandbox.set_node("node2", online=True)
    assert failure.value.host == name
    assert str(failure.value).startswith(f"Linking disk 0 failed: host {name} does not answer over ssh (ssh: ")
    assert f"let `ssh {name}` work" in str(failure.value)


def test_ssh_never_asks_and_never_waits_for_ever(tmp_path: Path) -> None:
    ssh = tmp_path / "my ssh"
    ssh.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >"$0.arguments"\n')
    ssh.chmod(0o755)
    Host("node1", Settings(ssh=(str(ssh), "-p", "2222"), ssh_connect_timeout_seconds=7)).run("Doing", Step("exit", ()))
    arguments = Path(f"{ssh}.arguments").read_text()
    assert arguments.startswith("-p\n2222\n-o\nBatchMode=yes\n-o\nConnectTimeout=7\n")
    assert "\nnode1\n" in arguments


def test_an_ssh_that_is_not_there_is_to_be_installed() -> None:
    with pytest.raises(MissingDependency, match="install it"):
        Host("node1", Settings(ssh=("/nowhere/ssh",))).run("Doing", Step("exit", ()))


@pytest.mark.parametrize(
    ("name", "configured", "is_own"),
    [
        ("localhost", "", True),
        ("LOCALHOST", "", True),
        (os.uname().nodename, "", True),
        (os.uname().nodename.upper(), "", True),
        (os.uname().nodename.split(".")[0], "", True),
        ("onefe.example.org", "onefe.example.org", True),
        ("onefe", "onefe.example.org", True),
        ("onefe.example.org", "onefe", False),
        ("node1", "onefe", False),
        ("node1", "", False),
    ],
)
def test_the_front_end_is_known_by_its_names(name: str, configured: str, is_own: bool) -> None:
    wanted = Settings(frontend_hostname=configured)
    assert is_frontend(name, wanted) is is_own
    assert host(name, wanted).is_frontend is is_own


class Interrupted(BaseException):
    """What a signal raises, as in the frame round every action."""


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise Interrupted in the block."""

    def interrupt(_: int, __: Optional[FrameType]) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wait_for(path: Path) -> str:
    """Return the content of a file once there is some."""
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path} has not appeared"
        time.sleep(0.01)
    return path.read_text().strip()


def gone(process: int) -> bool:
    """Tell whether a process has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if "State:\tZ" in Path(f"/proc/{process}/status").read_text():
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("where", ["front-end", "ssh"])
def test_a_script_ends_with_the_action_that_started_it(tmp_path: Path, sandbox: Sandbox, where: str) -> None:
    runner = HERE if where == "front-end" else remote_host(sandbox, "node1")
    # What it started ends as well, and it never gets to its next command.
    script = 'sh -c "echo \\$\\$ >$1/pid; exec sleep 60"; echo done >"$1/done"'
    with pytest.raises(Interrupted), interrupted_after(0.5):
        runner.run("Sleeping", Step(script, (tmp_path,)))
    assert gone(int(wait_for(tmp_path / "pid")))
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("where", ["front-end", "ssh"])
def test_a_host_on_which_something_hangs_is_not_waited_for_for_ever(
    tmp_path: Path, sandbox: Sandbox, where: str
) -> None:
    runner = HERE if where == "front-end" else remote_host(sandbox, "node1")
    runner = runner._replace(settings=runner.settings._replace(command_timeout_seconds=1))
    hanging = Step('echo $$ >"$1/pid"; sleep 60', (tmp_path,))
    with pytest.raises(HostUnreachable, match="has not done it in 1 s; look there .* COMMAND_TIMEOUT") as failure:
        runner.run("Sleeping", hanging)
    assert failure.value.host == runner.name
    assert gone(int(wait_for(tmp_path / "pid")))
    assert runner.run("Working", Step("sleep 1.5; echo done", (), is_long=True)) == "done\n"
    assert joined([Step("true", ()), Step("true", (), is_long=True)]).is_long


def test_a_script_of_the_front_end_ends_however_little_its_action_can_be_stopped() -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING_SIGNALS}
    try:
        feed = HERE.feed("Storing", Step("receive; sleep 60", ()))
        feed.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert feed._process.returncode == 128 + signal.SIGTERM


def test_a_script_that_takes_nothing_any_more_can_be_stopped() -> None:
    runner = HERE._replace(settings=HERE.settings._replace(in_use_timeout_seconds=1))
    feed = runner.feed("Storing", Step("exec sleep 20", ()))
    with pytest.raises(Interrupted), interrupted_after(0.5), feed:
        while True:
            feed.send(b"some of a block that is not full")
    assert feed._process.returncode == -signal.SIGKILL


RECEIVE = Step('receive >"$1.part"\nmv "$1.part" "$1"\necho stored', ())
BLOCKS = (b"", b"a", b"\x00\n0\n12\n" * 100, b"x" * 300_000, os.urandom(70_000))


@pytest.mark.parametrize("where", ["front-end", "ssh"])
def test_data_arrives_as_it_is(tmp_path: Path, sandbox: Sandbox, where: str) -> None:
    runner = HERE if where == "front-end" else remote_host(sandbox, "node1")
    with runner.feed("Storing", RECEIVE._replace(values=(tmp_path / "file",))) as feed:
        for block in BLOCKS:
            feed.send(block)
        feed.end()
        assert feed.finish() == "stored\n"
    assert (tmp_path / "file").read_bytes() == b"".join(BLOCKS)


PIECES = st.lists(st.sampled_from((bytes(MIB), b"x" * MIB, b"y" * MIB, bytes(5), b"y")), max_size=5)


@given(st.lists(PIECES, max_size=8), st.booleans())
@settings(max_examples=30, deadline=None)
def test_holes_arrive_wherever_they_are(pieces: list[list[bytes]], is_length_known: bool) -> None:
    blocks = [b"".join(some) for some in pieces]
    data = b"".join(blocks)
    with HERE.feed("Summing", Step("receive | md5sum", ())) as feed:
        left = len(data)
        for block in blocks:
            left -= len(block)
            feed.send(block, left if is_length_known else 0)
        feed.end()
        assert feed.finish().split()[0] == hashlib.md5(data).hexdigest()


LENGTHS = Step(
    """
while read -r length && [ "$length" != 0 ]; do
    echo "$length"
    [ "$length" -lt 0 ] || dd bs=1M count="$length" iflag=fullblock,count_bytes of=/dev/null status=none
done
""",
    (),
)


def test_what_will_come_for_sure_is_announced_as_far_as_no_hole_came_before() -> None:
    blocks = [b"x" * MIB] * 15 + [bytes(MIB)] * 20 + [b"y" * MIB] * 4
    with HERE.feed("Counting", LENGTHS) as feed:
        for number, block in enumerate(blocks, start=1):
            feed.send(block, (len(blocks) - number) * MIB)
        feed.end()
        told = [int(line) // MIB for line in feed.finish().split()]
    # Of the hole as much was sent as had been announced; behind it the announcements begin anew.
    assert told == [2, 4, 8, 16, -5, 2, 2]


def test_a_hole_is_told_once_and_not_sent() -> None:
    with HERE.feed("Showing", Step('head -c "$1"', (16,))) as feed:
        feed.send(b"ab")
        feed.send(bytes(3 * MIB))
        feed.send(bytes(MIB) + b"c")
        feed.stdin.flush()
        assert feed.finish() == f"2\nab-{4 * MIB}\n1\nc"


@pytest.mark.parametrize("where", ["front-end", "ssh"])
def test_half_of_the_data_is_never_taken_for_all_of_it(tmp_path: Path, sandbox: Sandbox, where: str) -> None:
    runner = HERE if where == "front-end" else remote_host(sandbox, "node1")
    storing = runner.feed("Storing", RECEIVE._replace(values=(tmp_path / "file",)))
    with pytest.raises(ValueError, match="the source broke off"), storing as feed:
        feed.send(b"x" * 100_000)
        raise ValueError("the source broke off")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("where", ["front-end", "ssh"])
def test_half_of_the_data_is_never_taken_for_all_of_it_when_the_action_is_killed(
    tmp_path: Path, sandbox: Sandbox, where: str
) -> None:
    runner = HERE if where == "front-end" else remote_host(sandbox, "node1")
    feed = runner.feed("Storing", RECEIVE._replace(values=(tmp_path / "file",)))
    feed.send(b"x" * 100_000)
    feed.stdin.close()
    feed.stop()
    assert not (tmp_path / "file").exists()


def test_the_hosts_own_complaint_wins_over_a_broken_pipe() -> None:
    failing = HERE.feed("Storing", Step("echo no room on the device >&2; exit 1", ()))
    with pytest.raises(CommandFailed, match="no room on the device"), failing as feed:
        for _ in range(1000):
            feed.send(b"x" * 65536)
        feed.end()
        feed.finish()


def test_lines_are_exchanged_while_the_script_runs() -> None:
    with HERE.feed("Talking", Step('echo ready; read -r word; echo "got $word"', ())) as feed:
        assert feed.line() == "ready"
        feed.say("it")
        assert feed.line() == "got it"
        assert feed.finish() == ""


def test_a_line_that_has_come_with_another_is_not_waited_for() -> None:
    script = "printf 'one\\ntwo\\nha'; read -r word; printf 'lf\\n'; read -r word"
    feed = HERE.feed("Talking", Step(script, ()))
    assert [feed.line(1), feed.line(1)] == ["one", "two"]
    feed.say("go on")
    assert feed.line(1) == "half"
    with pytest.raises(HostUnreachable, match="has not done it in 1 s"), feed:
        feed.line(1)


def test_what_is_left_of_lines_is_what_else_was_printed() -> None:
    with HERE.feed("Talking", Step("printf 'one\\ntwo\\nthree'; read -r word; echo four", ())) as feed:
        assert feed.line() == "one"
        feed.say("go on")
        assert feed.finish() == "two\nthreefour\n"


def test_nothing_stays_behind_of_a_script(tmp_path: Path) -> None:
    script = Step('echo "$$" >"$1/pid"', (tmp_path,))
    HERE.run("Doing it", script)
    session = int(wait_for(tmp_path / "pid"))
    deadline = time.monotonic() + 20
    while subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, check=False).stdout.strip():
        assert time.monotonic() < deadline, "a process of the script is left"
        time.sleep(0.02)
