"""What can go wrong at a step, and how it is made to."""

from __future__ import annotations

import os
import re
import signal
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Callable, Optional

from linstor_sandbox import answers
from linstor_sandbox.faults import Fault as RestFault
from tests.faults import operations
from tests.faults.operations import Order
from tests.faults.stage import Stage
from tests.faults.steps import FRONTEND, Step

_PASSING_SECONDS = 7200
# What is bounded has ended before, with all that has to be taken back; what is not need not be waited for so long.
_CANCELLED_AFTER_SECONDS = 25
_LONG_CANCELLED_AFTER_SECONDS = 8
Server = BaseHTTPRequestHandler


@dataclass(frozen=True)
class Fault:
    """One way for a step to go wrong.

    `kills` the driver so that it can undo nothing; `lasts` until it is mended, so that undoing meets it too; `moves`
    replicas: what is made meanwhile is made elsewhere; `passes` so that the action must go on to its end.
    """

    name: str
    arm: Callable[[Stage, Step], object]
    kills: bool = False
    lasts: bool = False
    moves: bool = False
    passes: bool = False


def _rest(kind: str, after_work: bool = False, always: bool = False) -> Callable[[Stage, Step], object]:
    """A fault of the sandbox's REST server at the request, or at it and all that follow."""

    def arm(stage: Stage, step: Step) -> None:
        fault = RestFault(kind, re.compile(""), -1 if always else 1, skip=step.number, after_work=after_work)
        fault.body = answers.plain_error(answers.FAIL_UNKNOWN_ERROR, "injected failure")
        stage.world.sandbox.faults.add(fault)

    return arm


def _at_request(
    act: Callable[[Stage], object], after_work: bool = False, ends: bool = False
) -> Callable[[Stage, Step], object]:
    """Something that happens at the moment of a request; `ends` where the request gets no answer then."""

    def arm(stage: Stage, step: Step) -> None:
        fault = RestFault("do", re.compile(""), skip=step.number, after_work=after_work, ends=ends)
        fault.action = lambda: act(stage)
        stage.world.sandbox.faults.add(fault)

    return arm


def _at_command(
    act: Callable[[Stage, Step, int], object], goes_on: bool = True, ends_session: bool = False
) -> Callable[[Stage, Step], object]:
    """Something that happens before an ssh connection or a command on a host, which fails unless it `goes_on`."""

    def arm(stage: Stage, step: Step) -> None:
        met = iter(range(1 << 30))
        if ends_session and step.where != FRONTEND:
            # So that ssh, which is a process of the front-end, lives on.
            stage.world.sandbox.set_ssh(step.where, "die", 1 << 60)

        def watch(host: str, command: str, process: int) -> bool:
            is_meant = command == step.what and (step.kind == "ssh" or host == step.where)
            if not is_meant or next(met) != step.number:
                return True
            act(stage, step, process)
            return goes_on

        sandbox = stage.world.sandbox
        sandbox.watch = watch
        if step.where == FRONTEND:
            sandbox.watch_command(FRONTEND, step.what, stage.folder / "bin")
        elif step.kind == "command":
            sandbox.watch_command(step.where, step.what)

    return arm


def _hang(stage: Stage, step: Step, _: int) -> None:
    """Wait, with the command, until all is well again; cancel the call that nothing else ends."""
    watch = stage.world.sandbox.watch
    longest = _LONG_CANCELLED_AFTER_SECONDS if step.takes_long else _CANCELLED_AFTER_SECONDS
    cancelled_at = time.monotonic() + longest
    while stage.world.sandbox.watch is watch:
        if time.monotonic() > cancelled_at and not stage.was_cancelled and stage.world.cloud.scripts.running:
            stage.was_cancelled = True
            _kill(stage, signal.SIGTERM)
        time.sleep(0.05)


def _no_oned(stage: Stage, _: Step) -> None:
    """Nobody listens where oned is looked for."""
    _set(stage, {"ONE_XMLRPC": "http://127.0.0.1:1/RPC2"})


def _set(stage: Stage, variables: Mapping[str, str]) -> None:
    stage.world.cloud.scripts.environment = {**stage.environment, **variables}


def _at_oned(act: Callable[[Stage, Server], bool]) -> Callable[[Stage, Step], object]:
    """Something that happens in the place of oned's answer, or before it where the act says so."""

    def arm(stage: Stage, step: Step) -> None:
        met = iter(range(1 << 30))
        stage.world.cloud.rpc.set_watch(lambda server: next(met) != step.number or act(stage, server))

    return arm


def _at_source(act: Callable[[Stage, Server], bool]) -> Callable[[Stage, Step], object]:
    """The same for an image's source."""

    def arm(stage: Stage, step: Step) -> None:
        met = iter(range(1 << 30))
        stage.source.server.watch = lambda server: next(met) != step.number or act(stage, server)

    return arm


