"""What to take back when an action fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Callable, Optional

from linstor_un import log

STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Stopped(BaseException):
    """A signal asks the action to stop; not an Exception, so that nothing but the frame takes it for handled."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put stopping signals off until the end of the block, for a request whose outcome undo has to know.

    In the main thread, which is the one that signals interrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Not with a mask, which holds for one thread: Python would run the handler here for a signal that another got.
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in STOPPING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for earliest in arrived[:1]:
            signal.raise_signal(earliest)


@contextmanager
def surely(step: Callable[[], object]) -> Iterator[None]:
    """Run `step` behind the block, undisturbed and even where a signal comes just before it; it does nothing twice."""
    try:
        try:
            yield
        finally:
            with undisturbed():
                step()
    finally:
        with undisturbed():
            step()


def go_on_undisturbed() -> None:
    """Let no signal stop this process any more, not even while the interpreter ends."""
    for number in STOPPING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Undo:
    """A stack of removals, for a `with` block: each thing made in it pushes its own; leaving by an error runs them."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def push(self, description: str, step: Callable[[], object]) -> None:
        """Remember `step`, which removes something this action makes; `description` is for the log.

        Pushed before the thing is made, since an answer can get lost: the step must do nothing where there is nothing,
        and may return False then.
        """
        self._steps.append((description, step))

    def forget(self) -> None:
        """Take nothing back any more: what was made may be all that there is."""
        self._steps.clear()

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if error is not None:
            self.run()
        else:
            # Nothing would be taken back any more for a signal that comes before the action's end.
            go_on_undisturbed()

    def run(self) -> None:
        """Take back what was made, newest first; a step that fails is logged and does not stop the others."""
        go_on_undisturbed()
        while self._steps:
            description, step = self._steps.pop()
            try:
                if step() is not False:
                    log.info(f"took back: {description}")
            except Exception as failure:  # the reason for undoing must reach the user, not the failure to undo
                log.error(f"could not take back {description}: {failure}")
