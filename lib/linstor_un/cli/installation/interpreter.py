"""The Python that runs the installed scripts: chosen, looked at, and made to compile the library."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from linstor_un.errors import MissingDependency

OLDEST = (3, 9)
# Package for pip -> what is imported of it.
NEEDED = {"python-linstor": "linstor", "lxml": "lxml.etree", "click": "click"}
_LOOK = """
import importlib, json, os, sys
from importlib import metadata
sys.path[:0] = filter(os.path.isdir, sys.argv[2:])
found = {}
for package, module in json.loads(sys.argv[1]).items():
    try:
        importlib.import_module(module)
        found[package] = metadata.version(package)
    except ImportError:
        found[package] = ""
print(json.dumps({"version": sys.version_info[:3], "tag": sys.implementation.cache_tag, "packages": found}))
"""
# The kernel takes no more of a script's first line in older releases.
_LONGEST_FIRST_LINE = 127


class Interpreter(NamedTuple):
    """A Python: its path, its version, the tag in the names of its bytecode, and the packages with their versions."""

    path: str
    version: tuple[int, ...]
    tag: str
    packages: dict[str, str]

    @property
    def missing(self) -> list[str]:
        """Return the packages that it lacks."""
        return [package for package, version in self.packages.items() if not version]


class User(NamedTuple):
    """Who runs the driver: the owner of the remotes folder."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        """Return the user's name, or the number where there is none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def home(self) -> str:
        """Return the user's home."""
        try:
            return pwd.getpwuid(self.uid).pw_dir
        except KeyError:
            return "/"

    def become(self) -> None:
        """Let this process, where it is root's, go on as this user, as oned's drivers run."""
        if os.geteuid() == 0 and self.uid != 0:
            os.initgroups(self.name, self.gid)
            os.setgid(self.gid)
            os.setuid(self.uid)
            os.environ.update(HOME=self.home, USER=self.name, LOGNAME=self.name)


def owner(folder: str) -> User:
    """Return whom a folder belongs to."""
    found = os.stat(folder)
    return User(found.st_uid, found.st_gid)


def choose(wanted: str, user: User, vendored: str = "") -> Interpreter:
    """Return the named interpreter, else the first of this one and the system's that has what the driver needs.

    `user` will run it; `vendored` is a folder with packages that it need not have. Raises MissingDependency.
    """
    own = [sys.executable, shutil.which("python3") or "", "/usr/bin/python3"]
    candidates = [wanted] if wanted else list(dict.fromkeys(filter(None, own)))
    failures = []
    for path in candidates:
        try:
            return _fit(look_at(path, user, vendored))
        except MissingDependency as failure:
            failures.append(failure)
    raise failures[0]


def _fit(found: Interpreter) -> Interpreter:
    if found.version < OLDEST:
        version = ".".join(map(str, found.version))
        raise MissingDependency(f"{found.path} is Python {version}: name one of 3.9 or newer with --python")
    if found.missing:
        raise MissingDependency(
            f"{' and '.join(found.missing)} missing for {found.path}: install with `{found.path} -m pip install "
            f"{' '.join(found.missing)}` or from the distribution's packages, or name another interpreter with --python"
        )
    if len(found.path) + 2 > _LONGEST_FIRST_LINE or len(found.path.split()) != 1 or not os.path.isabs(found.path):
        raise MissingDependency(
            f"{found.path!r} cannot stand in a script's first line: name an absolute path without blanks, of at most "
            f"{_LONGEST_FIRST_LINE - 2} characters, with --python"
        )
    return found


def look_at(path: str, user: User, vendored: str = "") -> Interpreter:
    """Return what an interpreter has, run as `user` where this process may; raises MissingDependency.

    What is in the folder `vendored` counts, where there is such a folder.
    """
    try:
        done = run(path, ["-c", _LOOK, json.dumps(NEEDED), vendored], user)
        found: dict[str, Any] = json.loads(done)
    except (OSError, ValueError, subprocess.SubprocessError) as failure:
        raise MissingDependency(
            f"{path} cannot be run by {user.name} ({_reason(failure)}): name another interpreter with --python"
        ) from None
    return Interpreter(path, tuple(found["version"]), found["tag"], found["packages"])


def compile_library(path: str, library: str, user: User) -> None:
    """Have an interpreter compile what is below `library`; raises OSError and subprocess.SubprocessError.

    The bytecode carries a digest of its source instead of the source's time: it survives every way of copying the
    folder, also where the user of the scripts cannot write to it, and a changed source is still noticed.
    """
    run(path, ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", library], user)


def lacks_bytecode(tag: str, files: Sequence[str]) -> bool:
    """Tell whether one of the modules has no bytecode for the interpreter with this tag."""
    for path in files:
        folder, name = os.path.split(path)
        if not os.path.exists(os.path.join(folder, "__pycache__", f"{name[:-3]}.{tag}.pyc")):
            return True
    return False


def run(path: str, arguments: Sequence[str], user: User) -> str:
    """Return what an interpreter prints, run as oned runs the driver; raises OSError and SubprocessError."""
    options: dict[str, Any] = {}
    if os.geteuid() == 0 and user.uid != 0:
        options = {"user": user.uid, "group": user.gid, "extra_groups": []}
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": user.home, "LANG": "C.UTF-8"}
    done = subprocess.run(
        [path, *arguments], env=environment, cwd="/", capture_output=True, text=True, check=True, timeout=120, **options
    )
    return str(done.stdout)


def _reason(failure: Exception) -> str:
    if isinstance(failure, subprocess.CalledProcessError):
        return (str(failure.stderr).strip().splitlines() or [f"exit status {failure.returncode}"])[-1]
    return getattr(failure, "strerror", None) or str(failure)
