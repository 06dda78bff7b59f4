"""What is installed: the entry scripts, which are all alike, the library and the configuration."""

from __future__ import annotations

import os
import sysconfig
from typing import NamedTuple

from linstor_un.cli.installation.changes import FILE, Content
from linstor_un.cli.installation.tree import COMMAND

# Folders that are the driver's own, as they are called in a checkout and in a remotes folder.
OWN_FOLDERS = ("datastore/linstor_un", "tm/linstor_un", "lib/linstor_un")
LIBRARY = "lib/linstor_un"
# Other projects' packages that come with the driver, as those of distributions have them.
VENDORED = "vendored"
# Files of the bash driver that have no successor.
OBSOLETE = ("datastore/linstor_un/linstor_utils.sh", "datastore/linstor_un/linstor_un.conf")
_FOLDERS = {"datastore": OWN_FOLDERS[0], "tm": OWN_FOLDERS[1], "vmm": "vmm/kvm"}
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SCRIPT = """\
#!{python}
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), {library}))

from linstor_un.{module} import main  # noqa: E402  (the library is found relative to this script)

main({arguments})
"""


class Payload(NamedTuple):
    """Files by their path in the remotes folder, and the configuration as it comes, empty where only others have it."""

    files: dict[str, Content]
    configuration: bytes


def load(python: str) -> Payload:
    """Return what this copy of the driver is, its scripts to be run by the interpreter `python`; raises OSError."""
    files = {f"{_FOLDERS[kind]}/{verb}": _entry_script(python, kind, verb) for kind, verb in _actions()}
    files[COMMAND] = _script(python, '"lib"', "cli.__main__", "")
    for path in [*modules(PACKAGE), *_descriptions(os.path.join(PACKAGE, VENDORED))]:
        files[os.path.join(LIBRARY, os.path.relpath(path, PACKAGE))] = Content(FILE, _bytes(path))
    return Payload(files, _configuration())


def entry_scripts() -> list[str]:
    """Return the entry scripts that the library's actions need, by their path in the remotes folder."""
    return [f"{_FOLDERS[kind]}/{verb}" for kind, verb in _actions()]


def _actions() -> list[tuple[str, str]]:
    found = []
    for kind in _FOLDERS:
        names = sorted(os.listdir(os.path.join(PACKAGE, "actions", kind)))
        found += [(kind, name[:-3]) for name in names if name.endswith(".py") and name != "__init__.py"]
    return found


def _entry_script(python: str, kind: str, verb: str) -> Content:
    return _script(python, '"..", "..", "lib"', "driver", f'"{kind}", "{verb}"')


def _script(python: str, library: str, module: str, arguments: str) -> Content:
    text = _SCRIPT.format(python=python, library=library, module=module, arguments=arguments)
    return Content(FILE, os.fsencode(text), 0o755)


def _configuration() -> bytes:
    """Return linstor_un.conf as it comes: of a checkout, or where pip puts a package's data."""
    checkout = os.path.dirname(os.path.dirname(PACKAGE))
    for folder in (os.path.join(checkout, "etc"), os.path.join(sysconfig.get_path("data"), "share", "linstor_un")):
        path = os.path.join(folder, "linstor_un.conf")
        if os.path.exists(path):
            return _bytes(path)
    return b""


def modules(package: str) -> list[str]:
    """Return the source files below a package's folder."""
    return [path for path in _below(package) if path.endswith(".py")]


def _descriptions(vendored: str) -> list[str]:
    """Return what says of vendored packages which they are and who may copy them."""
    return [path for path in _below(vendored) if ".dist-info/" in path]


def _below(top: str) -> list[str]:
    found = []
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        found += [os.path.join(folder, name) for name in sorted(names)]
    return found


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
