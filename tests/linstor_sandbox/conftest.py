from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from linstor_sandbox import Pool, Sandbox

from .rest import Rest

POOLS = (Pool("data", "LVM_THIN", 4096), Pool("thick", "LVM", 1024), Pool("zdata", "ZFS_THIN", 4096))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox with a thin, a thick and a ZFS pool; nothing may go wrong inside it."""
    with Sandbox(tmp_path / "box", pools=POOLS, auto_promote_timeout=0.2) as sandbox:
        yield sandbox
        assert sandbox.exceptions == []


@pytest.fixture
def rest(box: Sandbox) -> Rest:
    """A client; group `group` is in the thin pool, `fat` in the thick one."""
    client = Rest(box)
    client.group("group")
    client.group("fat", "thick")
    return client


@pytest.fixture
def ssh(box: Sandbox) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    def run(host: str, *command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["ssh", "-o", "BatchMode=yes", "-q", host, *command],
            env=box.environment(),
            input=stdin,
            capture_output=True,
            timeout=20,
            check=False,
        )

    return run
