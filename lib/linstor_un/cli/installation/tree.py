"""Where an OpenNebula keeps its files: one of packages, a self-contained one, or a tree that is being prepared."""

from __future__ import annotations

import os
from typing import NamedTuple

from linstor_un.errors import OpenNebulaMissing

COMMAND = "linstor-un"


class Tree(NamedTuple):
    """The folders of one OpenNebula, as it sees them itself; `root` is what its / is here, empty for this machine's."""

    root: str
    etc: str
    var: str
    commands: str
    is_self_contained: bool

    @property
    def remotes(self) -> str:
        """Return the folder of the drivers' scripts."""
        return f"{self.var}/remotes"

    @property
    def oned_conf(self) -> str:
        """Return oned's configuration."""
        return f"{self.etc}/oned.conf"

    @property
    def vmm_execrc(self) -> str:
        """Return the environment of oned's driver for hypervisors."""
        return f"{self.etc}/vmm_exec/vmm_execrc"

    @property
    def configuration(self) -> str:
        """Return linstor_un.conf."""
        return f"{self.remotes}/etc/datastore/linstor_un/linstor_un.conf"

    @property
    def command(self) -> str:
        """Return the link by which a shell finds linstor-un."""
        return f"{self.commands}/{COMMAND}"

    def here(self, path: str) -> str:
        """Return where a path of the tree is on this machine."""
        return self.root + path

    def real(self, path: str) -> str:
        """Return where a path of the tree leads that is a link, itself where it is none."""
        if not os.path.islink(self.here(path)):
            return path
        return os.path.realpath(self.here(path))[len(os.path.realpath(self.root)) if self.root else 0 :]

    def holds(self, path: str) -> bool:
        """Tell whether an installation may have changed this path; others than root may write the record of that."""
        files = (self.real(self.oned_conf), self.real(self.vmm_execrc), self.command)
        is_on_the_way = any(f"{file}/".startswith(f"{path}/") for file in files)
        return os.path.normpath(path) == path and (is_on_the_way or path.startswith(f"{self.remotes}/"))

    def release(self) -> str:
        """Return OpenNebula's release, empty where it does not say."""
        try:
            with open(self.here(f"{self.remotes}/VERSION"), encoding="utf-8") as file:
                return file.read(40).strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def restart(self) -> str:
        """Return the command after which oned has read its configuration anew."""
        return "one stop && one start" if self.is_self_contained else "systemctl restart opennebula"


def find(root: str = "") -> Tree:
    """Return the OpenNebula below `root`, else the one that ONE_LOCATION names, else this machine's.

    Raises OpenNebulaMissing.
    """
    location = root or os.environ.get("ONE_LOCATION", "")
    candidates = [_self_contained(os.path.abspath(location))] if location else []
    candidates += [_packages(os.path.abspath(root) if root else "")] if root or not location else []
    for tree in candidates:
        if os.path.exists(tree.here(tree.oned_conf)) and os.path.isdir(tree.here(tree.remotes)):
            return tree
    looked = " or ".join(tree.here(tree.oned_conf) for tree in candidates)
    raise OpenNebulaMissing(
        f"There is no OpenNebula front-end here: {looked} with its remotes folder is missing; install OpenNebula "
        "first, or name its folder with --root or ONE_LOCATION"
    )


def _packages(root: str) -> Tree:
    return Tree(root, "/etc/one", "/var/lib/one", "/usr/local/bin", False)


def _self_contained(location: str) -> Tree:
    return Tree("", f"{location}/etc", f"{location}/var", f"{location}/bin", True)
