"""The frame round every action: what it does with signals, streams and a front-end that lacks something."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest

from tests.conftest import CHECKOUT
from tests.linstor_un.bench import SYSDIR, Bench, bench, document

MKFS = CHECKOUT / "datastore" / "linstor_un" / "mkfs"
CP = CHECKOUT / "datastore" / "linstor_un" / "cp"
DELETE = CHECKOUT / "tm" / "linstor_un" / "delete"
STATIONS = ("POST .*/spawn", "PUT .*/resource-definitions/one-image-7")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Return the cluster that the actions of this module are run against."""
    with bench(tmp_path_factory.mktemp("driver")) as made:
        yield made


@pytest.fixture
def unchanged(place: Bench) -> Iterator[None]:
    """Check that a test leaves everything as it was."""
    before = place.state()
    yield
    assert place.state() == before


def encoded(place: Bench, **image: str) -> bytes:
    """Return the stdin of a datastore action."""
    return base64.b64encode(place.filled(document(image).decode()).encode())


def start(
    place: Bench, command: Sequence[object], stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """Start an entry script."""
    return subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=dict(place.cloud.scripts.environment),
        cwd=place.cloud.scripts.directory,
    )


@contextmanager
def trickling_server() -> Iterator[tuple[str, threading.Event]]:
    """Offer an image that begins and never ends; the event is set once somebody reads it."""
    asked = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    connections = []

    def serve() -> None:
        try:
            while True:
                connection, _ = server.accept()
                connections.append(connection)
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 8388608\r\n\r\n" + b"x" * (5 << 20))
                asked.set()
        except OSError:
            pass

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/image", asked
    for connection in connections:
        connection.close()
    server.close()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_an_image_is_copied_takes_everything_back(place: Bench, number: signal.Signals) -> None:
    with trickling_server() as (url, asked):
        process = start(place, [CP, "7"])
        assert process.stdin is not None
        process.stdin.write(encoded(place, PATH=url))
        process.stdin.close()
        assert asked.wait(30)
        until(lambda: "one-image-7" in place.sandbox.snapshot_of_state()["resource_definitions"])
        process.send_signal(number)
        assert process.stdout is not None and process.stderr is not None
        stdout, stderr = process.stdout.read(), process.stderr.read().decode()
        assert (process.wait(30), stdout) == (1, b"")
    assert stderr.splitlines()[-1] == (
        f"The action was stopped by {number.name} and took back what it had made: run it again"
    )
    assert "took back: volume one-image-7" in stderr
    assert "Traceback" not in stderr


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is true, for at most half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it has not become true"
        time.sleep(0.01)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("after_work", [True, False])
@pytest.mark.parametrize("station", STATIONS)
def test_a_signal_while_linstor_works_takes_everything_back(place: Bench, station: str, after_work: bool) -> None:
    hanging = place.sandbox.faults.hang(station, after_work=after_work)
    process = start(place, [MKFS, "7"])
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write(encoded(place))
    process.stdin.close()
    until(lambda: hanging.remaining == 0)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    # Whether the volume is made now or was before: the action has to know when it takes back.
    hanging.release()
    stderr = process.stderr.read().decode()
    assert process.wait(30) == 1
    assert "stopped by SIGTERM" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


@pytest.mark.usefixtures("unchanged")
def test_a_second_signal_does_not_stop_the_taking_back(place: Bench) -> None:
    hanging = place.sandbox.faults.hang(STATIONS[1])
    deleting = place.sandbox.faults.hang("DELETE .*/one-image-7")
    process = start(place, [MKFS, "7"])
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write(encoded(place))
    process.stdin.close()
    until(lambda: hanging.remaining == 0)
    process.terminate()
    # It waits for the answer to what it has asked for, and then takes it back.
    hanging.release()
    until(lambda: deleting.remaining == 0)
    process.terminate()
    deleting.release()
    assert "took back: volume one-image-7" in process.stderr.read().decode()
    assert process.wait(30) == 1


