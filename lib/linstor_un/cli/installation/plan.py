"""What an installation or its removal changes: found out before anything is, and then done as a whole or not at all."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Optional

from linstor_un import __version__, settings
from linstor_un.cli.installation import interpreter, mixed_modes, oned_conf, packaged, payload, vmm_execrc
from linstor_un.cli.installation.changes import (
    DIRECTORY,
    FILE,
    LINK,
    Change,
    Content,
    all_or_nothing,
    check_writable,
    make,
    put,
    read,
    temporary,
)
from linstor_un.cli.installation.interpreter import Interpreter
from linstor_un.cli.installation.journal import Journal
from linstor_un.cli.installation.oned_conf import DRIVER, OVERRIDES
from linstor_un.cli.installation.payload import Payload
from linstor_un.cli.installation.tree import COMMAND, Tree
from linstor_un.errors import MissingDependency, NotInstalled

_FOLDER = Content(DIRECTORY, mode=0o755)


class Plan(NamedTuple):
    """The changes in their order, and what the operator should know; `python` compiles where there is something to."""

    tree: Tree
    journal: Journal
    changes: list[Change]
    notes: list[str]
    python: Optional[Interpreter] = None
    compiles: bool = False

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is to be done."""
        return not (self.changes or self.compiles or (self.journal.exists and not self.journal.is_complete))

    @property
    def restarts(self) -> bool:
        """Tell whether oned has to read its configuration anew."""
        return any(change.path in edited_files(self.tree) for change in self.changes)


def edited_files(tree: Tree) -> tuple[str, str]:
    """Return the paths of oned.conf and vmm_execrc, where a link leads."""
    return tree.real(tree.oned_conf), tree.real(tree.vmm_execrc)


def present(tree: Tree, journal: Journal) -> str:
    """Return which driver is there, empty where none is."""
    scripts = tree.here(f"{tree.remotes}/datastore/{DRIVER}")
    if packaged.kind(tree):
        return f"{DRIVER} of the package {packaged.NAME}"
    if journal.exists and not journal.is_complete:
        return f"an interrupted installation of {DRIVER} {journal.version}".rstrip()
    if journal.exists:
        return f"{DRIVER} {journal.version}"
    if os.path.exists(os.path.join(scripts, "linstor_utils.sh")):
        return f"the bash {DRIVER}"
    return f"{DRIVER}, installed by hand" if os.path.isdir(scripts) else ""


# --- Installation -----------------------------------------------------------------------------------------------------


def installation(tree: Tree, python: str = "", modes: Sequence[str] = ()) -> Plan:
    """Return what installs this copy of the driver, run by the interpreter at the path `python` or one that fits.

    `modes` are those of mixed_modes.parse. Where a package has brought the files, it is what is left of it:
    OpenNebula's configuration and the bytecode. Raises ManagedByPackage, MissingDependency, NotInstalled, NotWritable,
    UnreadableConfiguration, InvalidInput, and InvalidSetting for a linstor_un.conf that is there and that the driver
    would refuse.
    """
    is_packaged = bool(packaged.kind(tree))
    if is_packaged:
        packaged.check_own(tree, python)
    vendored = os.path.join(payload.PACKAGE, payload.VENDORED)
    chosen = interpreter.choose(python, interpreter.owner(tree.here(tree.remotes)), vendored)
    planner = _Planner(tree, Journal(tree).read())
    if not is_packaged:
        content = payload.load(chosen.path)
        planner.scripts(content)
        planner.configuration(content)
    planner.opennebula(modes)
    if not is_packaged:
        planner.command()
    compiles = any(f"/{payload.LIBRARY}/" in change.path for change in planner.changes) or _lacks_bytecode(tree, chosen)
    return Plan(tree, planner.journal, planner.changes, planner.notes, chosen, compiles)


def _lacks_bytecode(tree: Tree, python: Interpreter) -> bool:
    library = tree.here(f"{tree.remotes}/{payload.LIBRARY}")
    return interpreter.lacks_bytecode(python.tag, payload.modules(library))


