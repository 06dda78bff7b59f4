"""Running a script on a host: over one ssh connection, or here where the host is the front-end.

Scripts are constants; every value is an argument, quoted once for the remote shell, so that nothing a user can type is
ever parsed by a shell.
"""

from __future__ import annotations

import os
import select
import shlex
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import IO, NamedTuple, Optional

from linstor_un import log
from linstor_un.errors import CommandFailed, HostUnreachable, MissingDependency
from linstor_un.hosts.pipes import widen
from linstor_un.settings import Settings
from linstor_un.undo import undisturbed

# Remote shells that are not login shells often lack the system administrator's directories.
#
# ssh leaves a script running when it dies itself, and the volume that the script writes to stays open for ever. So
# stdin is a lifeline: each script leads a session of its own, and when stdin ends before its time, that session ends.
_PREAMBLE = """set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
exec 3<&0
watch() {
    (cat <&3 >/dev/null 2>&1; kill -s TERM -- "-$$") >/dev/null 2>&1 &
}
give_up() {
    kill -s TERM -- "-$$"
    exit 1
}
receive() {
    while read -r length; do
        case $length in
        0) return 0 ;;
        -*) dd if=/dev/zero bs=128k count="${length#-}" iflag=count_bytes status=none ;;
        *) dd bs=128k count="$length" iflag=fullblock,count_bytes status=none ;;
        esac
    done
    give_up
}
"""
_WATCHED = "watch\nexec </dev/null\n"
# The least that is a hole: what is shorter costs more to be told than to be sent.
_HOLE = bytes(1 << 20)
# The least that is worth to begin anew behind it: what is shorter is made and passed on in less time.
_LONG_HOLE_BYTES = 32 << 20
# The most that is announced before it is there, since what of it is zero is sent too.
_MOST_ANNOUNCED_BYTES = 64 << 20
_BLOCK_BYTES = 64 << 10
_SSH_FAILED = 255
_COMMAND_MISSING = 127


class Step(NamedTuple):
    """A piece of shell with its values as $1, $2, ...; steps for one host travel in one connection.

    `is_long` where it takes as long as there is much to write.
    """

    script: str
    values: tuple[object, ...]
    is_long: bool = False


def joined(steps: Sequence[Step]) -> Step:
    """Return one step that makes all of them in their order, and stops at the first that fails."""
    script = []
    values: list[object] = []
    for number, step in enumerate(steps):
        first = len(values) + 1
        values.extend(step.values)
        parameters = " ".join(f'"${{{position}}}"' for position in range(first, len(values) + 1))
        script.append(f"step_{number}() {{\n{step.script}\n}}\nstep_{number} {parameters}\n")
    return Step("".join(script), tuple(values), any(step.is_long for step in steps))


