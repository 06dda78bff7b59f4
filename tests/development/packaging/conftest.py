"""The packages, built once for all that looks at them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from importlib import util
from pathlib import Path
from typing import Callable

import pytest

from development import debian
from development.errors import NotPossible
from development.packaging.__main__ import build
from development.packaging.source import epoch, files

Built = Callable[[str], list[Path]]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Return what builds a kind of packages, or finds it built by another process of this run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base

    def packages(kind: str) -> list[Path]:
        need(kind)
        folder = shared / "packages" / kind
        folder.mkdir(parents=True, exist_ok=True)
        with (shared / "packages" / f"{kind}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return sorted(folder.iterdir()) or made(kind, folder, shared / "packages" / f"work-{kind}")

    return packages


def need(kind: str) -> None:
    """Skip the test where a kind of packages cannot be built."""
    missing = debian.missing(os.environ["PATH"], debian.BUILDERS.get(kind, ()))
    if missing:
        pytest.skip(f"what builds a {kind} is not here: {', '.join(missing)}")
    if kind == "python" and util.find_spec("build") is None:
        pytest.skip("the package build, which makes wheels, is not installed here")
    try:
        epoch()
        files()
    except NotPossible as error:
        pytest.skip(str(error))


def made(kind: str, folder: Path, work: Path) -> list[Path]:
    """Build a kind of packages."""
    try:
        return build(kind, folder, work)
    except NotPossible as error:
        if "package index" in str(error):
            pytest.skip(str(error))
        raise


def answer(*command: object) -> str:
    """Return what a program prints that must succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def need_program(name: str) -> None:
    """Skip the test where a program is missing."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not here")