def _answer(head: str, body: str) -> Callable[[Stage, Server], bool]:
    """This in the place of an answer."""

    def act(_: Stage, server: Server) -> bool:
        server.wfile.write(f"HTTP/1.0 {head}\r\nContent-Type: text/xml\r\n\r\n{body}".encode())
        return False

    return act


def _first_half(stage: Stage, server: Server) -> None:
    content = stage.source.files[server.path.rpartition("/")[2]]
    server.wfile.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode())
    server.wfile.write(content[: len(content) // 2])
    server.wfile.flush()


def _silent(begins: bool = False, ends: bool = False, cancels: bool = False) -> Callable[[Stage, Server], bool]:
    """No answer, or half of one where it `begins`, and nothing more until all is well again unless it `ends`."""

    def act(stage: Stage, server: Server) -> bool:
        if begins:
            _first_half(stage, server)
        if cancels:
            _kill(stage, signal.SIGTERM)
        while not ends and not stage.mended.wait(1):
            pass
        return False

    return act


def _stopping(number: int) -> Callable[[Stage, Server], bool]:
    """A signal to the driver while it waits."""

    def act(stage: Stage, _: Server) -> bool:
        _kill(stage, number)
        return True

    return act


def _file(name: str) -> Callable[[Stage, Step], object]:
    """A fault of the front-end's file system at an operation."""
    return lambda stage, step: _set(stage, Order(str(stage.folder), number=step.number, fault=name).variable())


def _kill(stage: Stage, number: int) -> None:
    for process in list(stage.world.cloud.scripts.running):
        os.kill(process, number)


def _ssh(fault: str) -> Callable[[Stage, Step], object]:
    """From this connection on the host's sshd is of no use."""
    return _at_command(lambda stage, step, _: stage.world.sandbox.set_ssh(step.where, fault))


def _kill_session(stage: Stage, _: Step, process: int) -> None:
    """Kill all processes of the session in which a command runs: the script on the host."""
    session = os.getsid(process)
    for other in stage.processes():
        if _session(other) == session:
            os.kill(other, signal.SIGKILL)


def _session(process: int) -> Optional[int]:
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return None


def _lose_power(stage: Stage, step: Step, _: int) -> None:
    """A host is gone with all that runs on it."""
    stage.world.sandbox.set_node(step.where, online=False)
    here = f"LINSTOR_SANDBOX_NODE={step.where}".encode()
    for process in stage.processes():
        try:
            if here in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                os.kill(process, signal.SIGKILL)
        except (OSError, ProcessLookupError):
            continue


def _fill(stage: Stage) -> None:
    for node in stage.world.sandbox.cluster.nodes:
        if "data" in node.pools:
            stage.world.sandbox.fill_pool(node.name, "data")


def mend(stage: Stage) -> None:
    """Everything works again, and two hours have passed."""
    sandbox = stage.world.sandbox
    stage.mended.set()
    stage.world.cloud.scripts.environment = stage.environment
    stage.world.cloud.rpc.set_watch(lambda _: True)
    stage.source.mend()
    operations.mend(stage.folder)
    sandbox.watch = lambda _host, _command, _process: True
    sandbox.repair()
    sandbox.start_controller()
    for top in (stage.folder / "sandbox" / "hosts", stage.folder / "frontend"):
        for temporary in top.rglob("*linstor_un.*"):
            os.utime(temporary, (time.time() - _PASSING_SECONDS,) * 2)
    for node in sandbox.cluster.nodes:
        if not node.host_up or not node.online:
            sandbox.set_node(node.name, online=True)
        if "data" in node.pools:
            sandbox.fill_pool(node.name, "data", 1 << 40)


_ONED_FAULT = xmlrpc.client.dumps(xmlrpc.client.Fault(-500, "injected failure"), methodresponse=True)
# A multicall has as many answers as calls: with one that is not so each call is made alone.
_ONED_REFUSAL = xmlrpc.client.dumps(([[False, "injected failure", 8192]],), methodresponse=True)
_QUESTION = (
    Fault("refused", _at_request(lambda stage: stage.world.sandbox.stop_controller(), ends=True), lasts=True),
    Fault("hangs", _rest("hang", always=True), lasts=True),
    Fault("dropped", _rest("drop")),
    Fault("error", _rest("answer")),
    Fault("SIGKILL-before", _at_request(lambda stage: _kill(stage, signal.SIGKILL), ends=True), kills=True),
    Fault("SIGTERM", _at_request(lambda stage: _kill(stage, signal.SIGTERM))),
    Fault("failover", _at_request(lambda stage: stage.world.sandbox.fail_over(), ends=True), passes=True),
    Fault("offline", _at_request(lambda stage: stage.world.sandbox.set_node("node2", False)), lasts=True, moves=True),
)
_CHANGE = (
    *_QUESTION,
    Fault("unanswered", _rest("drop", after_work=True)),
    # The work is done in the end, when nobody waits for it any more: no undoing can know of it.
    Fault("hangs-once", _rest("hang"), lasts=True),
    Fault("done-hangs", _rest("hang", after_work=True)),
    Fault("done-error", _rest("answer", after_work=True)),
    Fault("SIGKILL-after", _at_request(lambda stage: _kill(stage, signal.SIGKILL), True, True), kills=True),
    Fault("done-failover", _at_request(lambda stage: stage.world.sandbox.fail_over(), True, True), passes=True),
    Fault("full", _at_request(_fill)),
)
_CONNECTION = (
    Fault("refused", _ssh("refuse"), lasts=True),
    Fault("closed", _ssh("exit"), lasts=True),
    Fault("hangs", _ssh("hang"), lasts=True),
    Fault("SIGKILL", _at_command(lambda stage, _, __: _kill(stage, signal.SIGKILL)), kills=True),
    Fault("SIGTERM", _at_command(lambda stage, _, __: _kill(stage, signal.SIGTERM))),
)
_COMMAND = (
    Fault("fails", _at_command(lambda _, __, ___: None, goes_on=False)),
    Fault("SIGKILL", _at_command(lambda stage, _, __: _kill(stage, signal.SIGKILL)), kills=True),
    Fault("SIGTERM", _at_command(lambda stage, _, __: _kill(stage, signal.SIGTERM))),
    Fault("session-killed", _at_command(_kill_session, ends_session=True)),
    Fault("power-lost", _at_command(_lose_power, ends_session=True), lasts=True, moves=True),
    Fault("hangs", _at_command(_hang), lasts=True),
)
_ONED = (
    Fault("refused", _no_oned),
    Fault("hangs", _at_oned(_silent())),
    Fault("dropped", _at_oned(_silent(ends=True))),
    Fault("error", _at_oned(_answer("200 OK", _ONED_FAULT))),
    Fault("denied", _at_oned(_answer("200 OK", _ONED_REFUSAL))),
    Fault("status", _at_oned(_answer("503 Service Unavailable", "try later"))),
    Fault("garbage", _at_oned(_answer("200 OK", "<html>\0"))),
    Fault("cut-short", _at_oned(_answer("200 OK\r\nContent-Length: 9999", "<methodResponse>"))),
    Fault("SIGKILL", _at_oned(_stopping(signal.SIGKILL)), kills=True),
    Fault("SIGTERM", _at_oned(_stopping(signal.SIGTERM))),
)
_SOURCE = (
    Fault("refused", lambda stage, _: stage.source.pause()),
    Fault("hangs", _at_source(_silent())),
    Fault("stalls", _at_source(_silent(begins=True))),
    Fault("dropped", _at_source(_silent(ends=True))),
    Fault("cut-short", _at_source(_silent(begins=True, ends=True))),
    Fault("status", _at_source(_answer("503 Service Unavailable", "try later"))),
    Fault("garbage", _at_source(lambda _, server: bool(server.wfile.write(bytes(99))) and False)),
    Fault("SIGKILL", _at_source(_stopping(signal.SIGKILL)), kills=True),
    Fault("SIGTERM", _at_source(_silent(cancels=True))),
    Fault("stalls-SIGTERM", _at_source(_silent(begins=True, cancels=True))),
)
_FILE: Mapping[str, Sequence[str]] = {
    "make": ("missing", "denied", "full", "SIGKILL", "SIGTERM"),
    "open": ("lost", "unreadable"),
    "remove": ("gone", "stays", "SIGKILL", "SIGTERM"),
}
# Without it everything has its default.
_MAY_BE_MISSING = "open linstor_un.conf"

_OF_HOSTS = ("session-killed", "power-lost")


def at(step: Step) -> Iterator[Fault]:
    """All that can go wrong at a step; a question changes nothing, so that its end is the next step's beginning."""
    if step.kind == "rest":
        yield from _CHANGE if step.changes else _QUESTION
    elif step.kind == "ssh":
        yield from _CONNECTION
    elif step.kind == "oned":
        yield from _ONED
    elif step.kind == "source":
        yield from _SOURCE
    elif step.kind == "file":
        for name in _FILE[step.what.split()[0]]:
            if step.what != _MAY_BE_MISSING or name != "lost":
                yield Fault(name, _file(name), kills=name == "SIGKILL")
    else:
        # Its session on the front-end is oned's own.
        yield from (fault for fault in _COMMAND if step.where != FRONTEND or fault.name not in _OF_HOSTS)
