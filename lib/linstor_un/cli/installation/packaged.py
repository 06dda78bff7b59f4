"""A driver whose files a distribution's package has put into the remotes folder: they are its, not `install`'s."""

from __future__ import annotations

import os

from linstor_un.cli.installation import payload
from linstor_un.cli.installation.tree import Tree
from linstor_un.errors import ManagedByPackage

NAME = "linstor-un"
# What installs and removes such packages.
_PROGRAMS = {"deb": "apt-get", "rpm": "dnf"}
KIND_FILE = f"{payload.LIBRARY}/INSTALLER"


def kind(tree: Tree) -> str:
    """Return deb or rpm where the driver's files are a package's, else empty."""
    folder, name = os.path.split(f"{tree.remotes}/{KIND_FILE}")
    if tree.root and os.path.islink(tree.here(folder)):
        # To where it leads in the tree, and not on this machine.
        folder = os.path.join(os.path.dirname(folder), os.readlink(tree.here(folder)))
    try:
        with open(tree.here(f"{folder}/{name}"), encoding="ascii", errors="replace") as file:
            return file.read(40).strip()
    except OSError:
        return ""


def owns(tree: Tree, path: str) -> bool:
    """Tell whether a path of the tree is one that only the package manager may change."""
    return path.startswith(f"{tree.remotes}/") and bool(kind(tree))


def program(tree: Tree) -> str:
    """Return the command that installs and removes packages of this kind."""
    return _PROGRAMS.get(kind(tree), "the package manager")


def check_own(tree: Tree, python: str) -> None:
    """Check that what is asked for leaves the package's files as they are; raises ManagedByPackage.

    `python` is the interpreter that is asked for, empty where any is right.
    """
    if os.path.realpath(tree.here(f"{tree.remotes}/{payload.LIBRARY}")) != os.path.realpath(payload.PACKAGE):
        raise ManagedByPackage(
            f"The driver in {tree.here(tree.remotes)} is of the package {NAME}: install a newer package with "
            f"`{program(tree)} install`, or remove it first with `{program(tree)} remove {NAME}`"
        )
    if python:
        raise ManagedByPackage(
            f"The scripts of the package {NAME} are run by the distribution's Python: leave --python away, or remove "
            f"the package with `{program(tree)} remove {NAME}` and install from a checkout"
        )
