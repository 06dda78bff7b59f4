"""Running an action without letting it change anything: what it reads is read, and its changes are only noted.

Each is taken for done, without a word of what came of it, until something depends on that: another look at LINSTOR, a
program on a host, or the answer itself. To go on there would be to guess.
"""

from __future__ import annotations

import base64
import importlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Callable, NoReturn, Optional

from linstor_un import settings
from linstor_un.cli.installation.tree import Tree
from linstor_un.cluster.codes import Entry
from linstor_un.cluster.gateway import Gateway
from linstor_un.driver import Call
from linstor_un.errors import DriverError
from linstor_un.recording import Recorded
from linstor_un.undo import STOPPING_SIGNALS, Undo

READS, CHANGES, ANSWERS, FAILS, ENDS = "reads", "changes", "answers", "fails", "ends"
Step = tuple[str, str]


class _Stopped(BaseException):
    """What comes next is not known; not an Exception, so that no action takes it for a failure of its own."""


class _Rehearsal:
    """What an action has done so far."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._is_over = False

    @property
    def has_changed(self) -> bool:
        """Tell whether something would be different by now."""
        return any(kind == CHANGES for kind, _ in self.steps)

    def note(self, kind: str, text: str) -> None:
        """Note a step, unless the action is only putting away what it believes to have."""
        if self._is_over:
            raise _Stopped
        self.steps.append((kind, text))

    def stop(self) -> NoReturn:
        """End the action."""
        self._is_over = True
        raise _Stopped


class _Asked:
    """Stands in for the connection, to learn which request would be sent."""

    def __getattr__(self, name: str) -> Callable[..., str]:
        return lambda *arguments, **options: _request(name, arguments, options)


def _request(name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> str:
    if name == "_rest_request":
        _, method, path, body = arguments
        return f"{method} {path} {body}"
    shown = [repr(argument) for argument in arguments]
    return f"{name}({', '.join([*shown, *(f'{key}={value!r}' for key, value in options.items())])})"


class _Call(Call):
    """A call whose answer is noted."""

    def answer(self, line: str) -> None:
        """Note the line that oned would get."""
        assert _current is not None
        _current.note(ANSWERS, line)


_current: Optional[_Rehearsal] = None


def steps(tree: Tree, kind: str, verb: str, recorded: Recorded) -> Iterator[Step]:
    """Return what the action does as far as that is known, with its answer, or why it would fail."""
    global _current
    found = _current = _Rehearsal()
    with tempfile.TemporaryDirectory(prefix="linstor_un-rehearsal-") as locks, _watched(found):
        path = os.environ.get("LINSTOR_UN_CONF") or tree.here(tree.configuration)
        # Locks of its own: it neither waits for an action that runs nor stops one.
        configuration = {**settings.read_configuration(path), "LOCK_DIR": locks}
        try:
            action = importlib.import_module(f"linstor_un.actions.{kind}.{verb}")
            action.run(_Call(recorded.arguments, _standard_input(recorded), configuration))
            if not any(kind == ANSWERS for kind, _ in found.steps):
                found.note(ENDS, "with success" if found.has_changed else "with success, and nothing to change")
        except _Stopped:
            pass
        except Exception as error:  # whatever an action makes of an answer that says nothing
            if not found.has_changed:
                if not isinstance(error, DriverError):
                    raise
                found.note(FAILS, str(error))
    yield from found.steps


def _standard_input(recorded: Recorded) -> bytes:
    """Return what came on stdin: the XML, where it was not an argument."""
    encoded = base64.b64encode(recorded.document)
    return b"" if encoded.decode() in recorded.arguments else encoded


@contextmanager
def _watched(found: _Rehearsal) -> Iterator[None]:
    """Let reads and changes of LINSTOR be noted, and end where more than that is needed."""
    get, ask, popen, take_back = Gateway.get, Gateway._ask, subprocess.Popen, Undo.run
    handlers = {number: signal.getsignal(number) for number in STOPPING_SIGNALS}

    def noted_get(self: Gateway, what: str, path: Sequence[str], query: Sequence[tuple[str, str]] = ()) -> Any:
        if found.has_changed:
            found.stop()
        asked = "&".join(f"{key}={value}" for key, value in query)
        found.note(READS, f"GET /v1/{'/'.join(path)}{'?' if asked else ''}{asked}")
        return get(self, what, path, query)

    def noted_ask(_: Gateway, what: str, call: Callable[[Any], Any], repeatable: bool = False) -> list[Entry]:
        del repeatable
        found.note(CHANGES, f"{what}: {call(_Asked())}")
        return []

    def noted_program(command: Sequence[str], *_: Any, **__: Any) -> NoReturn:
        found.note(CHANGES, _program(command))
        found.stop()

    def nothing_taken_back(self: Undo) -> None:
        """Nothing was made."""

    Gateway.get, Gateway._ask, subprocess.Popen = noted_get, noted_ask, noted_program  # type: ignore[assignment,method-assign,misc]
    Undo.run = nothing_taken_back  # type: ignore[method-assign]
    try:
        yield
    finally:
        Gateway.get, Gateway._ask, subprocess.Popen = get, ask, popen  # type: ignore[method-assign,misc]
        Undo.run = take_back  # type: ignore[method-assign]
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _program(command: Sequence[str]) -> str:
    """Return a program with its words; of a script on a host the host and the values."""
    words = [str(word) for word in command]
    script = shlex.split(words[-1]) if "setsid -w sh -c " in words[-1] else []
    if not script:
        return f"starts {shlex.join(words)}"
    where = "the front-end" if words[0] == "sh" else words[-2]
    return f"runs a script on {where} with {shlex.join(script[6:]) or 'no values'}"
