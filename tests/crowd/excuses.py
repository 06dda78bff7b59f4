"""What a killed or cut-off action may leave: what it is, and what the calls that had to do with it must show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from linstor_sandbox.opennebula.scripts import Call

# In the place of what a call said: it was killed and could say nothing.
_KILLED = "killed"
# What is too much, the verbs that may leave it, what the call must have said, and why that is no difference.
_EXCUSES = (
    (
        r"^one-vm-\d+: directory|^one-\S+: link",
        ".*",
        "stays? there",
        "a directory on a host that did not answer: the call has said so",
    ),
    (r"attached on", ".*", "stays? (there|attached)", "the same of a volume, until its next action or its deletion"),
    (
        r"attached on",
        "delete|mvds|mv|ln|.*migrate",
        None,
        "the same, whose detaching was cut off",
    ),
    (
        r"attached on",
        "cp|clone|mkfs",
        None,
        "a copy that was cut off had it there to read or to fill it: oned forgets its target without a call",
    ),
    (
        r"^one-vm-\d+: directory|^one-\S+: link",
        "delete|mv|postmigrate|failmigrate",
        _KILLED,
        "what is on a host that the VM has left, where oned does not ask for its removal twice",
    ),
    (
        r"^one-image-\d+: (bytes|size|replicas|incomplete)",
        "cp|mkfs|clone",
        None,
        "oned forgets an image that got no SOURCE without a call: its volume says whose it is",
    ),
    (r": two primaries", "postmigrate|failmigrate|premigrate", None, "until the volume's next migration or end"),
    (r": snapshot-\d+", "snap_create|snap_create_live", None, "oned gives no id twice: it goes with the volume"),
    (
        r"-checkpoint: ",
        "save_linstor_un",
        "Creating .*(went away|did not answer)",
        "a creation to which LINSTOR came when nobody waited for it any more",
    ),
    (r"-checkpoint: incomplete", "save_linstor_un", "not as tidy", "it is restored all the same, and then deleted"),
    (r"^locks: linstor_un-", ".*", None, "the lock file of a killed action: nobody holds it"),
    (
        r"^one-vm-\d+-(disk-\d+|checkpoint)-\d: ",
        ".*",
        None,
        "the volume of a disk whose first name was not free, made anew under that one: it goes at the VM's end",
    ),
    (
        r"^one-vm-\d+-disk-\d+: ",
        "clone|mkimage|mkswap",
        None,
        "oned forgets a disk that could not be attached without a call: the next disk of that id, or the VM's end",
    ),
)


def is_excused(line: str, calls: Sequence[Call]) -> bool:
    """Whether a difference is one that a call which failed, or warned of it, may leave, or oned itself."""
    grown = re.search(r": size: (\d+) MiB instead of (\d+) MiB$", line)
    if grown is not None:
        # The hypervisor failed after it, and oned keeps the size of before.
        return int(grown[1]) > int(grown[2]) and any(
            call.verb == "resize" and call.argv[1] == grown[1] and call.succeeded for call in calls
        )
    if not line.endswith("instead of absent"):
        return False
    for what, verbs, said, _ in _EXCUSES:
        if re.search(what, line) and any(_shows(call, verbs, said) for call in calls):
            return True
    return False


def _shows(call: Call, verbs: str, said: Optional[str]) -> bool:
    if re.fullmatch(verbs, call.verb) is None:
        return False
    if said is None:
        return not call.succeeded
    return call.exit_code == 255 if said is _KILLED else re.search(said, call.stderr) is not None
