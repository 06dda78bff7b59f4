"""What a script does with files of the front-end, by Python's audit events: noted, or met by a file system's fault."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

# In the environment of a script that is a fork: what is to be watched, as JSON of an Order.
VARIABLE = "FAULTS_AT_FILES"
_AWAY = ".away"
# The names that tempfile draws.
_DRAWN = r"(?<=^temporary/)\w+"


@dataclass(frozen=True)
class Order:
    """Note in `log` the operations below `folder`; at the one of that number, from 0, let the fault happen."""

    folder: str
    log: str = os.devnull
    number: int = -1
    fault: str = ""

    def variable(self) -> dict[str, str]:
        """As it travels in the environment."""
        return {VARIABLE: json.dumps(vars(self))}


def obey() -> None:
    """Watch this process from now on, where its environment asks for it."""
    asked = os.environ.pop(VARIABLE, "")
    if asked:
        sys.addaudithook(_Watcher(Order(**json.loads(asked))))


class _Watcher:
    """What the interpreter calls before every operation."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._met = 0
        self._is_busy = False
        self._is_full = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._is_busy:
            return
        self._is_busy = True
        try:
            if self._is_full and event in ("open", "os.remove", "subprocess.Popen"):
                # The limit holds for what reports the failure too, which are files here.
                _limit(resource.RLIM_INFINITY)
                self._is_full = False
            kind = _kind(event, arguments)
            path = os.fspath(arguments[0]) if kind else ""  # type: ignore[call-overload]
            # What the interpreter reads of scripts that are installed in the world's own folder is none of theirs.
            is_script = re.match(rf"{re.escape(self._order.folder)}/remotes/(tm|datastore|vmm|lib)/", path)
            if kind and path.startswith(self._order.folder + "/") and not is_script:
                self._meet(kind, path)
        finally:
            self._is_busy = False

    def _meet(self, kind: str, path: str) -> None:
        with Path(self._order.log).open("a", encoding="utf-8") as log:
            name = re.sub(_DRAWN, "*", os.path.relpath(path, self._order.folder))
            log.write(f"{kind} {name}\n")
        self._met += 1
        if self._met != self._order.number + 1:
            return
        if self._order.fault == "full":
            self._is_full = True
        _FAULTS[self._order.fault](Path(path))


def _kind(event: str, arguments: tuple[object, ...]) -> str:
    if not arguments or not isinstance(arguments[0], (str, os.PathLike)):
        return ""
    if event == "open":
        flags = arguments[2]
        assert isinstance(flags, int)
        return "make" if flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE else "open"
    return "remove" if event == "os.remove" else ""


def _limit(size: float) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))


def _parent(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _lose_directory(path: Path) -> None:
    shutil.rmtree(_parent(path))


def _deny_directory(path: Path) -> None:
    directory = _parent(path)
    shutil.rmtree(directory)
    # There nobody can make a file, not even root.
    directory.symlink_to("/sys")


def _lose_file(path: Path) -> None:
    path.rename(path.with_name(path.name + _AWAY))


def _spoil(path: Path) -> None:
    """Put what cannot be read in the place of a file."""
    _lose_file(path)
    path.mkdir()


def _block(path: Path) -> None:
    """Let the removal of a file fail, which is not there any more when all is well again."""
    path.unlink()
    path.mkdir()


_FAULTS: Mapping[str, Callable[[Path], object]] = {
    "missing": _lose_directory,
    "denied": _deny_directory,
    "full": lambda _: _limit(0),
    "lost": _lose_file,
    "unreadable": _spoil,
    "gone": Path.unlink,
    "stays": _block,
    "SIGKILL": lambda _: signal.raise_signal(signal.SIGKILL),
    "SIGTERM": lambda _: signal.raise_signal(signal.SIGTERM),
}


def mend(folder: Path) -> None:
    """What was taken away is there again."""
    for name in ("locks", "temporary"):
        directory = folder / name
        if directory.is_symlink():
            directory.unlink()
        directory.mkdir(exist_ok=True)
        for blocked in [path for path in directory.iterdir() if path.is_dir()]:
            blocked.rmdir()
    for away in [
        path for top in ("", "files/", "oned/**/", "remotes/etc/**/") for path in folder.glob(f"{top}*{_AWAY}")
    ]:
        there = away.with_name(away.name[: -len(_AWAY)])
        if there.is_dir():
            there.rmdir()
        away.rename(there)
