"""What a failed action takes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Optional

import pytest

from linstor_un import log, undo
from linstor_un.undo import STOPPING_SIGNALS, Stopped, Undo, surely, undisturbed
from tests.conftest import CHECKOUT


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Give the signals back that undoing ignores, and begin with an empty log."""
    before = {number: signal.getsignal(number) for number in STOPPING_SIGNALS}
    log.start("test/undo")
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_success_takes_nothing_back() -> None:
    done: list[str] = []
    with Undo() as undo:
        undo.push("a", lambda: done.append("a"))
    assert done == []
    assert log.lines() == []


def test_a_signal_after_success_stops_nothing_that_is_not_taken_back() -> None:
    def stop(number: int, _: Optional[FrameType]) -> None:
        raise Stopped(str(number))

    for number in STOPPING_SIGNALS:
        signal.signal(number, stop)
    with Undo() as undo:
        undo.push("a", lambda: pytest.fail("it was whole"))
    for number in STOPPING_SIGNALS:
        signal.raise_signal(number)


@pytest.mark.parametrize("error", [ValueError("x"), Stopped("x"), KeyboardInterrupt(), SystemExit(1)])
def test_failure_of_any_kind_takes_back_the_newest_first_and_goes_on(error: BaseException) -> None:
    done: list[str] = []
    with pytest.raises(type(error)) as raised, Undo() as undo:
        undo.push("the volume", lambda: done.append("volume"))
        undo.push("the link", lambda: done.append("link"))
        raise error
    assert raised.value is error
    assert done == ["link", "volume"]
    assert log.lines() == ["INFO: test/undo: took back: the link", "INFO: test/undo: took back: the volume"]


def test_a_step_that_fails_is_logged_and_stops_neither_the_others_nor_the_reason() -> None:
    done: list[str] = []

    def broken() -> None:
        raise RuntimeError("the node is away")

    with pytest.raises(ValueError, match="the reason"), Undo() as undo:
        undo.push("first", lambda: done.append("first"))
        undo.push("second", broken)
        raise ValueError("the reason")
    assert done == ["first"]
    assert "ERROR: test/undo: could not take back second: the node is away" in log.lines()


def test_what_was_taken_back_is_not_taken_back_twice() -> None:
    done: list[str] = []
    undo = Undo()
    undo.push("a", lambda: done.append("a"))
    undo.run()
    undo.run()
    assert done == ["a"]


def test_a_second_signal_does_not_interrupt_the_undoing() -> None:
    script = (
        "import os, signal, sys, time\n"
        "from linstor_un.undo import STOPPING_SIGNALS, Undo\n"
        "def step():\n"
        "    for number in STOPPING_SIGNALS:\n"
        "        os.kill(os.getpid(), number)\n"
        "    time.sleep(0.05)\n"
        "    print('undone')\n"
        "try:\n"
        "    with Undo() as undo:\n"
        "        undo.push('a', step)\n"
        "        raise ValueError\n"
        "except ValueError:\n"
        "    print('and the reason')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "undone\nand the reason\n"), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_put_off_while_its_outcome_must_be_known(number: signal.Signals) -> None:
    done: list[str] = []

    def stop(_: int, __: Optional[FrameType]) -> None:
        raise Stopped(number.name)

    signal.signal(number, stop)
    # Of several threads any may get the signal; the handler runs in this one.
    other = threading.Event()
    thread = threading.Thread(target=other.wait)
    thread.start()
    try:
        with pytest.raises(Stopped), undisturbed():
            os.kill(os.getpid(), number)
            time.sleep(0.05)
            done.append("the request")
    finally:
        other.set()
        thread.join()
    assert done == ["the request"]
    assert signal.getsignal(number) is stop


def test_nothing_is_put_off_any_longer_when_the_request_has_failed() -> None:
    before = [signal.getsignal(number) for number in STOPPING_SIGNALS]
    with pytest.raises(KeyError), undisturbed():
        raise KeyError
    assert [signal.getsignal(number) for number in STOPPING_SIGNALS] == before


def test_several_signals_stop_once() -> None:
    stopped: list[int] = []
    for number in STOPPING_SIGNALS:
        signal.signal(number, lambda number, _: stopped.append(number))
    with undisturbed():
        for number in STOPPING_SIGNALS:
            os.kill(os.getpid(), number)
        time.sleep(0.05)
        assert stopped == []
    assert len(stopped) == 1


def test_what_is_forgotten_is_not_taken_back() -> None:
    done: list[str] = []
    with pytest.raises(KeyError), Undo() as undo:
        undo.push("a", lambda: done.append("a"))
        undo.forget()
        undo.push("b", lambda: done.append("b"))
        raise KeyError
    assert done == ["b"]


def test_stopped_is_not_taken_for_an_error_that_was_handled() -> None:
    with pytest.raises(Stopped):
        try:
            raise Stopped("SIGTERM")
        except Exception:
            pytest.fail("something between the signal and the frame has swallowed it")


def test_a_thread_that_no_signal_interrupts_goes_on() -> None:
    done: list[str] = []

    def act() -> None:
        with undisturbed():
            done.append("it")

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    assert done == ["it"]


@pytest.mark.parametrize("met", [1, 2])
def test_what_is_done_surely_is_done_whichever_time_a_signal_comes_before_it(
    met: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[int] = []
    done: list[str] = []

    @contextmanager
    def stopped_before() -> Iterator[None]:
        entered.append(1)
        if len(entered) == met:
            raise Stopped("just now")
        yield

    monkeypatch.setattr(undo, "undisturbed", stopped_before)
    with pytest.raises(Stopped), surely(lambda: done.append("it")):
        pass
    assert done == ["it"]
