"""Running a script on a host: over one ssh connection, or here where the host is the front-end.

Scripts are constants; every value is an argument, quoted once for the remote shell, so that nothing a user can type is
ever parsed by a shell.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import IO, NamedTuple, Optional, Union

from linstor_un import log
from linstor_un.errors import CommandFailed, HostUnreachable, MissingDependency
from linstor_un.settings import Settings

# Remote shells that are not login shells often lack the system administrator's directories.
_PREAMBLE = "set -eu\nPATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin\nLC_ALL=C\nexport PATH LC_ALL\n"
_SSH_FAILED = 255
_COMMAND_MISSING = 127
_Stream = Union[None, int, IO[bytes]]


class Step(NamedTuple):
    """A piece of shell with its values as $1, $2, ...; steps for one host travel in one connection."""

    script: str
    values: tuple[object, ...]


def joined(steps: Sequence[Step]) -> Step:
    """Return one step that makes all of them in their order, and stops at the first that fails."""
    script = []
    values: list[object] = []
    for number, step in enumerate(steps):
        first = len(values) + 1
        values.extend(step.values)
        parameters = " ".join(f'"${{{position}}}"' for position in range(first, len(values) + 1))
        script.append(f"step_{number}() {{\n{step.script}\n}}\nstep_{number} {parameters}\n")
    return Step("".join(script), tuple(values))


class Host(NamedTuple):
    """A host as OpenNebula names it; `is_frontend` where that is this machine."""

    name: str
    settings: Settings
    is_frontend: bool = False

    def run(self, what: str, *steps: Step) -> str:
        """Run the steps in one connection and return what they printed.

        `what` begins the sentence of a failure, for example `Linking disk 0`. The script comes on stdin.
        Raises HostUnreachable, MissingDependency and CommandFailed.
        """
        step = steps[0] if len(steps) == 1 else joined(steps)
        command = self._command("sh -s --", step.values)
        return self._finish(what, self._start(command, subprocess.PIPE), (_PREAMBLE + step.script).encode())

    def feed(self, what: str, step: Step) -> Feed:
        """Start the step with its stdin open for data; its script travels as a quoted argument."""
        return Feed(self, what, self.start(step))

    def start(self, step: Step) -> subprocess.Popen[bytes]:
        """Start the step with all its streams open; its script travels as a quoted argument."""
        return self._start(
            self._command(f"sh -c {shlex.quote(_PREAMBLE + step.script)} sh", step.values), subprocess.PIPE
        )

    def _command(self, shell: str, values: tuple[object, ...]) -> list[str]:
        command = " ".join([shell, *(shlex.quote(str(value)) for value in values)])
        if self.is_frontend:
            return ["sh", "-c", command]
        timeout = self.settings.ssh_connect_timeout_seconds
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={timeout}"]
        # A host that dies in the middle is noticed; a command may take as long as it needs.
        options += ["-o", f"ServerAliveInterval={timeout}", "-o", "ServerAliveCountMax=3"]
        return [*self.settings.ssh, *options, self.name, command]

    def _start(self, command: list[str], standard_input: _Stream) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(command, stdin=standard_input, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as failure:
            raise MissingDependency(f"{command[0]} cannot be run on the front-end ({failure}): install it") from None

    def _finish(self, what: str, process: subprocess.Popen[bytes], data: Optional[bytes]) -> str:
        try:
            output, errors = process.communicate(data)
        except BaseException:
            process.kill()
            process.wait()
            raise
        self.judge(what, process.returncode, errors)
        return output.decode("utf-8", "replace")

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


class Feed:
    """A running script that takes data on its stdin."""

    def __init__(self, host: Host, what: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.stdin = process.stdin
        self.stdout = process.stdout
        self._host = host
        self._what = what
        self._process = process

    def finish(self) -> str:
        """Close stdin, wait for the script and return what it printed; raises as Host.run."""
        return self._host._finish(self._what, self._process, None)

    def stop(self) -> None:
        """End the script, whose work is worth nothing any more; it gets the time to let go of what it holds."""
        try:
            self._process.communicate(timeout=self._host.settings.in_use_timeout_seconds)
        except (subprocess.TimeoutExpired, OSError):
            self._process.kill()
            self._process.wait()


def host(name: str, settings: Settings) -> Host:
    """Return the host with that name; the front-end's own names need no ssh."""
    return Host(name, settings, is_frontend(name, settings))


def is_frontend(name: str, settings: Settings) -> bool:
    """Tell whether `name` is this machine: as oned.conf calls it, or by its own name, short or full."""
    own = {os.uname().nodename, settings.frontend_hostname, "localhost"}
    names = {item.lower() for item in own if item}
    return name.lower() in names or name.lower() in {item.split(".")[0] for item in names}
