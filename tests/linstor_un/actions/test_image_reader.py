"""A volume that is on a host only to be read there leaves it, whenever the action is asked to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_un import locks, log, undo
from linstor_un.actions import image_reader
from linstor_un.cluster import placement, volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.hosts import devices
from linstor_un.settings import for_datastore
from linstor_un.undo import Stopped

LIBRARY = str(Path(locks.__file__).parent)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "box", ("n1", "n2"), (Pool("data", "LVM_THIN", 1000),)) as box:
        log.start("test/image_reader")
        yield box
        assert box.exceptions == []


class StopAtLine:
    """SIGTERM when the library comes to its nth line, as it may come at any."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, _: Any) -> Optional[StopAtLine]:
        # The handler's own and what raises the signal again are no places where one can come first.
        if not frame.f_code.co_filename.startswith(LIBRARY) or frame.f_code.co_filename == undo.__file__:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGTERM)
        return self


def test_a_signal_at_any_line_leaves_no_attachment(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "is_linked", lambda *_: False)
    (tmp_path / "locks").mkdir()
    attributes = {"LS_CONTROLLERS": sandbox.uri, "STORAGE_POOL": "data", "NODE_LIST": "n1", "AUTO_PLACE": "1"}
    settings = for_datastore({"LOCK_DIR": str(tmp_path / "locks")}, attributes, "it")
    gateway = Gateway(settings)
    volumes.create(gateway, "vol", 8 << 10, placement.of(settings, "it"), {})

    def stop(number: int, _: Optional[FrameType]) -> None:
        raise Stopped(str(number))

    before, tracing = signal.signal(signal.SIGTERM, stop), sys.gettrace()
    stopped = 0
    try:
        while True:
            stops = StopAtLine(stopped + 1)
            try:
                sys.settrace(stops)
                with image_reader.offered(gateway, "vol", "n2", ["n1"]):
                    pass
            except Stopped:
                stopped += 1
            finally:
                sys.settrace(tracing)
            there = sandbox.snapshot_of_state()["resource_definitions"]["vol"]["resources"]
            assert sorted(there) == ["n1"], f"stopped at line {stopped}"
            assert list((tmp_path / "locks").iterdir()) == [], f"stopped at line {stopped}"
            if stops.left > 0:
                break
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped > 50
