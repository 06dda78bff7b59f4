"""The packages for pip: a wheel, and the sources."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from development.environment import CHECKOUT
from development.errors import NotPossible
from development.packaging.layout import packed
from development.packaging.source import files


def build(destination: Path, work: Path, epoch: int) -> list[Path]:
    """Build both from a copy of the checkout below `work`; return their paths in `destination`; raises NotPossible."""
    copy, built = work / "python", work / "dist"
    for folder in (copy, built):
        shutil.rmtree(folder, ignore_errors=True)
    for name in files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, copy / name, follow_symlinks=False)
        (copy / name).chmod(0o755 if os.access(CHECKOUT / name, os.X_OK) else 0o644)
        os.utime(copy / name, (epoch, epoch), follow_symlinks=False)
    # What ./dev has put into .venv builds it: nothing is fetched.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(copy)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["SOURCE_DATE_EPOCH"] = str(epoch)
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment, umask=0o022, check=False
    )
    if done.returncode != 0:
        raise NotPossible(f"the wheel cannot be built:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    for archive in built.glob("*.tar.gz"):
        _level(archive, epoch)
    return [Path(shutil.move(path, destination / path.name)) for path in sorted(built.iterdir())]


def _level(archive: Path, epoch: int) -> None:
    """Write an archive anew without this machine, user and moment in it; setuptools does so for wheels only."""
    level = io.BytesIO()
    with tarfile.open(archive) as before, tarfile.open(fileobj=level, mode="w", format=tarfile.PAX_FORMAT) as after:
        for member in sorted(before.getmembers(), key=lambda item: item.name):
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            member.mtime, member.pax_headers = epoch, {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            after.addfile(member, before.extractfile(member) if member.isfile() else None)
    archive.write_bytes(packed(level.getvalue()))