class Host(NamedTuple):
    """A host as OpenNebula names it; `is_frontend` where that is this machine."""

    name: str
    settings: Settings
    is_frontend: bool = False

    def run(self, what: str, *steps: Step) -> str:
        """Run the steps in one connection and return what they printed.

        `what` begins the sentence of a failure, for example `Linking disk 0`.
        Raises HostUnreachable, MissingDependency and CommandFailed.
        """
        step = steps[0] if len(steps) == 1 else joined(steps)
        log.doing(f"{what} on {self.name}")
        longest = None if step.is_long else self.settings.command_timeout_seconds
        return self._finish(what, self.start(step._replace(script=_WATCHED + step.script)), longest)

    def feed(self, what: str, step: Step, leaves_out_holes: bool = False) -> Feed:
        """Start the step with its stdin open for data, which it takes with `receive`.

        One that `leaves_out_holes` reads how long the next one is, `receive`s what follows it, and so on until `end`.
        """
        log.doing(f"{what} on {self.name}")
        process = self.start(step)
        widen(process.stdin)
        return Feed(self, what, process, leaves_out_holes)

    def start(self, step: Step) -> subprocess.Popen[bytes]:
        """Start the step with all its streams open; its script travels as a quoted argument.

        What this process ignores, to go on undisturbed, a script of the front-end must not: it ends by signals.
        """
        shell = f"setsid -w sh -c {shlex.quote(_PREAMBLE + step.script)} sh"
        command = " ".join([shell, *(shlex.quote(str(value)) for value in step.values)])
        words, stream = self._command(command), subprocess.PIPE
        try:
            with undisturbed() if self.is_frontend else nullcontext():
                return subprocess.Popen(words, stdin=stream, stdout=stream, stderr=stream)
        except OSError as failure:
            raise MissingDependency(f"ssh cannot be run on the front-end ({failure}): install it") from None

    def _command(self, command: str) -> list[str]:
        if self.is_frontend:
            return ["sh", "-c", command]
        timeout = self.settings.ssh_connect_timeout_seconds
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={timeout}"]
        # A host that dies in the middle is noticed; a command may take as long as it needs.
        options += ["-o", f"ServerAliveInterval={timeout}", "-o", "ServerAliveCountMax=3"]
        return [*self.settings.ssh, *options, self.name, command]

    def _finish(self, what: str, process: subprocess.Popen[bytes], longest_seconds: Optional[int] = None) -> str:
        """Wait for the script, whose stdin stays open as long as it works."""
        lifeline, process.stdin = process.stdin, None
        assert lifeline is not None
        try:
            output, errors = process.communicate(timeout=longest_seconds)
        except subprocess.TimeoutExpired:
            process.stdin = lifeline
            self.stop(process)
            raise self.overdue(what) from None
        except BaseException:
            process.stdin = lifeline
            self.stop(process)
            raise
        finally:
            _close(lifeline)
        self.judge(what, process.returncode, errors)
        return output.decode("utf-8", "replace")

    def overdue(self, what: str, longest_seconds: Optional[int] = None) -> HostUnreachable:
        """Return the error for what has taken longer than that, or than COMMAND_TIMEOUT."""
        remedy = "or raise COMMAND_TIMEOUT in linstor_un.conf" if longest_seconds is None else "and retry"
        return HostUnreachable(
            f"{what} failed: host {self.name} has not done it in "
            f"{longest_seconds or self.settings.command_timeout_seconds} s; look there for what hangs (storage, "
            f"libvirt, a network file system), {remedy}",
            self.name,
        )

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a script whose work is worth nothing any more, and give it the time to let go of what it holds open."""
        if process.stdin is not None and not process.stdin.closed:
            # What is still to be sent may wait for somebody who reads nothing any more.
            os.set_blocking(process.stdin.fileno(), False)
            _close(process.stdin)
        process.stdin = None
        try:
            process.communicate(timeout=self.settings.in_use_timeout_seconds)
        except (subprocess.TimeoutExpired, ValueError):
            process.kill()
            process.wait()

    def judge(self, what: str, status: int, errors: bytes) -> None:
        """Raise what the exit status of a script on this host means; nothing for success."""
        reason = " ".join(errors.decode("utf-8", "replace").split())[-500:]
        log.debug(f"{what} on {self.name}: status {status} {reason}")
        if status == 0:
            return
        if status == _SSH_FAILED and not self.is_frontend:
            raise HostUnreachable(
                f"{what} failed: host {self.name} does not answer over ssh ({reason or 'no reason given'}); bring it "
                f"back, or let `ssh {self.name}` work for the user that runs the driver",
                self.name,
            )
        if status == _COMMAND_MISSING:
            raise MissingDependency(f"{what} failed: a program is missing on {self.name} ({reason}); install it there")
        raise CommandFailed(
            f"{what} on {self.name} failed: {reason or f'exit status {status}'}; correct that and retry"
        )


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except (BrokenPipeError, BlockingIOError):
        pass


class Feed:
    """A running script that takes data on its stdin, in blocks with their lengths, and knows when it has all of it.

    For a `with` block: leaving it by an error ends the script; where the error is that nobody reads, the script's own
    complaint is raised instead.
    """

    def __init__(self, host: Host, what: str, process: subprocess.Popen[bytes], leaves_out_holes: bool = False) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.stdin = process.stdin
        self.stdout = process.stdout
        self._host = host
        self._what = what
        self._process = process
        self._leaves_out_holes = leaves_out_holes
        self._has_begun = False
        # What was passed on and is not told yet: long holes come in many blocks.
        self._hole_bytes = 0
        # What was told and is not passed on yet; and how much has come since the last hole.
        self._announced_bytes = 0
        self._solid_bytes = 0
        # What has come and nobody has asked for yet: whole lines, and the beginning of one.
        self._lines: deque[bytes] = deque()
        self._rest = b""

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if isinstance(error, BrokenPipeError):
            self.finish()
            raise CommandFailed(f"{self._what} on {self._host.name} ended before it had everything: retry") from None
        if error is not None:
            self.stop()

    def send(self, block: bytes, sure_bytes: int = 0) -> None:
        """Pass on a block of data; raises BrokenPipeError where the script has ended, and `finish` then says why.

        Whole MiB of zeroes are made on the host and do not cross the network. `sure_bytes` is how many more bytes will
        come for sure: the host takes as many of them as have come since the last hole together with this block, at the
        price of what turns out to be a hole in there, since each time that it begins costs as much as a MiB.
        """
        view, start = memoryview(block), 0
        for end, is_hole in _runs(block):
            self._solid_bytes = 0 if is_hole else self._solid_bytes + end - start
            announced = min(self._announced_bytes, end - start)
            if announced:
                self.stdin.write(view[start : start + announced])
                self._announced_bytes -= announced
                start += announced
            if is_hole:
                self._hole_bytes += end - start
            elif start < end:
                more = min(sure_bytes, self._solid_bytes, _MOST_ANNOUNCED_BYTES) if end == len(block) else 0
                self._tell_hole()
                self.stdin.write(b"%d\n" % (end - start + more))
                self.stdin.write(view[start:end])
                self._announced_bytes = more
            start = end

    def end(self) -> None:
        """Say that this was all of the data."""
        self._tell_hole()
        self.say("0\nend" if self._leaves_out_holes else "0")

    def _tell_hole(self) -> None:
        length, self._hole_bytes = self._hole_bytes, 0
        if self._leaves_out_holes and (length >= _LONG_HOLE_BYTES or not self._has_begun):
            self.stdin.write(b"%s%d\n" % (b"0\n" if self._has_begun else b"", length))
            self._has_begun = True
        elif length:
            self.stdin.write(b"-%d\n" % length)

    def say(self, word: str) -> None:
        """Pass on one line, once the script waits for it."""
        self.stdin.write(word.encode() + b"\n")
        self.stdin.flush()

    def line(self, longest_seconds: Optional[int] = None) -> str:
        """Return the next line that the script prints, empty where it has ended.

        Raises HostUnreachable where nothing has come in that time.
        """
        while not self._lines:
            # Not by the stream, which may have taken more than one line: that is not waited for.
            if longest_seconds is not None and not select.select([self.stdout], [], [], longest_seconds)[0]:
                raise self._host.overdue(self._what, longest_seconds)
            block = os.read(self.stdout.fileno(), _BLOCK_BYTES)
            if not block:
                self._lines.append(self._rest)
                self._rest = b""
                break
            *lines, self._rest = (self._rest + block).split(b"\n")
            self._lines.extend(lines)
        return self._lines.popleft().decode("utf-8", "replace").strip()

    def finish(self, longest_seconds: Optional[int] = None) -> str:
        """Wait for the script and return what else it printed; raises as Host.run."""
        left = b"\n".join([*self._lines, self._rest]).decode("utf-8", "replace")
        return left + self._host._finish(self._what, self._process, longest_seconds)

    def stop(self) -> None:
        """End the script, whose work is worth nothing any more."""
        self._host.stop(self._process)


def _runs(block: bytes) -> Iterator[tuple[int, bool]]:
    """Yield where each run of holes and each of other data ends, and which it is."""
    end = 0
    while end < len(block):
        is_hole = block.startswith(_HOLE, end)
        while end < len(block) and block.startswith(_HOLE, end) == is_hole:
            end += len(_HOLE)
        yield min(end, len(block)), is_hole


def host(name: str, settings: Settings) -> Host:
    """Return the host with that name; the front-end's own names need no ssh."""
    return Host(name, settings, is_frontend(name, settings))


def is_frontend(name: str, settings: Settings) -> bool:
    """Tell whether `name` is this machine: as oned.conf calls it, or by its own name, short or full."""
    own = {os.uname().nodename, settings.frontend_hostname, "localhost"}
    names = {item.lower() for item in own if item}
    return name.lower() in names or name.lower() in {item.split(".")[0] for item in names}