def closed_pipe() -> int:
    """Return the writing end of a pipe that nobody reads, as oned leaves it when it cancels an action."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.usefixtures("unchanged")
def test_an_answer_without_stdout_takes_everything_back(place: Bench) -> None:
    process = start(place, ["sh", "-c", f"exec {MKFS} 7 1>&-"])
    _, stderr = process.communicate(encoded(place), timeout=30)
    assert process.returncode == 1
    assert "no longer waits for this action's answer" in stderr.decode().splitlines()[-1]


@pytest.mark.usefixtures("unchanged")
def test_an_answer_that_nobody_reads_takes_everything_back(place: Bench) -> None:
    pipe = closed_pipe()
    process = start(place, [MKFS, "7"], stdout=pipe)
    os.close(pipe)
    _, stderr = process.communicate(encoded(place), timeout=30)
    assert process.returncode == 1
    assert "no longer waits for this action's answer" in stderr.decode().splitlines()[-1]
    assert "Exception ignored" not in stderr.decode()


@pytest.mark.usefixtures("unchanged")
def test_a_cancelled_action_that_nobody_listens_to_still_takes_everything_back(place: Bench) -> None:
    pipe = closed_pipe()
    process = start(place, [MKFS, "7"], stdout=pipe, stderr=pipe)
    os.close(pipe)
    process.communicate(encoded(place), timeout=30)
    assert process.returncode == 1


@pytest.mark.usefixtures("unchanged")
def test_a_sentence_that_nobody_reads_is_no_second_failure(place: Bench) -> None:
    pipe = closed_pipe()
    process = start(place, [DELETE, "x", "y", "z"], stderr=pipe)
    os.close(pipe)
    stdout, _ = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (1, b"")


def test_a_warning_that_nobody_reads_is_no_failure(place: Bench) -> None:
    pipe = closed_pipe()
    xml = encoded(place, SOURCE="/dev/drbd/by-res/somebody-elses/0")
    process = start(place, [CHECKOUT / "datastore" / "linstor_un" / "rm", "7"], stderr=pipe)
    os.close(pipe)
    process.communicate(xml, timeout=30)
    assert process.returncode == 0


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("redirections", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize("call", [f"{MKFS} 8", f"{DELETE} x y z"])
def test_streams_that_are_closed_are_no_defect(place: Bench, redirections: str, call: str) -> None:
    process = start(place, ["sh", "-c", f"exec {call} {redirections}"])
    _, stderr = process.communicate(encoded(place), timeout=30)
    assert process.returncode == 1
    assert b"Traceback" not in stderr and b"Unexpected" not in stderr


def test_success_needs_no_stderr(place: Bench) -> None:
    process = start(place, ["sh", "-c", f"exec {MKFS} 7 2>&-"])
    stdout, _ = process.communicate(encoded(place), timeout=30)
    assert (process.returncode, stdout) == (0, b"/dev/drbd/by-res/one-image-7/0\n")
    removed = start(place, [MKFS.with_name("rm"), "7"])
    removed.communicate(encoded(place, SOURCE="/dev/drbd/by-res/one-image-7/0"), timeout=30)
    assert removed.returncode == 0


@pytest.mark.parametrize("arguments", [("a", "b", "c"), (f"node1:{SYSDIR}/0/disk.2", "0", "x")])
def test_input_is_read_to_its_end_even_if_nobody_wants_it(place: Bench, arguments: Sequence[str]) -> None:
    process = start(place, [DELETE, *arguments])
    assert process.stdin is not None and process.stderr is not None
    # More than a pipe holds: an action that does not read it would leave the writer with a broken pipe.
    process.stdin.write(b"x" * 300_000)
    process.stdin.close()
    process.stderr.read()
    assert process.wait(30) == 1


def test_an_action_that_is_not_there_is_a_sentence(place: Bench, tmp_path: Path) -> None:
    script = tmp_path / "dance"
    script.write_text(
        MKFS.read_text()
        .replace("mkfs", "dance")
        .replace("os.path.dirname(os.path.realpath(__file__))", f'"{MKFS.parent}"')
    )
    script.chmod(0o755)
    process = start(place, [script])
    _, stderr = process.communicate(b"", timeout=30)
    assert process.returncode == 1
    assert b"Traceback" not in stderr


def run_without(packages: Sequence[str], folder: Path, place: Bench, script: Path, *arguments: str) -> tuple[int, str]:
    """Run an entry script with a Python that has none but these packages of its own."""
    import importlib.util

    for name in packages:
        found = importlib.util.find_spec(name)
        assert found is not None and found.origin is not None
        (folder / name).symlink_to(Path(found.origin).parent)
    environment = {**place.cloud.scripts.environment, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-S", str(script), *arguments],
        input=encoded(place),
        capture_output=True,
        env=environment,
        cwd=place.cloud.scripts.directory,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("present", "missing", "script"),
    [
        ((), "lxml", MKFS),
        ((), "lxml", CHECKOUT / "tm" / "linstor_un" / "monitor"),
        (("lxml",), "python-linstor", MKFS),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(
    place: Bench, tmp_path: Path, present: Sequence[str], missing: str, script: Path
) -> None:
    status, stderr = run_without(present, tmp_path, place, script, "7")
    assert status == 1
    assert stderr.splitlines()[-1] == (
        f"The Python package {missing} is missing for {sys.executable} on the front-end: install it with "
        f"`{sys.executable} -m pip install {missing}`, or from the distribution's packages"
    )
    assert "Traceback" not in stderr


def test_the_driver_runs_from_any_directory_and_through_links(place: Bench, tmp_path: Path) -> None:
    link = tmp_path / "datastore" / "linstor_un"
    link.parent.mkdir()
    link.symlink_to(MKFS.parent)
    done = subprocess.run(
        [str(link / "mkfs")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**place.cloud.scripts.environment, "PYTHONPATH": "/nowhere"},
        cwd="/",
        check=False,
    )
    assert (done.returncode, b"got 0 arguments" in done.stderr) == (1, True)


@pytest.mark.parametrize("where", ["remotes", "checkout", "environment"])
def test_the_configuration_is_found_beside_the_driver(place: Bench, tmp_path: Path, where: str) -> None:
    for name in ("datastore", "lib"):
        shutil.copytree(
            CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "linstor_sandbox")
        )
    paths = {
        "remotes": tmp_path / "etc" / "datastore" / "linstor_un" / "linstor_un.conf",
        "checkout": tmp_path / "etc" / "linstor_un.conf",
        "environment": tmp_path / "own.conf",
    }
    paths[where].parent.mkdir(parents=True, exist_ok=True)
    paths[where].write_text("WRONG=1\n")
    environment = {name: value for name, value in place.cloud.scripts.environment.items() if name != "LINSTOR_UN_CONF"}
    extra = {"LINSTOR_UN_CONF": str(paths[where])} if where == "environment" else {}
    script = tmp_path / "datastore" / "linstor_un" / "mkfs"
    done = subprocess.run(
        [str(script), "7"], input=b"", capture_output=True, env={**environment, **extra}, text=False, check=False
    )
    assert f"{paths[where]}, line 1: there is no setting WRONG" in done.stderr.decode()
