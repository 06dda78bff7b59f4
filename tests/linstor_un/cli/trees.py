"""Bare OpenNebula trees, made of the configuration files of real releases, and what is in them to the byte."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from click.testing import CliRunner, Result

from linstor_un.cli.installation import interpreter
from linstor_un.cli.verbs import command
from tests.conftest import CHECKOUT

RELEASES = Path(__file__).with_name("releases")
NAMES = sorted(folder.name for folder in RELEASES.iterdir())
SCRIPT = CHECKOUT / "linstor-un"
# A tree belongs to whoever makes it: with oned's own group or mode nobody is surprised.
_STOCK_SCRIPTS = ("tm/shared/mv", "datastore/fs/cp", "vmm/kvm/save")


class Tree:
    """A front-end's files: self-contained in the folder, or those of packages below it."""

    def __init__(self, folder: Path, release: str = "7.4.0", packages: bool = False) -> None:
        self.folder = folder
        self.etc = folder / ("etc/one" if packages else "etc")
        self.var = folder / ("var/lib/one" if packages else "var")
        self.commands = folder / ("usr/local/bin" if packages else "bin")
        self.remotes = self.var / "remotes"
        for directory in (self.etc / "vmm_exec", self.commands):
            directory.mkdir(parents=True)
        shutil.copy(RELEASES / release / "oned.conf", self.etc)
        shutil.copy(RELEASES / release / "vmm_execrc", self.etc / "vmm_exec")
        self.oned_conf.chmod(0o640)
        for script in _STOCK_SCRIPTS:
            (self.remotes / script).parent.mkdir(parents=True)
            (self.remotes / script).write_text("#!/bin/bash\nexit 0\n")
        (self.remotes / "VERSION").write_text(f"{release}\n")

    @property
    def oned_conf(self) -> Path:
        """Return oned's configuration."""
        return self.etc / "oned.conf"

    @property
    def vmm_execrc(self) -> Path:
        """Return the environment of oned's driver for hypervisors."""
        return self.etc / "vmm_exec" / "vmm_execrc"

    @property
    def configuration(self) -> Path:
        """Return linstor_un.conf."""
        return self.remotes / "etc/datastore/linstor_un/linstor_un.conf"

    def content(self) -> dict[str, tuple[int, bytes]]:
        """Return mode and bytes of every file, and the target of every link, by path."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_symlink():
                found[name] = (0, os.fsencode(path.readlink()))
            else:
                found[name] = (path.stat().st_mode, b"" if path.is_dir() else path.read_bytes())
        return found

    def run(self, *arguments: str) -> Result:
        """Run a verb on this tree in this process; what it installs is run by this Python unless it says otherwise."""
        words = [*arguments, "--root", str(self.folder)]
        if arguments[0] in ("install", "upgrade") and "--python" not in arguments:
            words += ["--python", str(quick_python())]
        return CliRunner().invoke(command, words)

    def done(self, *arguments: str) -> str:
        """Run a verb that must succeed; return what it prints."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.output


@cache
def quick_python() -> Path:
    """Return this Python, which says what it has without looking every time."""
    found = interpreter.look_at(sys.executable, interpreter.owner(tempfile.gettempdir()))
    answer = json.dumps({"version": found.version, "tag": found.tag, "packages": found.packages})
    folder = Path(tempfile.mkdtemp(prefix="linstor_un-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "quick-python3"
    path.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then echo \'{answer}\'; exit; fi\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the checkout's command in a process of its own."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
        timeout=120,
    )
