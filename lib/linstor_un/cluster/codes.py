"""LINSTOR's return codes, and the exception that each becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from linstor_un.errors import (
    AlreadyExists,
    ControllerFailed,
    DriverError,
    InUse,
    InvalidInput,
    NoRoom,
    NotFound,
    NotReady,
)

_ERROR = 0xC000000000000000
_WARNING = 0x8000000000000000
_SEVERITY = 0xC000000000000000
_CODE = 0x7FFF

INVALID_SIZE = 206
NOT_FOUND_NODE = 300
NOT_FOUND_STORAGE_POOL = 310
NOT_FOUND_SNAPSHOT_DEFINITION = 313
NOT_FOUND_RESOURCE_GROUP = 317
EXISTS_SNAPSHOT = 514
EXISTS_RESOURCE_GROUP = 522
SNAPSHOTS_NOT_SUPPORTED = 994
NOT_CONNECTED = 995
INFO_PROPERTY_SET = 10002
WARN_NOT_CONNECTED = 1002
WARN_SAME_SIZE = 1023

_CLASSES: dict[int, type[DriverError]] = {
    202: InvalidInput,
    INVALID_SIZE: InvalidInput,
    213: InvalidInput,
    218: InvalidInput,
    974: NotReady,
    979: NotReady,
    980: NoRoom,
    988: NotReady,
    989: NotReady,
    992: InUse,
    NOT_CONNECTED: NotReady,
    996: NoRoom,
    997: InUse,
}
_REMEDIES: dict[type[DriverError], str] = {
    AlreadyExists: "remove it if nothing needs it (`linstor resource-definition list`)",
    ControllerFailed: "see `linstor error-reports list`",
    InUse: "close it there (`drbdsetup status` shows where it is Primary) and retry",
    InvalidInput: "correct the value",
    NoRoom: "free space, bring nodes back, or change the datastore's placement attributes",
    NotFound: "check `linstor resource list` and `linstor node list`",
    NotReady: "wait until `linstor resource list` shows UpToDate and `linstor node list` ONLINE, and retry",
}


class Entry(NamedTuple):
    """One entry of a controller's answer."""

    return_code: int
    message: str
    cause: str
    details: str
    correction: str
    reports: tuple[str, ...]
    references: Mapping[str, str]

    @property
    def is_error(self) -> bool:
        """Tell whether the request failed; a negative code alone does not say so."""
        return self.return_code & _SEVERITY == _ERROR

    @property
    def is_warning(self) -> bool:
        """Tell whether the controller warns; a request with a warning may be half done."""
        return self.return_code & _SEVERITY == _WARNING

    @property
    def code(self) -> int:
        """Return the low bits that say what happened; compare them together with the severity."""
        return self.return_code & _CODE


def entry(data: Mapping[str, Any]) -> Entry:
    """Read one entry; a hung satellite's lacks even the message."""
    return Entry(
        return_code=int(data.get("ret_code", 0)),
        message=str(data.get("message", "")),
        cause=str(data.get("cause", "")),
        details=str(data.get("details", "")),
        correction=str(data.get("correction", "")),
        reports=tuple(data.get("error_report_ids", ())),
        references=dict(data.get("obj_refs") or {}),
    )


def refusal(what: str, entries: Sequence[Entry]) -> DriverError:
    """Return the error that tells a person what the controller refused, and the remedy; its `code` is LINSTOR's.

    The deciding entry is often not the first: successes come before the satellite's error.
    """
    decisive = next((item for item in entries if item.is_error), None) or entry({})
    code = decisive.code
    if 300 <= code < 400:
        kind: type[DriverError] = NotFound
    elif 500 <= code < 600:
        kind = AlreadyExists
    elif code == INVALID_SIZE and "free space" in decisive.message:
        kind = NoRoom
    else:
        kind = _CLASSES.get(code, ControllerFailed)
    if code == 999 or "transMgr" in decisive.message:
        remedy = "the controller is confused by one of its own bugs: restart linstor-controller and retry"
    else:
        remedy = _remedy(decisive, kind)
    error = kind(f"{what} failed: {_sentence(decisive)}; {remedy}")
    error.code = code
    return error


def _sentence(item: Entry) -> str:
    parts = [item.message or "LINSTOR gave no reason", item.cause]
    text = ". ".join(part.strip().rstrip(".") for part in parts if part.strip())
    return " ".join(text.split())


def _remedy(item: Entry, kind: type[DriverError]) -> str:
    reports = f" (error report {', '.join(item.reports)})" if item.reports else ""
    correction = " ".join(item.correction.split()).rstrip(".")
    if item.code == SNAPSHOTS_NOT_SUPPORTED:
        correction = "keep disks that need snapshots in a pool of kind LVM_THIN, ZFS, ZFS_THIN or FILE_THIN"
    if not correction and "master key" in item.message + item.cause:
        correction = "give LINSTOR its passphrase with `linstor encryption create-passphrase` or `enter-passphrase`"
    return (correction or _REMEDIES[kind]) + reports
