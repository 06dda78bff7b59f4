"""What LINSTOR answers late, not at all, or without having done it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Optional

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_un import log
from linstor_un.cluster import replicas, snapshots, volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.errors import AnswerOverdue, ControllerFailed, ControllerUnreachable
from linstor_un.settings import for_datastore
from linstor_un.undo import Stopped
from tests.linstor_un.cluster.tls import proxy

DISK = "one-vm-1-disk-0"
DONE = {"ret_code": 1, "message": "done"}
TIMES = {"CONNECT_TIMEOUT": "1", "REQUEST_TIMEOUT": "2", "FAILOVER_TIMEOUT": "1"}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "box", pools=(Pool("data", "LVM_THIN", 1000),)) as box:
        yield box
        assert box.exceptions == []


def connected(uri: str) -> Gateway:
    log.start("test/gateway")
    return Gateway(for_datastore(TIMES, {"LS_CONTROLLERS": uri}, "datastore 1"))


@pytest.fixture
def gateway(sandbox: Sandbox) -> Iterator[Gateway]:
    made = connected(sandbox.uri)
    made.create_resource_group({"name": "two", "select_filter": {"place_count": 2, "storage_pool_list": ["data"]}})
    made.spawn("two", {"resource_definition_name": DISK, "volume_sizes": [4096]})
    yield made
    made.close()


def test_a_deletion_that_linstor_only_reports_is_an_error(gateway: Gateway, sandbox: Sandbox) -> None:
    sandbox.faults.fail(f"DELETE .*/{DISK}$", status=200, body=[DONE])
    with pytest.raises(ControllerFailed, match=f"reported that it deleted {DISK} and has it still: .* retry"):
        volumes.remove(gateway, DISK)
    assert volumes.remove(gateway, DISK)
    assert volumes.find(gateway, DISK) is None


def test_a_snapshot_that_linstor_only_reports_is_an_error(gateway: Gateway, sandbox: Sandbox) -> None:
    sandbox.faults.fail("POST .*/snapshots$", status=201, body=[DONE])
    with pytest.raises(ControllerFailed, match=f"took snapshot snapshot-0 of {DISK} and has none: .* retry"):
        snapshots.take(gateway, DISK, "snapshot-0")
    assert snapshots.take(gateway, DISK, "snapshot-0")
    sandbox.faults.fail("DELETE .*/snapshots/snapshot-0", status=200, body=[DONE])
    with pytest.raises(ControllerFailed, match=f"deleted snapshot snapshot-0 of {DISK} and has it still"):
        snapshots.delete(gateway, DISK, "snapshot-0")
    snapshots.delete(gateway, DISK, "snapshot-0")
    assert snapshots.of(gateway, DISK) == []


def test_a_snapshot_that_has_failed_in_silence_is_an_error_and_goes(gateway: Gateway, sandbox: Sandbox) -> None:
    failed = {"name": "snapshot-0", "resource_name": DISK, "nodes": ["node1"], "flags": ["FAILED_DEPLOYMENT"]}
    sandbox.faults.fail("GET .*/snapshots$", status=200, body=[failed])
    with pytest.raises(ControllerFailed, match="has one that failed"):
        snapshots.take(gateway, DISK, "snapshot-0")
    assert snapshots.of(gateway, DISK) == []


def test_what_follows_an_answer_that_is_overdue_waits_as_long_again_and_no_longer(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    hang = sandbox.faults.hang("GET .*/resource-definitions", times=-1)
    started = time.monotonic()
    for _ in range(4):
        with pytest.raises(AnswerOverdue, match="did not answer within"):
            volumes.find(gateway, DISK)
    hang.release()
    # Two, two together, and one each for the least that a request gets.
    assert time.monotonic() - started < 4 * 2
    assert volumes.find(gateway, DISK) is not None


def test_a_controller_that_falls_silent_is_left_for_another(sandbox: Sandbox, gateway: Gateway) -> None:
    with proxy(sandbox) as first:
        patient = connected(f"linstor://127.0.0.1:{first.port},{sandbox.uri}")
        assert volumes.find(patient, DISK) is not None
        first.freeze()
        assert volumes.find(patient, DISK) is not None
        assert any("fell silent" in line for line in log.lines())
        alone = connected(f"linstor://127.0.0.1:{first.port}")
        with pytest.raises(ControllerUnreachable):
            volumes.find(alone, DISK)


def test_the_kernel_looks_whether_the_controllers_machine_is_alive(gateway: Gateway) -> None:
    connection = gateway._connected()._rest_conn.sock
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    # In seconds and signs of life; at most four times CONNECT_TIMEOUT.
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    assert [connection.getsockopt(socket.IPPROTO_TCP, name) for name in names] == [1, 1, 3]


def test_a_signal_waits_for_what_linstor_does(gateway: Gateway, sandbox: Sandbox) -> None:
    """It would do it when that was taken back, and the volume made anew."""
    sandbox.faults.delay(f"PUT .*/{DISK}$", 0.5, times=1)
    stopped_while(lambda: gateway.modify_resource_definition(DISK, {"Aux/said": "before"}))
    found = volumes.find(gateway, DISK)
    assert found is not None and found.properties["Aux/said"] == "before"


def test_a_signal_does_not_wait_for_what_is_only_asked(gateway: Gateway, sandbox: Sandbox) -> None:
    held = sandbox.faults.hang(f"GET .*/{DISK}/resources$")
    stopped_while(lambda: replicas.of(gateway, DISK))
    held.release()
    assert replicas.of(gateway, DISK), "no answer is taken for another's"


def stopped_while(act: Callable[[], object]) -> None:
    """Do it, and be asked to stop meanwhile."""

    def stop(number: int, _: Optional[FrameType]) -> None:
        raise Stopped(str(number))

    before = signal.signal(signal.SIGTERM, stop)
    sender = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    sender.start()
    try:
        with pytest.raises(Stopped):
            act()
    finally:
        sender.join()
        signal.signal(signal.SIGTERM, before)
