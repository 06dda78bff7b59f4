"""Running a driver's entry scripts as oned's drivers run them, and keeping a record of every call."""

from __future__ import annotations

import base64
import binascii
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

from linstor_sandbox.opennebula.errors import ActionFailed


@dataclass(frozen=True)
class Call:
    """One run of an entry script; `kind` is datastore, tm or vmm, `counts` what the meters counted while it ran."""

    kind: str
    verb: str
    argv: list[str]
    stdin: str
    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """The script exited with 0."""
        return self.exit_code == 0

    @property
    def action_data(self) -> str:
        """The XML that the script was given in argv or stdin, decoded; empty when there was none."""
        if self.stdin.startswith("<"):
            return self.stdin
        encoded = self.stdin or (self.argv[0] if self.argv and len(self.argv[0]) > 100 else "")
        try:
            return base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""

    @property
    def argv_shown(self) -> list[str]:
        """The arguments with action data cut short, for people."""
        return [argument if len(argument) <= 100 else f"{argument[:12]}..." for argument in self.argv]


Observer = Callable[[Call], None]
# Runs a script to its end and returns exit code, stdout and stderr; meanwhile its process id is in the list.
Launch = Callable[[Sequence[str], str, Mapping[str, str], Path, Optional[float], list[int]], tuple[int, str, str]]
Meter = Callable[[], int]


def launch(
    command: Sequence[str],
    stdin: str,
    environment: Mapping[str, str],
    directory: Path,
    timeout: Optional[float],
    running: list[int],
) -> tuple[int, str, str]:
    """Run a script as a process; raises subprocess.TimeoutExpired."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=dict(environment),
        cwd=directory,
    ) as process:
        running.append(process.pid)
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            # Ends the script itself; what it started is not ours to find.
            process.kill()
            raise
        finally:
            running.remove(process.pid)
    return (process.returncode if process.returncode >= 0 else 255), stdout, stderr


@dataclass
class Scripts:
    """The entry scripts below a remotes folder; `environment` and `directory` are what oned's drivers have.

    A meter is a counter that grows (REST calls, ssh connections); it is right only while one script runs at a time.
    `running` are the processes of the scripts that run now.
    """

    remotes: Path
    environment: Mapping[str, str]
    directory: Path
    calls: list[Call] = field(default_factory=list)
    meters: dict[str, Meter] = field(default_factory=dict)
    observers: list[Observer] = field(default_factory=list)
    timeout: Optional[float] = None
    running: list[int] = field(default_factory=list)
    launch: Launch = launch

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def datastore(self, mad: str, verb: str, argv: Sequence[str], stdin: str) -> Call:
        """Run datastore/MAD/VERB as one_datastore does."""
        return self._run("datastore", verb, self.remotes / "datastore" / mad / verb, argv, stdin)

    def system_monitor(self, mad: str, argv: Sequence[str], stdin: str) -> Call:
        """Run tm/MAD/monitor as one_datastore does for a shared system datastore."""
        return self._run("tm", "monitor", self.remotes / "tm" / mad / "monitor", argv, stdin)

    def transfer(self, lines: Sequence[str]) -> None:
        """Run the lines of a transfer script one after the other; the first failure ends it with ActionFailed."""
        for line in lines:
            call = self.transfer_line(line)
            if not call.succeeded:
                raise ActionFailed(call)

    def transfer_line(self, line: str) -> Call:
        """Run one line: split at blanks, verb in small letters, `clone.ssh` falls back to `clone`."""
        verb, mad, *argv = line.split()
        verb = verb.lower()
        script = self.remotes / "tm" / mad / verb
        if not script.exists():
            unsuffixed = script.with_name(verb.rpartition(".")[0] or verb)
            if not unsuffixed.exists():
                return self._missing(verb, argv, script, unsuffixed)
            script = unsuffixed
        return self._run("tm", verb, script, argv, "")

    def migration(self, mad: str, verb: str, argv: Sequence[str], stdin: str) -> Call:
        """Run tm/MAD/VERB of a live migration as one_vmm_exec does: the VM comes on stdin."""
        script = self.remotes / "tm" / mad / verb
        if not script.exists():
            return self._missing(verb, list(argv), script, script)
        return self._run("tm", verb, script, argv, stdin)

    def has_local_action(self, verb: str) -> bool:
        """Whether an override of a hypervisor's action is installed on the front-end (`-l save=save_linstor_un`)."""
        return (self.remotes / "vmm" / "kvm" / verb).exists()

    def local_action(self, verb: str, argv: Sequence[str], stdin: str) -> Call:
        """Run vmm/kvm/VERB on the front-end, as one_vmm_exec does with overrides."""
        return self._run("vmm", verb, self.remotes / "vmm" / "kvm" / verb, argv, stdin)

    def _missing(self, verb: str, argv: list[str], script: Path, unsuffixed: Path) -> Call:
        reason = f"Driver path '{script}' does not exists"
        if unsuffixed != script:
            reason = f"Driver path '{script}' nor '{unsuffixed}' exists"
        return self._record(Call("tm", verb, argv, "", 255, "", reason, 0.0))

    def _run(self, kind: str, verb: str, script: Path, argv: Sequence[str], stdin: str) -> Call:
        before, started = self._counted(), time.monotonic()
        exit_code, stdout, stderr = self.execute(script, argv, stdin)
        seconds = time.monotonic() - started
        counts = {name: count - before[name] for name, count in self._counted().items()}
        return self._record(Call(kind, verb, list(argv), stdin, exit_code, stdout, stderr, seconds, counts))

    def execute(self, script: Path, argv: Sequence[str], stdin: str) -> tuple[int, str, str]:
        """Run a script; its exit code, 255 for a signal, and what it printed."""
        command = [str(script), *argv]
        return self.launch(command, stdin, self.environment, self.directory, self.timeout, self.running)

    def _counted(self) -> dict[str, int]:
        return {name: meter() for name, meter in self.meters.items()}

    def _record(self, call: Call) -> Call:
        with self._lock:
            self.calls.append(call)
            for observer in self.observers:
                observer(call)
        return call


def copy(drivers: Path, remotes: Path) -> None:
    """Make a remotes folder that has the drivers of another, to which others can be added."""
    remotes.mkdir()
    for path in drivers.iterdir():
        if path.name in ("datastore", "tm", "vmm"):
            shutil.copytree(path, remotes / path.name)
        elif path.name == "lib":
            (remotes / path.name).symlink_to(path)
