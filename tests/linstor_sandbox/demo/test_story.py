"""The demonstration passes with the driver as it is, and fails for every way in which it is made worse here."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from development.environment import CHECKOUT
from linstor_sandbox.demo.images import prepare
from linstor_sandbox.demo.report import Report
from linstor_sandbox.demo.story import Story
from tests.conftest import commit

# Runs the real script; what stands before or after it makes it worse.
CORRUPT = "dd if=/dev/urandom of=/dev/drbd/by-res/{resource}/0 bs=4096 seek=1000 count=1 conv=notrunc status=none"
REAL = f'"{CHECKOUT}/{{script}}" "$@"'
WORSE = [
    ("datastore/linstor_un/stat", "cat >/dev/null; echo 70", "its size is 70 MiB: 64 MiB were expected"),
    (
        "datastore/linstor_un/cp",
        REAL + " && ssh node1 " + CORRUPT.format(resource="one-image-0"),
        "one-image-0: it arr",
    ),
    (
        "datastore/linstor_un/clone",
        REAL + " && ssh node1 " + CORRUPT.format(resource="one-image-1"),
        "one-image-1: the",
    ),
    ("datastore/linstor_un/rm", "cat >/dev/null", "/resource_definitions/one-image-0"),
    (
        "tm/linstor_un/clone",
        REAL + " && ssh node1 " + CORRUPT.format(resource="one-vm-0-disk-0"),
        "VM 0 on node1 reads",
    ),
    ("tm/linstor_un/clone", "echo no >&2; exit 1", "tm/clone"),
    ("tm/linstor_un/snap_create_live", "exit 0", "its file systems were frozen"),
    ("tm/linstor_un/snap_revert", "exit 0", "reads the bytes of the snapshot"),
    ("tm/linstor_un/premigrate", "cat >/dev/null", "Could not open"),
    ("tm/linstor_un/postmigrate", "cat >/dev/null", "no volume may be primary on two nodes any more"),
    ("tm/linstor_un/cpds", REAL + " && ssh node1 " + CORRUPT.format(resource="one-image-2"), "one-image-2: it has"),
    ("vmm/kvm/restore_linstor_un", REAL + "; exit 1", "vmm/restore_linstor_un"),
    ("tm/linstor_un/mv", "exit 0", "Could not open"),
    ("tm/linstor_un/resize", "exit 0", "Cannot grow device files"),
    ("tm/linstor_un/delete", "exit 0", "only the images' volumes are left"),
    ("tm/linstor_un/mvds", "echo no >&2; exit 1", "tm/mvds"),
]
# Each costs a whole demonstration: these few are others after each commit.
DRAWN = random.Random(commit()).sample(WORSE, 4)


@pytest.fixture
def remotes(tmp_path: Path) -> Path:
    """The checkout's entry scripts, any of which can be replaced."""
    folder = tmp_path / "remotes"
    for place in ("datastore/linstor_un", "tm/linstor_un", "vmm/kvm"):
        (folder / place).mkdir(parents=True)
        for script in (CHECKOUT / place).iterdir():
            if script.is_file():
                replace(folder, f"{place}/{script.name}", "exec " + REAL)
    return folder


def replace(remotes: Path, script: str, text: str) -> None:
    (remotes / script).write_text("#!/bin/sh\n" + text.replace("{script}", script) + "\n", encoding="utf-8")
    (remotes / script).chmod(0o755)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place from which image datastores without SAFE_DIRS take images."""
    with tempfile.TemporaryDirectory(prefix="linstor-un-test-", dir="/var/tmp") as made:
        yield Path(made)


def tell(remotes: Path, folder: Path) -> list[str]:
    """What is wrong at the end, or what ended the story early."""
    report = Report()
    try:
        Story(remotes, folder, prepare(None, folder), report).tell()
    except (RuntimeError, OSError) as error:
        report.failed(str(error))
    return report.failures


def test_the_driver_as_it_is(remotes: Path, folder: Path) -> None:
    assert tell(remotes, folder) == []


@pytest.mark.parametrize(("script", "text", "complaint"), DRAWN)
def test_a_worse_driver_is_found_out(script: str, text: str, complaint: str, remotes: Path, folder: Path) -> None:
    replace(remotes, script, text)
    failures = tell(remotes, folder)
    assert any(complaint in failure for failure in failures), failures