class _Planner:
    def __init__(self, tree: Tree, journal: Journal) -> None:
        self.tree = tree
        self.journal = journal
        self.changes: list[Change] = []
        self.notes: list[str] = []
        self._later: dict[str, Optional[Content]] = {}
        self._gone: set[str] = set()

    def scripts(self, content: Payload) -> None:
        """Plan the driver's own folders: a link to a checkout elsewhere becomes a folder, and what is obsolete goes."""
        remotes = self.tree.remotes
        for name in payload.OWN_FOLDERS:
            found = self._now(f"{remotes}/{name}")
            if found is not None and found.kind == LINK:
                self._become(f"{remotes}/{name}", None)
        for name, file in content.files.items():
            self._become(f"{remotes}/{name}", file)
        for name in payload.OBSOLETE:
            self._become(f"{remotes}/{name}", None)
        for path in self.journal.entries:
            name = os.path.relpath(path, remotes)
            now = self._now(path)
            is_stale = name.startswith(payload.OWN_FOLDERS) and name not in content.files
            if is_stale and now is not None and now.kind == FILE and self.journal.is_ours(path, now):
                self._become(path, self.journal.original(path))

    def configuration(self, content: Payload) -> None:
        """Plan linstor_un.conf: made where there is none, renewed where it is as it came, else the operator's."""
        path = self.tree.configuration
        found = self._now(path)
        if content.configuration and (found is None or self.journal.is_ours(path, found)):
            self._become(path, Content(FILE, content.configuration))
        elif found is not None and not self.journal.is_ours(path, found) and found.data != content.configuration:
            self.notes.append(f"{self.tree.here(path)} is yours and stays as it is.")
            settings.from_configuration(settings.read_configuration(self.tree.here(path)))

    def opennebula(self, modes: Sequence[str]) -> None:
        """Plan the lines of oned.conf and vmm_execrc."""
        path = self.tree.real(self.tree.oned_conf)
        text = self._text(path)
        without_modes = oned_conf.edited(text, oned_conf.needed(text))
        with_modes = mixed_modes.edited(without_modes, modes)
        self._write(path, with_modes)
        if with_modes != without_modes:
            self.notes.append(
                "Image datastores that are there already learn of this by `onedatastore update`, saved as it is, once "
                "oned was restarted."
            )
        hypervisors = oned_conf.hypervisors(text)
        self.notes += _foreign_overrides(text, hypervisors)
        path = self.tree.real(self.tree.vmm_execrc)
        snapshots = self._text(path)
        missing = vmm_execrc.missing(snapshots, [f"{name}-{DRIVER}" for name in hypervisors])
        self._write(path, vmm_execrc.with_pairs(snapshots, missing) if missing else snapshots)

    def command(self) -> None:
        """Plan the link by which a shell finds linstor-un; another command of that name is left alone."""
        path = self.tree.command
        target = os.path.relpath(f"{self.tree.remotes}/{COMMAND}", self.tree.commands)
        found = self._now(path)
        if found is None or self.journal.is_ours(path, found):
            self._become(path, Content(LINK, target=target))
        elif not found.is_same(Content(LINK, target=target)):
            self.notes.append(f"{self.tree.here(path)} is another command and stays as it is.")

    def _now(self, path: str) -> Optional[Content]:
        """Return what is at a path once what has been planned is done."""
        if path in self._later:
            return self._later[path]
        if any(path.startswith(f"{gone}/") for gone in self._gone):
            return None
        return read(self.tree.here(path))

    def _become(self, path: str, after: Optional[Content]) -> None:
        before = self._now(path)
        if before is after is None or (after is not None and after.is_same(before)):
            return
        if after is not None and self._now(os.path.dirname(path)) is None:
            self._become(os.path.dirname(path), _FOLDER)
        self.changes.append(Change(path, before, after))
        self._later[path] = after
        self._gone |= {path} if after is None else set()

    def _text(self, path: str) -> str:
        found = self._now(path)
        return found.data.decode("latin-1") if found else ""

    def _write(self, path: str, text: str) -> None:
        """Plan another text for a file, which keeps its rights; none for a file that is not there and stays empty."""
        found = self._now(path) or Content(FILE)
        if text:
            self._become(path, found._replace(data=text.encode("latin-1"), modified_ns=None))


