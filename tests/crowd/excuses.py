"""What a call that was killed, or has said so, may leave: what it is, who must show it, and who takes it away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from linstor_sandbox.opennebula.scripts import Call

# In the place of what a call said: SIGKILL has ended it and it could say nothing.
_KILLED = "killed"
# An operator's own command, after which oned calls nobody.
_DONE = "done"
# It has failed, whatever it said, and oned neither undoes nor repeats it.
_FAILED = "failed"
_NOT_TAKEN_BACK = r"could not take back (volume|attachment of) {name}\b"
# LINSTOR comes to it when nobody waits any more, and after the undoing.
_LATE = r"{name}\b.*did not answer within"
_UNFINISHED = (_KILLED, _NOT_TAKEN_BACK, _LATE)
# A call that says one of these has not mended what it was to mend.
_NOT_MENDED = r"stays? (there|attached)|goes for good|not let go of|may be attached|left alone"


class _Excuse(NamedTuple):
    """`what` may be too much after a call of `verbs` that `shows` one of these, until one of `mends` has succeeded.

    `outlives` is what may be there even when oned has deleted everything: an operator's audit mends it.
    """

    what: str
    verbs: str
    shows: Sequence[str]
    mends: str
    why: str
    outlives: bool = False


_ENDS = r"tm/(delete|mvds)|datastore/rm"
_EXCUSES = (
    _Excuse(
        r"^one-vm-\d+: directory|^one-\S+: link",
        r"tm/(delete|mv|mvds|postmigrate|failmigrate)",
        (_KILLED, "stays? there"),
        r"tm/(delete|mvds|mv)",
        "what is on a host that did not answer, or that the VM has left: oned does not ask for its removal twice",
        outlives=True,
    ),
    _Excuse(
        r"^one-vm-\d+: directory|^one-\S+: link|attached on",
        r"onevm/recover-failure",
        (_DONE,),
        r"tm/(delete|mvds|mv)",
        "what had moved already when the VM went back to where it was: oned calls nothing for it",
        outlives=True,
    ),
    _Excuse(
        r"^one-vm-\d+|^one-\S+: link|attached on|two primaries",
        r"onevm/recover-success",
        (_DONE,),
        _ENDS,
        "what a VM has left whose failed end was taken for done: oned calls nothing for it",
        outlives=True,
    ),
    _Excuse(
        r"attached on",
        r"tm/(postmigrate|failmigrate)",
        (_FAILED,),
        _ENDS,
        "a migration whose end has failed: oned does not call that twice",
    ),
    _Excuse(
        r"attached on",
        r"tm/(delete|mvds|mv|ln|clone|cpds|snap_revert|\w*migrate)|datastore/(cp|clone|mkfs|export|snap_\w+)",
        (*_UNFINISHED, "stays? (there|attached)", "not let go of", "may be attached"),
        _ENDS,
        "where a host or LINSTOR was away, or a copy was cut off that had it there to read or to fill it",
    ),
    _Excuse(
        r"^one-image-\d+: (bytes|size|replicas|incomplete)",
        r"datastore/(cp|mkfs|clone)",
        _UNFINISHED,
        r"datastore/rm",
        "oned forgets an image that got no SOURCE without a call: its volume says whose it is",
        outlives=True,
    ),
    _Excuse(
        r"^one-\S+: (?!link)",
        r".*",
        (r"{name} is deleted but for its snapshots",),
        _ENDS,
        "LINSTOR keeps a volume for its snapshots, and nobody deletes it once more when their nodes are back",
        outlives=True,
    ),
    _Excuse(
        r"^one-vm-\d+-|attached on",
        r"tm/delete",
        (_FAILED,),
        _ENDS,
        "what recover-delete could not delete: oned goes on behind a failed line, and does not repeat it",
        outlives=True,
    ),
    _Excuse(
        r": two primaries",
        r"tm/(postmigrate|failmigrate)",
        (_FAILED,),
        rf"tm/\w*migrate|{_ENDS}",
        "until the volume's next migration or end: oned does not call it twice",
    ),
    _Excuse(
        r": snapshot-\d+",
        r"tm/snap_create(_live)?",
        (_KILLED, r"could not take back snapshot", "did not answer within"),
        rf"tm/snap_delete|{_ENDS}",
        "oned gives no id twice: it goes with the volume",
    ),
    _Excuse(
        r"-checkpoint: ",
        r"vmm/(save|restore)_linstor_un",
        (*_UNFINISHED, "not as tidy", "Deleting {name} failed"),
        r"vmm/restore_linstor_un|tm/delete",
        "memory that nobody restores: the VM's next memory, or its end, removes it",
    ),
    _Excuse(
        r"^locks: linstor_un-",
        r".*",
        (_KILLED,),
        r"tm/(delete|clone|mkimage|mkswap)|datastore/rm",
        "the lock file of a killed action: nobody holds it, and the next action on that volume removes it, or the next "
        "start of the front-end",
        outlives=True,
    ),
    _Excuse(
        r"^one-vm-\d+-(disk-\d+|checkpoint)-\d: ",
        r"tm/(clone|mkimage|mkswap)|vmm/save_linstor_un",
        (*_UNFINISHED, "is deleted and waits for its offline nodes"),
        r"tm/delete",
        "the volume of a disk whose first name was not free, made anew under that one: it goes at the VM's end",
    ),
    _Excuse(
        r"^one-vm-\d+-disk-\d+: (bytes|size|replicas|incomplete)",
        r"tm/(clone|mkimage|mkswap)",
        _UNFINISHED,
        r"tm/(delete|clone|mkimage|mkswap)",
        "oned forgets a disk that could not be attached without a call: the next disk of that id, or the VM's end",
    ),
)


def is_excused(line: str, calls: Sequence[Call], at_end: bool = False) -> bool:
    """Whether a call of those that had to do with a difference may leave it, and none since has mended it.

    `at_end` when oned has deleted everything.
    """
    grown = re.search(r": size: (\d+) MiB instead of (\d+) MiB$", line)
    if grown is not None:
        # The hypervisor failed after it, and oned keeps the size of before.
        larger = f"has {grown[1]} MiB and OpenNebula gives the new image {grown[2]} MiB"
        return int(grown[1]) > int(grown[2]) and any(
            (call.verb == "resize" and call.argv[1] == grown[1] and call.succeeded) or larger in call.stderr
            for call in calls
        )
    if not line.endswith("instead of absent"):
        return False
    excuses = [excuse for excuse in _EXCUSES if re.search(excuse.what, line) and (excuse.outlives or not at_end)]
    return any(_is_open(excuse, line, calls) for excuse in excuses)


def _is_open(excuse: _Excuse, line: str, calls: Sequence[Call]) -> bool:
    """Whether the last word on it is a call that may leave it, and not one that must have mended it."""
    is_open = False
    for call in calls:
        verb = f"{call.kind}/{call.verb}"
        if re.fullmatch(excuse.verbs, verb) and _shows(excuse, line, call):
            is_open = True
        elif re.fullmatch(excuse.mends, verb) and call.succeeded and not re.search(_NOT_MENDED, call.stderr):
            is_open = is_open and not _is_about(line, call, calls)
    return is_open


def _shows(excuse: _Excuse, line: str, call: Call) -> bool:
    name = re.escape(line.partition(":")[0])
    host = re.search(r"(?:attached on|link|directory \d+ on) ([^\s:]+)", line)
    if call.kind == "onevm" and host is not None and not call.argv[0].startswith(f"{host[1]}:"):
        # A VM that was parked there.
        return host[1] == "front-end"
    if (_KILLED in excuse.shows and call.exit_code == 255) or (_FAILED in excuse.shows and not call.succeeded):
        return True
    if call.kind == "onevm":
        return True
    said = [text.format(name=name) for text in excuse.shows if text not in (_KILLED, _FAILED, _DONE)]
    return any(re.search(text, call.stderr) for text in said)


def _is_about(line: str, call: Call, calls: Sequence[Call]) -> bool:
    """Whether a call had to mend the very thing: that place, that snapshot, that disk, or all of the VM."""
    place, disks = _place(line), _disks(call)
    if place:
        return call.argv[0].endswith(place) or call.argv[0].endswith(place.rpartition("/disk.")[0] or place)
    if line.startswith("locks:"):
        # Copies share a lock of another name, and a directory's deletion takes those of volumes that are still there.
        return "@" not in line and (call.verb == "rm" or _own_disk(line) in disks)
    if line.startswith("one-image-"):
        return _gives_back(line, call, calls)
    snapshot = re.search(r": snapshot-(\d+)", line)
    if snapshot and call.verb == "snap_delete" and call.argv[1] != snapshot[1]:
        return False
    return not disks or not _own_disk(line) or _own_disk(line) in disks


def _gives_back(line: str, call: Call, calls: Sequence[Call]) -> bool:
    """Whether a call had to take an image from where it is: others may have it on other hosts, if it is shared."""
    name, host = line.partition(":")[0], re.search(r"attached on (\S+):", line)
    if call.verb != "delete":
        return call.verb == "rm" or any(f"/{name}/" in argument for argument in call.argv) or "migrate" in call.verb
    linked = {disk for other in calls if other.verb == "ln" and f"/{name}/" in other.argv[0] for disk in _disks(other)}
    return bool(linked & _disks(call)) and (host is None or call.argv[0].startswith(f"{host[1]}:"))


def _disks(call: Call) -> set[str]:
    """The disks that a call's arguments name, as VM/disk.N."""
    paths = [re.search(r"/(\d+/disk\.\d+)$", argument) for argument in call.argv]
    return {path[1] for path in paths if path}


def _own_disk(line: str) -> str:
    """The disk whose own volume a difference is about, as VM/disk.N, or nothing."""
    named = re.search(r"one-vm-(\d+)-disk-(\d+)", line)
    return f"{named[1]}/disk.{named[2]}" if named else ""


def _place(line: str) -> str:
    """The end of the path of a directory or link that is left, with the host; empty for anything else."""
    link = re.search(r": link (\S+): ", line)
    if link:
        host, _, path = link[1].partition(":")
        return f"{host}:/var/lib/one//datastores/{path}"
    directory = re.match(r"one-vm-(\d+): directory (\d+) on (\S+):", line)
    return f"{directory[3]}:/var/lib/one//datastores/{directory[2]}/{directory[1]}" if directory else ""
