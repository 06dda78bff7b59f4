"""The add-on's transfer scripts: oned calls them for the disks of its VMs, for as long as these have the disks."""

from __future__ import annotations

import os
import shutil

from linstor_un.cli.installation.interpreter import User, owner
from linstor_un.cli.installation.tree import Tree
from linstor_un.errors import NotInstalled, NotWritable
from linstor_un.naming import ADD_ON

_OWN = "tm/linstor_un"
# What every entry script of this driver has in it, of whatever release.
_OWN_ENTRY = b"from linstor_un.driver import main"


class Scripts:
    """The folder of the add-on's transfer scripts, and where what was in it is kept.

    A folder of copies and no link: the add-on's package would else write into our folder when it is upgraded or goes.
    """

    def __init__(self, tree: Tree) -> None:
        self.shown = f"{tree.remotes}/tm/{ADD_ON}"
        self._own = tree.here(f"{tree.remotes}/{_OWN}")
        self._place = tree.here(self.shown)
        self._kept = tree.here(f"{tree.var}/linstor_un-adopted/{_OWN.partition('/')[0]}-{ADD_ON}")
        if not os.path.isdir(self._own):
            raise NotInstalled(f"The driver is not in {tree.here(tree.remotes)}: run `linstor-un install` first")

    @property
    def are_ours(self) -> bool:
        """Tell whether the folder has this driver's scripts and no others."""
        return _content(self._place) == _content(self._own)

    @property
    def are_kept(self) -> bool:
        """Tell whether what was in the folder is kept."""
        return os.path.isdir(self._kept)

    def replace(self) -> None:
        """Put this driver's scripts into the folder and keep what was there; raises NotWritable."""
        if self.are_ours:
            return
        made = f"{self._place}.new"
        try:
            shutil.rmtree(made, ignore_errors=True)
            shutil.copytree(self._own, made, ignore=shutil.ignore_patterns("__pycache__"))
            _give_to(owner(self._own), made)
            self._keep()
            shutil.rmtree(self._place, ignore_errors=True)
            os.rename(made, self._place)
        except OSError as failure:
            raise NotWritable(f"{self._place} cannot be replaced ({failure}): run this as root") from None

    def _keep(self) -> None:
        """Keep what is the add-on's: the folder as it was found, and later what its package has put there again."""
        theirs = [name for name, text in _content(self._place).items() if _OWN_ENTRY not in text]
        if theirs and not self.are_kept:
            os.makedirs(os.path.dirname(self._kept), exist_ok=True)
            os.rename(self._place, self._kept)
            return
        for name in theirs:
            shutil.copy2(os.path.join(self._place, name), os.path.join(self._kept, name))

    def put_back(self) -> None:
        """Put back what was in the folder; raises NotWritable."""
        try:
            if self.are_kept or self.are_ours:
                shutil.rmtree(self._place, ignore_errors=True)
            if self.are_kept:
                os.rename(self._kept, self._place)
                os.rmdir(os.path.dirname(self._kept))
        except OSError as failure:
            raise NotWritable(f"{self._place} cannot be put back ({failure}): run this as root") from None


def _give_to(user: User, folder: str) -> None:
    """Let the folder belong to whom the driver's own belongs to, where this process may say so."""
    if os.geteuid() == 0:
        for path in (folder, *(os.path.join(folder, name) for name in os.listdir(folder))):
            os.chown(path, user.uid, user.gid)


def _content(folder: str) -> dict[str, bytes]:
    found = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                found[name] = file.read()
    return found
