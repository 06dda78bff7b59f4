"""The frame round every action: arguments in, one line out, log, exit code, signals.

An entry script names its action and calls `main`. Here alone is anything printed: stdout is the protocol.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import NamedTuple, NoReturn, Optional

from linstor_un import hiding, late, log
from linstor_un.errors import AnswerUnread, DriverError, MissingDependency
from linstor_un.settings import read_configuration
from linstor_un.undo import STOPPING_SIGNALS, Stopped, go_on_undisturbed

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_FIRST_RELEASE_WITHOUT_MARKERS = (6, 0, 3)
_FIRST_RELEASE_THAT_SORTS_LINES = (6, 99)
# What other modules import at their beginning, and an action needs at times or never.
_SELDOM_USED = ("linstor", "inspect", "ipaddress", "locale", "shlex", "shutil", "ssl", "xml.etree.ElementTree")
_PACKAGES = {"linstor": "python-linstor", "lxml": "lxml"}


class Call(NamedTuple):
    """One call of an action, as OpenNebula's drivers make it."""

    arguments: tuple[str, ...]
    standard_input: bytes
    configuration: Mapping[str, str]

    def answer(self, line: str) -> None:
        """Print the line that the action's success consists of; raises AnswerUnread where nobody reads it any more."""
        try:
            if sys.stdout is None:
                raise OSError(errno.EBADF, "stdout is closed")
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except OSError as failure:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise AnswerUnread(
                f"OpenNebula no longer waits for this action's answer ({failure.strerror}): run it again"
            ) from None


def main(kind: str, verb: str) -> NoReturn:
    """Run the action `verb` of `kind` (datastore, tm, vmm) on this process's arguments, and exit with its status."""
    log.start(f"{kind}/{verb}")
    for number in STOPPING_SIGNALS:
        signal.signal(number, _stop)
    try:
        _run(kind, verb)
        # What is done is done: a signal now would be taken for a failure that nothing has been taken back for.
        go_on_undisturbed()
        status = _succeed()
    except (DriverError, Stopped) as error:
        status = _fail(str(error))
    except ModuleNotFoundError as error:
        status = _fail(str(missing(error)))
    except Exception as error:  # whatever it is, a person gets a sentence and the log the trace
        status = _fail(_unexpected(error))
    sys.exit(status)


def _run(kind: str, verb: str) -> None:
    # Read to its end before anything else: releases up to 6.0.2 fail an action that leaves its input unread.
    data = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    late.put_off(*_SELDOM_USED)
    # Not before main: it needs what may not be installed.
    from linstor_un import recording

    for line in recording.lines(sys.argv[1:], data):
        log.record(line)
    action = importlib.import_module(f"linstor_un.actions.{kind}.{verb}")
    action.run(Call(tuple(sys.argv[1:]), data, read_configuration(configuration_path())))


def configuration_path() -> str:
    """Return the path of linstor_un.conf: beside the drivers in a remotes folder, or in a checkout."""
    if os.environ.get("LINSTOR_UN_CONF"):
        return os.environ["LINSTOR_UN_CONF"]
    candidates = [
        os.path.join(_ROOT, "etc", "datastore", "linstor_un", "linstor_un.conf"),
        os.path.join(_ROOT, "etc", "linstor_un.conf"),
    ]
    return next((path for path in candidates if os.path.exists(path)), _installed_configuration())


def remotes() -> str:
    """Return OpenNebula's remotes folder of this front-end."""
    if os.path.isdir(os.path.join(_ROOT, "datastore", "linstor_un")):
        return _ROOT
    return (
        os.path.join(os.environ["ONE_LOCATION"], "var/remotes")
        if os.environ.get("ONE_LOCATION")
        else "/var/lib/one/remotes"
    )


def _installed_configuration() -> str:
    return os.path.join(remotes(), "etc", "datastore", "linstor_un", "linstor_un.conf")


def _stop(number: int, _: Optional[FrameType]) -> NoReturn:
    raise Stopped(
        f"The action was stopped by {signal.Signals(number).name} and took back what it had made: run it again"
    )


def missing(error: ModuleNotFoundError) -> MissingDependency:
    """Return what to install, for a package that is not there."""
    name = (error.name or "").split(".")[0]
    if name == "linstor_un":
        return MissingDependency(
            f"The driver is not installed completely: {error.name} is missing below {_ROOT}; copy the library again"
        )
    package = _PACKAGES.get(name, name)
    return MissingDependency(
        f"The Python package {package} is missing for {sys.executable} on the front-end: install it with "
        f"`{sys.executable} -m pip install {package}`, or from the distribution's packages"
    )


def _unexpected(error: Exception) -> str:
    import traceback

    for line in "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines():
        log.debug(line)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"Unexpected {type(error).__name__} in {os.path.basename(where.filename)}, line {where.lineno}: {error}; this "
        "is a defect of the driver, its trace is in the system log"
    )


def _succeed() -> int:
    """Print the warnings, which releases from 7.0 on put into the VM's log and older ones ignore."""
    _print([line for line in log.lines() if line.startswith("WARN")])
    return 0


def _fail(sentence: str) -> int:
    """Print what oned attaches to the image or the VM, in the form of its release; return the exit status."""
    sentence = hiding.urls(" ".join(sentence.split()))
    log.error(sentence)
    release = _release()
    lines = [sentence]
    if release < _FIRST_RELEASE_WITHOUT_MARKERS:
        lines = ["ERROR MESSAGE --8<------", sentence, "ERROR MESSAGE ------>8--"]
    elif release >= _FIRST_RELEASE_THAT_SORTS_LINES:
        lines = [line for line in log.lines()[:-1] if not line.startswith("DEBUG")] + lines
    _print(lines)
    return 1


def _print(lines: list[str]) -> None:
    if not lines or sys.stderr is None:
        return
    try:
        sys.stderr.write("".join(line + "\n" for line in lines))
        sys.stderr.flush()
    except OSError:
        # oned has cancelled the action and closed its pipes: the system log has it all.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _release() -> tuple[int, ...]:
    """Return OpenNebula's release from the VERSION file of the remotes; the newest where there is none."""
    try:
        with open(os.path.join(remotes(), "VERSION"), encoding="utf-8") as file:
            numbers = re.findall(r"\d+", file.read(40))
    except (OSError, UnicodeDecodeError):
        numbers = []
    return tuple(int(number) for number in numbers[:3]) or (99,)
