"""Faults in words: `on POST .*/spawn #2: drop after`, `offline node2`, `ssh node1 die 65536`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Callable, Optional

from . import answers
from .faults import Fault

if TYPE_CHECKING:
    from .sandbox import Sandbox

HELP = """\
a fault is WHAT, or `on CALL: WHAT` for the moment of a REST call. CALL is METHOD and a regular expression for the path;
`#2` is the second such call, `x3` three of them, `always` all. With ` after` at its end, WHAT comes when the call has
been carried out.
  only with a CALL:
    silent [SECONDS]            accepted and not answered, for ever or for so long
    slow SECONDS                answered later
    drop                        closed without an answer
    die BYTES                   closed in the middle of the answer, when so many bytes of it have been sent
    error [CODE [TEXT]]         500 with an error report; CODE is LINSTOR's, 998 when none is given
  with or without a CALL:
    refuse, listen              the controller's port refuses connections, and no longer
    failover                    the controller goes on at its second address, with the same state
    offline NODE, online NODE   a host without power, and with it
    full NODE/POOL [MIB]        so much is left in a pool for new volumes, 0 when not given; old ones are written to
    broken NODE OPERATION       the next create, snapshot, resize, clone or delete fails on a node
    ssh NODE hang               ssh to a host never ends; also `refuse`, `exit` (255), `die BYTES` (breaks off after so
                                many bytes have passed), `ok`
    mend                        no more faults"""
_FORM = re.compile(
    r"(?:on (?P<call>\S+ \S+)(?: #(?P<nth>\d+))?(?: (?:x(?P<times>\d+)|(?P<always>always)))?: *)?(?P<what>.+)"
)
_OF_CALLS = ("silent", "slow", "drop", "die", "error")


def play(sandbox: Sandbox, text: str) -> Optional[Fault]:
    """Let it go wrong, at once or at the call; the fault of that call. ValueError says what cannot be understood."""
    found = _FORM.fullmatch(text.strip())
    words = found["what"].split() if found else []
    after = len(words) > 1 and words[-1] == "after"
    words = words[: len(words) - after]
    if found is None or not words:
        raise ValueError(f"{text!r} is no fault: {HELP}")
    if found["call"] is None:
        _action(sandbox, words, text)()
        return None
    fault = _of_call(words, text) if words[0] in _OF_CALLS else Fault("do", re.compile(""))
    if fault.kind == "do":
        fault.action, fault.ends = _action(sandbox, words, text), words[0] in ("refuse", "failover")
    fault.pattern = re.compile(f"^{found['call']}$")
    fault.skip = int(found["nth"] or 1) - 1
    fault.remaining = -1 if found["always"] else int(found["times"] or 1)
    fault.after_work = after
    return sandbox.faults.add(fault)


def _of_call(words: list[str], text: str) -> Fault:
    kind, *rest = words
    any_call = re.compile("")
    if kind == "silent" and len(rest) < 2:
        return Fault("hang", any_call, seconds=_number(rest[0], text) if rest else None)
    if kind == "slow" and len(rest) == 1:
        return Fault("delay", any_call, seconds=_number(rest[0], text))
    if kind == "drop" and not rest:
        return Fault("drop", any_call)
    if kind == "die" and len(rest) == 1:
        return Fault("die", any_call, breaks_after=max(0, int(_number(rest[0], text))))
    if kind == "error":
        code = int(_number(rest[0], text)) if rest else answers.FAIL_UNKNOWN_ERROR
        entries = answers.plain_error(code, " ".join(rest[1:]) or "injected failure")
        entries[0]["error_report_ids"] = [answers.report_id()]
        return Fault("answer", any_call, status=answers.status_of(entries, 500), body=entries)
    raise ValueError(f"{text!r} is no fault: {HELP}")


def _number(word: str, text: str) -> float:
    try:
        return float(word.rstrip("s"))
    except ValueError:
        raise ValueError(f"{word!r} is no number in the fault {text!r}") from None


def _action(sandbox: Sandbox, words: list[str], text: str) -> Callable[[], object]:
    """What the words do to the sandbox, checked before it is done."""
    kind, *rest = words
    plain = {
        "refuse": sandbox.stop_controller,
        "listen": sandbox.start_controller,
        "failover": sandbox.fail_over,
        "mend": sandbox.repair,
    }
    if kind in plain and not rest:
        return plain[kind]
    node = rest[0].split("/")[0] if rest else ""
    if kind not in ("offline", "online", "full", "broken", "ssh"):
        raise ValueError(f"{text!r} is no fault: {HELP}")
    if node not in sandbox.cluster.nodes:
        raise ValueError(
            f"{node!r} in the fault {text!r} is none of the nodes "
            f"{', '.join(found.name for found in sandbox.cluster.nodes)}"
        )
    return _on_node(sandbox, kind, node, rest, text)


def _on_node(sandbox: Sandbox, kind: str, node: str, rest: list[str], text: str) -> Callable[[], object]:
    if kind in ("offline", "online") and len(rest) == 1:
        return lambda: sandbox.set_node(node, online=kind == "online")
    if kind == "full" and rest[0].partition("/")[2] in sandbox.cluster.nodes[node].pools:
        free = int(_number(rest[1], text)) if rest[1:] else 0
        return lambda: sandbox.fill_pool(node, rest[0].partition("/")[2], free)
    if kind == "broken" and len(rest) == 2 and rest[1] in sandbox.OPERATIONS:
        return lambda: sandbox.break_satellite(node, rest[1])
    if kind == "ssh" and (rest[1:] in (["hang"], ["refuse"], ["exit"], ["ok"]) or rest[1:2] == ["die"] and rest[2:]):
        after = int(_number(rest[2], text)) if rest[2:] else 0
        return lambda: sandbox.set_ssh(node, rest[1], after)
    raise ValueError(f"{text!r} is no fault: {HELP}")
