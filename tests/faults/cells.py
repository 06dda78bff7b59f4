"""One cell of the matrix: a call with one fault at one step, what came of it, and what comes of the next try."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from linstor_sandbox.opennebula.scripts import Call
from tests.faults import faults
from tests.faults.faults import Fault
from tests.faults.picture import Picture, differences, picture, without_places
from tests.faults.scenes import Scene
from tests.faults.stage import LONGEST_CALL_SECONDS, CellFailed, Stage
from tests.faults.steps import Record, Step

BOUND_SECONDS = 30
_KILLED_ON_HOST = r"/(session-killed|power-lost)$"


class Waiver(NamedTuple):
    """What may be left, in `cells` alone: those of a fault that kills, or of the step that it is about."""

    left: str
    cells: str
    why: str


WAIVERS = (
    Waiver(
        r"flags: \['DISKLESS', 'DRBD_DISKLESS'\] instead of .*'TIE_BREAKER'",
        r"^\w+/snap_(revert|flatten)/.*-(GET-resources|DELETE-node\d)/",
        "what was the tie-breaker before a rollback and is one in all but name, where LINSTOR fails after that: the "
        "next run, or the next rollback, makes it one again",
    ),
    Waiver(
        r"^files/\w+/tmp/linstor_un\.\*: 0 ",
        r"-rm\d+/fails$|" + _KILLED_ON_HOST,
        "an empty staging file, whose script was killed between its making and the removal of its name, or could not "
        "remove it: the next import on that host removes it an hour later",
    ),
    Waiver(
        r"/\.linstor_un\.[^/]+: 0 ",
        r"-rm\d+/fails$|" + _KILLED_ON_HOST,
        "the empty mark of a directory's move whose script was killed, or could not remove it: the next move to that "
        "directory removes it an hour later, and its deletion at once",
    ),
    Waiver(
        r"^files/.*/\.disk\.\d+\.new: ",
        _KILLED_ON_HOST,
        "half a context, whose script was killed on its host: the next run takes over the name, and the directory's "
        "deletion removes it",
    ),
    Waiver(
        r"^(files/[^:]*|frontend/)datastores/\d+/\d+/[^:]*: \d+[^:]* instead of absent or ",
        r"^tm/(mv|premigrate)/.*-(tar|cp|dd|rm)\d+/|" + _KILLED_ON_HOST,
        "a file that has come to the VM's new directory in part: the next try overwrites it, and the directory's "
        "deletion removes it",
    ),
    Waiver(
        r"^resource_definitions/one-vm-\d+-checkpoint/(props/Aux/one/INCOMPLETE|resources/\w+/\w+): ",
        r"^vmm/save_linstor_un/rest\d+-(GET-resources|DELETE-node\d|PUT-one-vm-0-checkpoint)/",
        "the mark or the attachment of memory that is saved, where LINSTOR fails after that: the VM's resume or its "
        "end removes the volume",
    ),
    Waiver(
        r"^metadata_snapshots: ",
        r"^tm/prebackup.*-(sudo|dmsetup)\d+/(fails|hangs)$|" + _KILLED_ON_HOST,
        "a thin pool's metadata that are still reserved, where the script was killed on its host or could not release "
        "them: the next increment in the pool releases them, once nobody else has for COMMAND_TIMEOUT",
    ),
    Waiver(
        r"^bytes/[^:]*@restore-0/|^resource_definitions/[^/]+/snapshots/restore-0/",
        r"^tm/restore/.*-(GET-snapshots|DELETE-restore-0)/",
        "what a disk had before a restore that is done, where LINSTOR fails after that: the next restore, or the VM's "
        "end removes it",
    ),
)
# And what stays even behind the next try.
EXPORTED = Waiver(
    r"^files/\w+/tmp/linstor_un-export\.\*",
    _KILLED_ON_HOST,
    "an exported file whose script was killed on its host: a later export or import there removes it, once nobody has "
    "read it for two days",
)
_LOCK = r"^locks/linstor_un-([^/]+)\.lock: \d+ instead of absent$"


@dataclass(frozen=True)
class Cell:
    """A fault at a step of a scene's call; then the call again, or what undoes it."""

    scene: Scene
    step: Step
    fault: Fault
    undoes: bool = False

    @property
    def name(self) -> str:
        """By which it is run alone."""
        return f"{self.scene.name}/{self.step.name}/{self.fault.name}{'-then-undone' if self.undoes else ''}"


def cells(scene: Scene, recorded: Record) -> Iterator[Cell]:
    """The cells of one scene, as its record asks for them."""
    for step in recorded.steps:
        for fault in faults.at(step):
            if fault.name == "power-lost" and any(f"'{step.where}/" in value for value in recorded.before.values()):
                # The VM that runs there is gone too, and oned would not ask again for what it has asked.
                continue
            yield Cell(scene, step, fault)
            if fault.kills and recorded.undone:
                yield Cell(scene, step, fault, undoes=True)


def check(cell: Cell, stage: Stage, recorded: Record) -> list[str]:
    """What is wrong in a cell, in sentences; nothing where all is well."""
    try:
        return stage.try_out(lambda: list(_wrong(cell, stage, recorded)))
    except CellFailed as failure:
        return [f"the cell itself broke off: {failure}"]


