"""The driver as it is installed on the front-end: scripts, interpreter, packages, programs, linstor_un.conf."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator

from linstor_un.cli.checks.facts import Facts
from linstor_un.cli.checks.finding import Finding, error, of_failure, warning
from linstor_un.cli.installation import interpreter, packaged, payload
from linstor_un.cli.installation.changes import FILE, read
from linstor_un.cli.installation.oned_conf import DRIVER
from linstor_un.errors import NotWritable

_LOCKS = "/var/lock/one"
_INSTALL = "run `linstor-un install`"
# Older ones lack calls that actions make.
_OLDEST_PACKAGES = {"python-linstor": (1, 23)}
# What each program of the front-end is for; of several, one is enough.
_PROGRAMS = (
    (("ssh",), "reaching hosts"),
    (("xorriso", "genisoimage", "mkisofs"), "the context of VMs"),
    (("gzip",), "compressed images"),
    (("bzip2",), "compressed images"),
    (("xz",), "compressed images"),
    (("zstd",), "compressed images"),
)


def installed(facts: Facts) -> Iterator[Finding]:
    """Is there a driver, and has its installation come to an end?"""
    if not facts.is_installed:
        what = f"{DRIVER} is not installed in {facts.tree.here(facts.tree.remotes)}"
        yield error("not-installed", what, _INSTALL)
    elif facts.journal_failure:
        yield of_failure("installation-record", facts.journal_failure)
    elif facts.journal.exists and not facts.journal.is_complete:
        yield error("installation-interrupted", "An installation was interrupted half-way", f"{_INSTALL} again")


def scripts(facts: Facts) -> Iterator[Finding]:
    """Is every entry script there, this driver's, and executable?"""
    if not facts.is_installed:
        return
    lines = facts.scripts.first_lines
    foreign = [name for name, line in lines.items() if line and "python" not in line]
    missing = [name for name, line in lines.items() if not line]
    closed = [name for name, line in lines.items() if line and not os.access(_path(facts, name), os.X_OK)]
    if foreign:
        what = f"{_some(foreign)} in {facts.tree.remotes} are not this driver's, as those of the bash {DRIVER}"
        yield error("scripts-foreign", what, _put_back(facts, "run `linstor-un upgrade`"))
    if missing:
        what = f"{_some(missing)} are missing from {facts.tree.remotes}"
        yield error("scripts-missing", what, _put_back(facts, _INSTALL))
    if closed:
        what = f"{_some(closed)} in {facts.tree.remotes} cannot be executed"
        yield error("scripts-not-executable", what, _put_back(facts, _INSTALL))


def _put_back(facts: Facts, remedy: str) -> str:
    """Return what puts the driver's files back: `remedy`, but where they are a package's."""
    return f"install the package {packaged.NAME} again" if packaged.kind(facts.tree) else remedy


def _path(facts: Facts, name: str) -> str:
    return facts.tree.here(f"{facts.tree.remotes}/{name}")


def _some(names: list[str]) -> str:
    """Return up to three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def changed_files(facts: Facts) -> Iterator[Finding]:
    """Are the scripts and the library what was installed?"""
    changed = []
    for path in facts.journal.entries:
        is_ours = path.startswith(f"{facts.tree.remotes}/") and not packaged.owns(facts.tree, path)
        if is_ours and path != facts.tree.configuration:
            found = _content_changed(facts, path)
            changed += [os.path.relpath(path, facts.tree.remotes)] if found else []
    if changed:
        what = f"{_some(changed)} in {facts.tree.remotes} are not as they were installed"
        yield warning("files-changed", what, f"{_INSTALL}, or keep the change in mind")


def _content_changed(facts: Facts, path: str) -> bool:
    try:
        found = read(facts.tree.here(path))
    except NotWritable:
        return False
    first_line = facts.scripts.first_lines.get(os.path.relpath(path, facts.tree.remotes))
    if found is None or found.kind != FILE or first_line not in (None, f"#!{facts.journal.python}"):
        # For other checks to say.
        return False
    return facts.journal.is_changed_since(path, found)


def interpreters(facts: Facts) -> Iterator[Finding]:
    """Can the interpreter that the scripts name run them?"""
    for failure in facts.scripts.failures.values():
        yield of_failure("interpreter-unusable", failure)
    for found in facts.scripts.interpreters.values():
        if found.version < interpreter.OLDEST:
            version = ".".join(map(str, found.version))
            remedy = "run `linstor-un install --python` with one of 3.9 or newer"
            yield error("python-too-old", f"{found.path} is Python {version}", remedy)
        for package in found.missing:
            remedy = f"install it, for instance with `{found.path} -m pip install {package}`"
            yield error("package-missing", f"The Python package {package} is missing for {found.path}", remedy)
        for package, oldest in _OLDEST_PACKAGES.items():
            version = found.packages.get(package, "")
            if version and _numbers(version) < oldest:
                least = ".".join(map(str, oldest))
                what = f"{package} {version} for {found.path} is older than {least}"
                yield error("package-too-old", what, f"run `{found.path} -m pip install --upgrade {package}`")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def bytecode(facts: Facts) -> Iterator[Finding]:
    """Is the library compiled for the interpreter, or does every action translate it anew?"""
    library = _path(facts, payload.LIBRARY)
    modules = payload.modules(library)
    for found in facts.scripts.interpreters.values():
        if modules and interpreter.lacks_bytecode(found.tag, modules):
            what = f"The library in {library} is not compiled for {found.path}: each action takes longer"
            yield warning("bytecode-missing", what, _INSTALL)


def programs(facts: Facts) -> Iterator[Finding]:
    """Are the programs there that actions start on the front-end?"""
    del facts
    for names, purpose in _PROGRAMS:
        if not any(shutil.which(name) for name in names):
            what = f"{' or '.join(names)} is missing on the front-end, for {purpose}"
            yield error("program-missing", what, "install it")


def configuration(facts: Facts) -> Iterator[Finding]:
    """Does the driver take linstor_un.conf?"""
    if facts.settings_failure is None:
        return
    path = facts.tree.here(facts.tree.configuration)
    if os.path.exists(path) and os.stat(path).st_mode & stat.S_IWOTH:
        yield of_failure("configuration-writable", facts.settings_failure)
    else:
        yield of_failure("configuration-invalid", facts.settings_failure)


def lock_directory(facts: Facts) -> Iterator[Finding]:
    """Can actions lock their volumes?"""
    # Where there is neither, each user's actions make a folder of their own.
    usual = _LOCKS if os.path.isdir(_LOCKS) else ""
    path = facts.settings.lock_directory or usual
    if path and not facts.settings_failure and not os.access(path, os.W_OK | os.X_OK):
        what = f"Actions cannot lock volumes: {path} is missing or not writable"
        yield error("lock-directory", what, "make it, for oneadmin alone, or correct LOCK_DIR in linstor_un.conf")


CHECKS = (
    installed,
    scripts,
    changed_files,
    interpreters,
    bytecode,
    programs,
    configuration,
    lock_directory,
)