def _foreign_overrides(text: str, hypervisors: list[str]) -> list[str]:
    return [
        f"VM_MAD {name} has {script or 'a script'} of its own for {action}: the memory of suspended VMs is not kept by "
        f"{DRIVER}; use {action}={OVERRIDES[action]} for that."
        for name in hypervisors
        for action, script in oned_conf.overridden(text, name).items()
        if action in OVERRIDES and script != OVERRIDES[action]
    ]


# --- Removal ----------------------------------------------------------------------------------------------------------


def removal(tree: Tree) -> Plan:
    """Return what puts back what was there before the driver; raises NotInstalled, NotWritable."""
    journal = Journal(tree).read()
    if not journal.exists:
        raise NotInstalled(
            f"{DRIVER} was not installed by `linstor-un install` here: there is no record of what was there before, in "
            f"{journal.folder}"
        )
    changes: list[Change] = []
    notes: list[str] = []
    if packaged.kind(tree):
        notes.append(
            f"The files are of the package {packaged.NAME}: `{packaged.program(tree)} remove {packaged.NAME}`."
        )
    for path in reversed(journal.entries):
        if packaged.owns(tree, path):
            continue
        now = read(tree.here(path))
        after = _original(tree, journal, path, now, notes)
        if now is not after and (after is None or not after.is_same(now)):
            changes.append(Change(path, now, after))
    return Plan(tree, journal, changes, notes)


def _original(tree: Tree, journal: Journal, path: str, now: Optional[Content], notes: list[str]) -> Optional[Content]:
    """Return what a path is to become; what the operator has changed in a configuration since then is kept."""
    original = journal.original(path)
    if now is None or original is now or not journal.is_changed_since(path, now):
        return original
    if path in edited_files(tree):
        notes.append(f"{tree.here(path)} was changed since: only the lines for {DRIVER} go.")
        return now._replace(data=_without_driver(tree, path, original, now).encode("latin-1"), modified_ns=None)
    if path == tree.configuration:
        notes.append(f"{tree.here(path)} is yours and stays.")
        return now
    notes.append(f"{tree.here(path)} was changed since and goes with what was changed.")
    return original


def _without_driver(tree: Tree, path: str, original: Optional[Content], now: Content) -> str:
    before = original.data.decode("latin-1") if original else ""
    text = now.data.decode("latin-1")
    if path == tree.real(tree.oned_conf):
        return oned_conf.reverted(mixed_modes.reverted(text, before), oned_conf.needed(before))
    given = vmm_execrc.pairs(before)
    return vmm_execrc.without_pairs(
        text, [pair for pair in vmm_execrc.pairs(text) if pair.endswith(f"-{DRIVER}") and pair not in given]
    )


# --- Doing it ---------------------------------------------------------------------------------------------------------


def install(plan: Plan) -> None:
    """Do what `installation` has planned, all of it or nothing; raises NotWritable and MissingDependency."""
    python = plan.python
    assert python is not None, "an installation has one"
    with _made(plan):
        if plan.compiles:
            _compile(plan.tree, python)
        plan.journal.finish(__version__, python.path)


def remove(plan: Plan) -> None:
    """Do what `removal` has planned, all of it or nothing; raises NotWritable."""
    with _made(plan):
        pass
    plan.journal.remove()


@contextmanager
def _made(plan: Plan) -> Iterator[None]:
    """Make the changes, and put everything back where one of them or the block fails."""
    tree, journal = plan.tree, plan.journal
    check_writable(tree, plan.changes)
    with all_or_nothing() as undo:
        undo.push("journal", Journal(tree).read().restore)
        for path in journal.entries:
            put(temporary(tree.here(path)), None)
        journal.begin(plan.changes)
        for change in plan.changes:
            make(tree, change, undo)
        yield


def _compile(tree: Tree, python: Interpreter) -> None:
    library = tree.here(f"{tree.remotes}/{payload.LIBRARY}")
    try:
        interpreter.compile_library(python.path, library, interpreter.owner(library))
    except (OSError, subprocess.SubprocessError) as failure:
        raise MissingDependency(
            f"{python.path} cannot compile {library} ({failure}): name another interpreter with --python"
        ) from None