def _wrong(cell: Cell, stage: Stage, recorded: Record) -> Iterator[str]:
    cell.fault.arm(stage, cell.step)
    try:
        call = stage.call()
    except subprocess.TimeoutExpired:
        yield f"it has not ended in {LONGEST_CALL_SECONDS} s"
        return
    if stage.was_cancelled and not cell.step.takes_long:
        yield "nothing but a cancel has ended it"
    if call.seconds > BOUND_SECONDS:
        yield f"it took {call.seconds:.0f} s"
    if cell.fault.passes and not call.succeeded:
        yield f"it failed although another controller had taken over: {call.stderr.strip()[-500:]}"
    if not cell.fault.kills:
        yield from (f"said: {wrong}" for wrong in _said(call, recorded))
    faults.mend(stage)
    yield from (f"left: {wrong}" for wrong in _left(cell, call, picture(stage), recorded))
    if cell.undoes:
        assert stage.counterpart is not None
        stage.counterpart(stage.world, call)
        undone = _differences(cell, picture(stage), *recorded.undone)
        yield from (f"undone: {wrong}" for wrong in undone if not _is_lock_of_another(cell, wrong, recorded.undone[0]))
        return
    _dispose(stage, call)
    again = stage.call()
    if not again.succeeded:
        yield f"again: it failed: {again.stderr.strip()[-500:]}"
    yield from (f"again: it said {wrong}" for wrong in _said(again, recorded))
    after = _differences(cell, picture(stage), recorded.after)
    yield from (f"again: {wrong}" for wrong in after if not _is_lock_of_another(cell, wrong, recorded.before))
    if stage.world.sandbox.exceptions:
        yield f"the sandbox itself has failed: {stage.world.sandbox.exceptions[0][-800:]}"


def _dispose(stage: Stage, call: Call) -> None:
    """Remove an exported file as the marketplace does that it was made for."""
    command = re.search(r"<DISPOSE_CMD><!\[CDATA\[(.*)\]\]>", call.stdout) if call.succeeded else None
    if command:
        environment = stage.world.cloud.scripts.environment
        subprocess.run(["sh", "-c", command.group(1)], env=environment, stdin=subprocess.DEVNULL, check=True)


def _said(call: Call, recorded: Record) -> Iterator[str]:
    """What is wrong with what a call has said: one line for success, one sentence with a remedy for a failure."""
    if call.succeeded:
        if _shape(call.stdout) != _shape(recorded.call.stdout):
            yield f"{call.stdout!r} on success instead of {recorded.call.stdout!r}"
        return
    lines = call.stderr.splitlines() or [""]
    if call.stdout:
        yield f"{call.stdout!r} on stdout although it failed"
    if "Traceback" in call.stderr or "defect of the driver" in call.stderr or not re.search(r"[:;,] ", lines[-1]):
        yield f"{call.stderr.strip()[-600:]!r} is no sentence with a remedy"


def _shape(text: str) -> str:
    return re.sub(r"linstor_un-export\.\w+|[0-9a-f]{32}|node\d|\d{4,}", "*", text)


def _left(cell: Cell, call: Call, found: Picture, recorded: Record) -> Iterator[str]:
    """What is wrong with what a call has left, which was not killed.

    Success is the undisturbed state; where it has warned of what it could not tidy up, thing by thing that or what was
    there before. A failure leaves thing by thing what was there before or what an undisturbed run
    leaves, and no volume that was not there before; where it could not undo, no volume without its owner's name.
    """
    if cell.fault.kills:
        return
    if call.succeeded:
        if "WARN: " not in call.stderr:
            yield from _differences(cell, found, recorded.after, waives=True)
            return
        # What is attached of a volume that should be gone goes with it.
        going = tuple(f"resource_definitions/{name}/" for name in _volumes(recorded.before) - _volumes(recorded.after))
        kept = {name: value for name, value in found.items() if not name.startswith(going)}
        yield from _differences(cell, {**recorded.before, **kept}, recorded.after, recorded.before, waives=True)
        return
    reason = f" (it said: {call.stderr.strip().splitlines()[-1][:200] if call.stderr.strip() else ''})"
    new = _volumes(found) - _volumes(recorded.before)
    if cell.fault.lasts:
        nameless = [name for name in sorted(new) if not _has_owner(found, name)]
        yield from (f"volume {name} does not say whose it is{reason}" for name in nameless)
        return
    yield from (f"volume {name}{reason}" for name in sorted(new))
    if not new:
        yield from (wrong + reason for wrong in _differences(cell, found, recorded.before, recorded.after, waives=True))


def _has_owner(found: Picture, volume: str) -> bool:
    owners = (f"resource_definitions/{volume}/props/Aux/one/{key}" for key in ("VM_ID", "IMAGE_ID"))
    return any(owner in found for owner in owners)


def _volumes(found: Picture) -> set[str]:
    return {name.split("/")[1] for name in found if name.startswith("resource_definitions/")}


def _is_waived(cell: Cell, line: str) -> bool:
    return any(re.search(waiver.left, line) and re.search(waiver.cells, cell.name) for waiver in WAIVERS)


def _is_lock_of_another(cell: Cell, line: str, there: Picture) -> bool:
    """Whether a lock that SIGKILL has left is of a volume that was there: a later call need not touch that."""
    match = re.search(_LOCK, line) if cell.fault.kills else None
    return match is not None and match[1].partition("@")[0] in _volumes(there)


def _differences(cell: Cell, found: Picture, *expected: Picture, waives: bool = False) -> list[str]:
    wrong = differences(found, *expected)
    if wrong and cell.fault.moves:
        wrong = differences(without_places(found), *(without_places(other) for other in expected))
    if re.search(EXPORTED.cells, cell.name):
        wrong = [line for line in wrong if not re.search(EXPORTED.left, line)]
    if waives:
        wrong = [line for line in wrong if not _is_waived(cell, line)]
    return [*wrong[:6], *([f"and {len(wrong) - 6} more"] if len(wrong) > 6 else [])]
