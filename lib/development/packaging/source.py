"""What is packaged: the checkout's version and time, and python-linstor, which no distribution has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

from development.environment import CHECKOUT, VENV, with_pip
from development.errors import NotPossible
from linstor_un import __version__

TEMPLATES = CHECKOUT / "packages"
_PINNED = TEMPLATES / "vendored.txt"
_CACHE = VENV / "vendored"


class Vendored(NamedTuple):
    """A package that is brought along: its files by their path below a folder that Python searches."""

    name: str
    version: str
    sha256: str
    files: dict[str, bytes]


def system_version(version: str = __version__) -> str:
    """Return a Python version as dpkg and rpm order it: a development or candidate release comes before its release."""
    return re.sub(r"\.?(dev|a|b|rc)(\d+)$", r"~\1\2", version)


def epoch() -> int:
    """Return the time in seconds that everything built is of: SOURCE_DATE_EPOCH, else the commit's."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or _git("log", "-1", "--format=%ct"))


def files() -> list[str]:
    """Return the paths of the checkout's files: those that git knows, and new ones that it does not ignore."""
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return sorted(name for name in set(listed.split("\0")) if name and (CHECKOUT / name).exists())


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as failure:
        raise NotPossible(
            f"packages are built from a checkout of git, and git does not know this one: {failure}"
        ) from None


def vendored() -> Vendored:
    """Return what is brought along, fetched once with pip; raises NotPossible."""
    line = next(line for line in _PINNED.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    name, version, sha256 = re.findall(r"^(\S+)==(\S+) --hash=sha256:(\w+)$", line)[0]
    wheel = _fetched(name.replace("-", "_"), version)
    with ZipFile(wheel) as archive:
        contents = {item: archive.read(item) for item in archive.namelist()}
    kept = {item: data for item, data in contents.items() if _is_kept(item)}
    return Vendored(name, version, sha256, dict(sorted(kept.items())))


def _is_kept(name: str) -> bool:
    """Tell whether a file of a wheel is code, or says which package it is and who may copy it."""
    folder, _, rest = name.partition("/")
    return not folder.endswith(".dist-info") or rest == "METADATA" or rest.startswith("licenses/")


def _fetched(name: str, version: str) -> Path:
    pattern = f"{name}-{version}-*.whl"
    if not list(_CACHE.glob(pattern)):
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        command = [sys.executable, "-m", "pip", "download", *options, "-d", str(_CACHE), "-r", str(_PINNED)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=with_pip(), check=False)
        if done.returncode != 0:
            told = "\n".join(done.stderr.strip().splitlines()[-3:])
            raise NotPossible(f"cannot fetch {name} {version}: make a package index reachable for pip\n{told}")
    return next(_CACHE.glob(pattern))
