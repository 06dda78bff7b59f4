"""The driver's entry scripts, run as oned's drivers run them, each with a meter beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench import imports
from bench.figures import Module, Row, medians
from bench.meter import Meter, Traffic, covered
from linstor_sandbox.opennebula.scripts import Scripts

LAUNCH = Path(__file__).with_name("launch.py")
REFERENCE = ("python3", "-c", "import lxml.etree, linstor")
_IMPORT_TIMES = "PYTHONPROFILEIMPORTTIME"
_OF_DIRECTORIES = ("mv", "delete")
# These cost the same whatever they are a part of.
_NEVER_NAMED = ("datastore/monitor", "tm/monitor", "tm/context", "tm/delete of a directory", "tm/postbackup")
# Drivers beside ours.
_OTHERS = ("rsync",)
_NS_PER_MS, _KIB_PER_MIB = 1_000_000, 1024


@dataclass(frozen=True)
class Sample:
    """One run of a script: its row, figures, what was counted by name, and what it imported where that was asked."""

    row: str
    figures: Mapping[str, float]
    requests: Counter[str]
    hosts: Counter[str]
    modules: Mapping[str, Module] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """A program that has ended, and what `launch` says of it."""

    status: int
    stdout: str
    stderr: str
    figures: Mapping[str, float]


def launch(command: Sequence[str], environment: Mapping[str, str], folder: Path, stdin: str = "") -> Ended:
    """Run a program to its end."""
    figures, written = os.pipe()
    with os.fdopen(figures, encoding="ascii") as file:
        try:
            done = _ended(
                [sys.executable, "-IS", str(LAUNCH), str(written), *command], environment, folder, stdin, written
            )
        finally:
            os.close(written)
        line = file.read().split()
    if not line:
        raise RuntimeError(f"{command[0]} cannot be run: {done.stderr}")
    status, wall, own, children, waited, peak = map(int, line)
    measured = {
        "wall_ms": wall / _NS_PER_MS,
        "cpu_ms": own / _NS_PER_MS,
        "children_cpu_ms": children / _NS_PER_MS,
        "waited_ms": waited / _NS_PER_MS,
        "memory_mib": peak / _KIB_PER_MIB,
    }
    return Ended(status, done.stdout, done.stderr, measured)


def _ended(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, stdin: str, descriptor: int
) -> subprocess.CompletedProcess[str]:
    """Run a program that has this descriptor; where we are interrupted it may take back what it has made."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=dict(environment),
        cwd=folder,
        pass_fds=[descriptor],
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(stdin)
        except BaseException:
            # It may have ended meanwhile.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.communicate()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@dataclass
class MeteredScripts(Scripts):
    """Scripts that are measured; `environment` has the ssh of `install_ssh`, `controller` is LINSTOR's address.

    Rows are named after the action and the step; with `referring` the reference runs before each, with `importing` each
    says what it imports, which costs time.
    """

    controller: str = ""
    step: str = ""
    referring: bool = False
    importing: bool = False
    samples: list[Sample] = field(default_factory=list)

    @contextmanager
    def named(self, step: str) -> Iterator[None]:
        """Let rows have this after the action's name."""
        self.step, before = step, self.step
        try:
            yield
        finally:
            self.step = before

    def execute(self, script: Path, argv: Sequence[str], stdin: str) -> tuple[int, str, str]:
        """Run a script as it is, and keep a sample of it where it has succeeded."""
        reference = self.reference() if self.referring else 0.0
        oned = self.meters["oned"]() if "oned" in self.meters else 0
        importing = {_IMPORT_TIMES: "1"} if self.importing else {}
        with Meter(_address(self.controller), self.directory) as meter:
            environment = {**self.environment, **meter.environment, **importing}
            ended = launch([str(script), *argv], environment, self.directory, stdin)
        figures = _figures(ended.figures, meter.traffic)
        if "oned" in self.meters:
            figures["oned"] = self.meters["oned"]() - oned
        if reference:
            figures["cpu_ratio"] = figures["cpu_ms"] / reference
        if ended.status == 0 and script.parent.name not in _OTHERS:
            self.samples.append(self._sample(script, argv, figures, meter.traffic, ended.stderr))
        return ended.status if ended.status >= 0 else 255, ended.stdout, imports.without(ended.stderr)

    def reference(self) -> float:
        """CPU in ms of an interpreter that has imported the driver's requirements."""
        return launch(REFERENCE, self.environment, self.directory).figures["cpu_ms"]

    def _sample(
        self, script: Path, argv: Sequence[str], figures: Mapping[str, float], traffic: Traffic, stderr: str
    ) -> Sample:
        name = f"{script.parent.parent.name}/{script.name}"
        if script.name in _OF_DIRECTORIES and not any("/disk." in argument for argument in argv):
            name += " of a directory"
        if self.step and not name.startswith(_NEVER_NAMED):
            name += f", {self.step}"
        return Sample(name, figures, traffic.requests, traffic.hosts, imports.parse(stderr) if self.importing else {})


def _address(uri: str) -> tuple[str, int]:
    parts = urlsplit(uri)
    return parts.hostname or "localhost", parts.port or 3370


def _figures(measured: Mapping[str, float], traffic: Traffic) -> dict[str, float]:
    """What is shown: `idle_ms` is the wall time in which the action neither computed nor had anything to wait for."""
    linstor, ssh = covered(traffic.linstor) * 1000, covered(traffic.ssh) * 1000
    own = measured["wall_ms"] - covered([*traffic.linstor, *traffic.ssh]) * 1000
    return {
        **measured,
        "requests": sum(traffic.requests.values()),
        "ssh": sum(traffic.hosts.values()),
        "ssh_per_host": max(traffic.hosts.values(), default=0),
        "linstor_ms": linstor,
        "ssh_ms": ssh,
        "own_ms": own,
        "idle_ms": own - measured["cpu_ms"] - measured["waited_ms"],
        "sent_bytes": traffic.sent_bytes,
        "received_bytes": traffic.received_bytes,
    }


def rows(samples: Sequence[Sample]) -> list[Row]:
    """The samples by row, in the order in which each was first seen."""
    found = {sample.row: Row(sample.row) for sample in samples}
    for name, row in found.items():
        own = [sample for sample in samples if sample.row == name]
        for sample in own:
            if sample.modules:
                row.modules.update(sample.modules)
            else:
                row.add(sample.figures)
        row.requests = medians([sample.requests for sample in own])
    return list(found.values())
