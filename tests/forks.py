"""Entry scripts run in forks of one interpreter that has loaded all they need: a process each, without its start-up.

Two thirds of the processor's time of an action is the start of its interpreter, the same each time. Where thousands of
actions are run to see how they end and not how they start, this is left out.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Optional

import linstor_un
from tests.faults import operations

_LONGEST_MESSAGE = 1 << 20
_STANDARD_FILES = 3


@contextmanager
def forks(folder: Path, environment: Mapping[str, str]) -> Iterator[Forks]:
    """An interpreter of which scripts are forks; its processes have the environment that its folder is found by.

    The library is that of the folder's remotes, where it has such.
    """
    checkout = Path(__file__).resolve().parent.parent
    paths = os.pathsep.join(map(str, (checkout, folder / "remotes" / "lib", checkout / "lib")))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.forks", str(folder / "forks")],
        env={**environment, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdout.readline()
        try:
            yield Forks(str(folder / "forks"), server.pid)
        finally:
            server.stdin.close()


class Forks:
    """The client's side: what `Scripts.launch` wants."""

    def __init__(self, address: str, server: int) -> None:
        self.address = address
        self.server = server

    def __call__(
        self,
        command: Sequence[str],
        stdin: str,
        environment: Mapping[str, str],
        directory: Path,
        timeout: Optional[float],
        running: list[int],
    ) -> tuple[int, str, str]:
        """Run a script to its end: exit code, stdout, stderr; raises subprocess.TimeoutExpired."""
        files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        try:
            os.write(files[0], stdin.encode())
            os.lseek(files[0], 0, os.SEEK_SET)
            exit_code = self._run(command, environment, directory, timeout, running, files)
            out, err = (os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace") for file in files[1:])
            return exit_code, out, err
        finally:
            for file in files:
                os.close(file)

    def _run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        timeout: Optional[float],
        running: list[int],
        files: list[int],
    ) -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
            asked.connect(self.address)
            wanted = json.dumps([list(command), dict(environment), str(directory)]).encode()
            socket.send_fds(asked, [wanted], files)
            process = int(asked.recv(100))
            running.append(process)
            asked.settimeout(timeout)
            try:
                return int(asked.recv(100))
            except socket.timeout:
                os.kill(process, signal.SIGKILL)
                raise subprocess.TimeoutExpired(command, timeout or 0) from None
            finally:
                running.remove(process)


def _load() -> None:
    """Import what actions import, without running any of it."""
    importlib.import_module("lxml.etree")
    importlib.import_module("xmlrpc.client")
    for module in pkgutil.walk_packages(linstor_un.__path__, "linstor_un."):
        if not module.name.startswith("linstor_un.cli"):
            importlib.import_module(module.name)


def _serve(address: str) -> None:
    """Fork for who asks, until standard input is closed."""
    asked: dict[int, tuple[int, socket.socket]] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen(100)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listening, sys.stdin, *asked], [], [])
            if sys.stdin in ready:
                return
            for ended in [file for file in ready if file in asked]:
                process, client = asked.pop(ended)
                status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                os.close(ended)
                _tell(client, status if status >= 0 else 255)
                client.close()
            if listening in ready:
                client = listening.accept()[0]
                process = _start(client)
                asked[os.pidfd_open(process)] = (process, client)
                _tell(client, process)


def _tell(client: socket.socket, number: int) -> None:
    try:
        client.send(str(number).encode())
    except OSError:
        pass


def _start(client: socket.socket) -> int:
    wanted, files, _, _ = socket.recv_fds(client, _LONGEST_MESSAGE, _STANDARD_FILES)
    process = os.fork()
    if not process:
        _become(json.loads(wanted), files)
    for file in files:
        os.close(file)
    return process


def _become(wanted: tuple[list[str], dict[str, str], str], files: Sequence[int]) -> NoReturn:
    """Be the script, as if it had just been started."""
    command, environment, directory = wanted
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(_STANDARD_FILES, max(files) + 1000)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    operations.obey()
    sys.argv = list(command)
    status = 1
    try:
        runpy.run_path(command[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                status = status or 120
        os._exit(status)


if __name__ == "__main__":
    _load()
    _serve(sys.argv[1])
