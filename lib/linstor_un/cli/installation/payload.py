"""What is installed: the entry scripts, the library and the configuration, from a checkout or a Python package."""

from __future__ import annotations

import os
import sysconfig
from typing import NamedTuple

from linstor_un.cli.installation.changes import FILE, Content
from linstor_un.errors import NotInstalled

# Folders that are the driver's own, as they are called in a checkout and in a remotes folder.
OWN_FOLDERS = ("datastore/linstor_un", "tm/linstor_un", "lib/linstor_un")
LIBRARY = "lib/linstor_un"
COMMAND = "linstor-un"
# Files of the bash driver that have no successor.
OBSOLETE = ("datastore/linstor_un/linstor_utils.sh", "datastore/linstor_un/linstor_un.conf")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_OVERRIDES = ("vmm/kvm/save_linstor_un", "vmm/kvm/restore_linstor_un")
_ANY_PYTHON = b"#!/usr/bin/env python3\n"


class Payload(NamedTuple):
    """Files by their path in the remotes folder, and the configuration as it comes, empty where only others have it."""

    files: dict[str, Content]
    configuration: bytes

    @property
    def scripts(self) -> list[str]:
        """Return the entry scripts."""
        return [path for path in self.files if not path.startswith(LIBRARY)]


def load(python: str) -> Payload:
    """Return what this copy of the driver is, its scripts to be run by the interpreter `python`.

    Raises NotInstalled where the copy has no scripts, and OSError.
    """
    top = _top()
    files = {path: _script(os.path.join(top, path), python) for path in _script_paths(top)}
    for path in modules(_PACKAGE):
        files[os.path.join(LIBRARY, os.path.relpath(path, _PACKAGE))] = Content(FILE, _bytes(path))
    configuration = os.path.join(top, "etc", "linstor_un.conf")
    return Payload(files, _bytes(configuration) if os.path.exists(configuration) else b"")


def entry_scripts() -> list[str]:
    """Return the entry scripts that the library's actions need, by their path in the remotes folder."""
    found = []
    for kind, folder in (("datastore", OWN_FOLDERS[0]), ("tm", OWN_FOLDERS[1]), ("vmm", "vmm/kvm")):
        names = sorted(os.listdir(os.path.join(_PACKAGE, "actions", kind)))
        found += [f"{folder}/{name[:-3]}" for name in names if name.endswith(".py") and name != "__init__.py"]
    return found


def _top() -> str:
    """Return the folder that the scripts are below: beside the library, or where pip puts a package's data."""
    candidates = [
        os.path.dirname(os.path.dirname(_PACKAGE)),
        os.path.join(sysconfig.get_path("data"), "share/linstor_un"),
    ]
    for folder in candidates:
        if all(os.path.exists(os.path.join(folder, path)) for path in (*OWN_FOLDERS[:2], *_OVERRIDES)):
            return folder
    raise NotInstalled(
        f"The driver's entry scripts are neither in {' nor in '.join(candidates)}: run linstor-un from a checkout, or "
        "from a package that has them"
    )


def _script_paths(top: str) -> list[str]:
    found = [
        os.path.join(folder, name)
        for folder in OWN_FOLDERS[:2]
        for name in sorted(os.listdir(os.path.join(top, folder)))
        if not name.startswith((".", "__"))
    ]
    return [*found, *_OVERRIDES, COMMAND]


def _script(path: str, python: str) -> Content:
    first, rest = _bytes(path).split(b"\n", 1)
    if not first.startswith(b"#!"):
        raise NotInstalled(f"{path} is no script of this driver: remove it, or run linstor-un from a fresh checkout")
    return Content(FILE, b"#!" + os.fsencode(python) + b"\n" + rest, 0o755)


def modules(package: str) -> list[str]:
    """Return the source files below a package's folder."""
    found = []
    for folder, folders, names in os.walk(package):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        found += [os.path.join(folder, name) for name in sorted(names) if name.endswith(".py")]
    return found


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
