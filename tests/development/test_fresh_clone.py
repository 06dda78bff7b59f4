"""The promise of the two commands: a fresh clone needs nothing but ./dev demo and ./dev test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from development.environment import CHECKOUT

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (CHECKOUT / ".git").exists(), reason="this is no checkout of git"
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What git would clone, with what is not committed yet."""
    target = tmp_path_factory.mktemp("clone") / "linstor_un"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name, follow_symlinks=False)
    yield target
    shutil.rmtree(target)


def run_dev(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ./dev as somebody who has just cloned, without what this test's own ./dev arranged."""
    ours = str(CHECKOUT / ".venv")
    path = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if not folder.startswith(ours))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL", "PYTEST"))
    }
    return subprocess.run(
        ["./dev", *arguments],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "PATH": path},
        timeout=900,
    )


def test_demo_and_test_run_in_a_fresh_clone(clone: Path) -> None:
    demo = run_dev(clone, "demo")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Nothing is left, and every byte was right." in demo.stdout
    # All tests once more would test themselves without end: a part of them shows that the command works.
    tests = run_dev(clone, "test", "tests/linstor_sandbox/opennebula/test_cloud.py")
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert " passed" in tests.stdout
