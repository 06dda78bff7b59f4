"""Return codes and messages: LINSTOR's ApiCallRc entries and the answers that carry them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

JsonObject = dict[str, Any]

MASK_ERROR = 0xC000000000000000
MASK_WARN = 0x8000000000000000
MASK_INFO = 0x4000000000000000
MASK_SUCCESS = 0
CODE_BITS = 0x7FFF

CREATE = 0x1000000
MODIFY = 0x2000000
DELETE = 0x3000000

NODE = 0x3C0000
RSC_DFN = 0x380000
RSC = 0x340000
VLM_DFN = 0x300000
VLM = 0x2C0000
RSC_CONN = 0x240000
STOR_POOL_DFN = 0x180000
STOR_POOL = 0x140000
CTRL_CONF = 0x100000
SNAPSHOT = 0x0C0000
VLM_GRP = 0x480000
RSC_GRP = 0x440000
KVS = 0x400000

CREATED, DELETED, MODIFIED, PASSPHRASE_ACCEPTED = 1, 2, 3, 4

FAIL_INVLD_NODE_NAME = 200
FAIL_INVLD_RSC_NAME = 202
FAIL_INVLD_VLM_SIZE = 206
FAIL_INVLD_STOR_POOL_NAME = 208
FAIL_INVLD_PROP = 213
FAIL_INVLD_SNAPSHOT_NAME = 218
FAIL_INVLD_STOR_DRIVER = 221
FAIL_INVLD_KVS_NAME = 223
FAIL_INVLD_LAYER_STACK = 225
FAIL_INVLD_PROVIDER = 227
FAIL_INVLD_VLM_SIZES = 228
FAIL_INVLD_REQUEST = 234
FAIL_INVLD_RSC_GRP_NAME = 237
FAIL_NOT_FOUND_NODE = 300
FAIL_NOT_FOUND_RSC_DFN = 301
FAIL_NOT_FOUND_RSC = 302
FAIL_NOT_FOUND_VLM_DFN = 303
FAIL_NOT_FOUND_STOR_POOL_DFN = 309
FAIL_NOT_FOUND_STOR_POOL = 310
FAIL_NOT_FOUND_DFLT_STOR_POOL = 311
FAIL_NOT_FOUND_SNAPSHOT_DFN = 313
FAIL_NOT_FOUND_SNAPSHOT = 315
FAIL_NOT_FOUND_KVS = 316
FAIL_NOT_FOUND_RSC_GRP = 317
FAIL_NOT_FOUND_VLM_GRP = 318
FAIL_ACC_DENIED_COMMAND = 412
FAIL_EXISTS_NODE = 500
FAIL_EXISTS_RSC_DFN = 501
FAIL_EXISTS_RSC = 502
FAIL_EXISTS_VLM_DFN = 503
FAIL_EXISTS_NODE_CONN = 506
FAIL_EXISTS_STOR_POOL = 510
FAIL_EXISTS_CRYPT_PASSPHRASE = 512
FAIL_EXISTS_SNAPSHOT_DFN = 514
FAIL_EXISTS_EXT_NAME = 517
FAIL_EXISTS_RSC_GRP = 522
FAIL_EXISTS_VLM_GRP = 523
FAIL_MISSING_PROPS = 600
FAIL_EXISTS_LIVE_MIGRATE = 901
FAIL_NOT_ALL_UPTODATE = 974
FAIL_DEPENDEND_BACKUP = 977
FAIL_NOT_ENOUGH_FREE_SPACE = 980
FAIL_STLT_DOES_NOT_SUPPORT_LAYER = 988
FAIL_STLT_DOES_NOT_SUPPORT_PROVIDER = 989
FAIL_INSUFFICIENT_REPLICA_COUNT = 991
FAIL_INSUFFICIENT_PEER_SLOTS = 993
FAIL_SNAPSHOTS_NOT_SUPPORTED = 994
FAIL_NOT_CONNECTED = 995
FAIL_NOT_ENOUGH_NODES = 996
FAIL_IN_USE = 997
FAIL_UNKNOWN_ERROR = 998
FAIL_IMPL_ERROR = 999
WARN_NOT_CONNECTED = 1002
WARN_RSC_ALREADY_DEPLOYED = 1006
WARN_RSC_ALREADY_HAS_DISK = 1007
WARN_RSC_ALREADY_DISKLESS = 1008
WARN_NOT_FOUND_CRYPT_KEY = 1011
WARN_LAYER_STACK_EXTENDED = 1012
WARN_NOT_ENOUGH_NODES_FOR_TIE_BREAKER = 1013
WARN_VLMDFN_RESIZE_SAME_SIZE = 1023
WARN_NOT_FOUND = 3000
WARN_DEPRECATED = 4000
INFO_NO_RSC_SPAWNED = 10000
INFO_PROP_SET = 10002
INFO_TIE_BREAKER_CREATED = 10003
INFO_TIE_BREAKER_DELETING = 10004
INFO_PROP_REMOVED = 10005
INFO_TIE_BREAKER_TAKEOVER = 10006
INFO_NOOP = 10007
INFO_RSC_ALREADY_EXISTS = 10008

API_CALL_PARSE_ERROR = 0xCFFFFFFFFFFFFFFD

_reports = itertools.count(1)


def signed(value: int) -> int:
    """The JSON form of a return code: Java's signed 64-bit long."""
    return value - (1 << 64) if value >= 1 << 63 else value


def unsigned(value: int) -> int:
    """The 64 bits of a return code, as they are."""
    return value & 0xFFFFFFFFFFFFFFFF


def is_error(ret_code: int) -> bool:
    """Whether both severity bits are set."""
    return unsigned(ret_code) & MASK_ERROR == MASK_ERROR


def timestamp() -> str:
    """The moment as ApiCallRc.created_at has it: ISO-8601, UTC."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09d}Z"


def report_id() -> str:
    """A new id of an error report."""
    return f"6B02D528-00000-{next(_reports):06d}"


class ApiError(Exception):
    """An error entry that ends a call; `bare` leaves out operation, object and references of the call."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        cause: str = "",
        details: str = "",
        correction: str = "",
        report: bool = False,
        bare: bool = False,
        obj: Optional[int] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.cause = cause
        self.details = details
        self.correction = correction
        self.report = report
        self.bare = bare
        self.obj = obj


class ParseError(Exception):
    """A body that is no JSON, or has a key that this version of the API does not know."""


class Hang(Exception):
    """The controller never answers (`POST .../clone` with an unknown key)."""


def not_found(code: int, kind: str, name: str, *, bare: bool = False, described: str = "") -> ApiError:
    """The controller's usual words for an object that is not in its database."""
    what = described or f"{kind} '{name}'"
    return ApiError(
        code,
        f"{what[0].upper()}{what[1:]} not found.",
        cause=f"The specified {what} could not be found in the database",
        correction=f"Create a {kind} with the name '{name}' first.",
        bare=bare,
    )


@dataclass
class Context:
    """What a call is about: operation and object bits, references and the description that errors carry."""

    operation: int
    obj: int
    refs: Mapping[str, Optional[str]] = field(default_factory=dict)
    description: str = ""


class Answer:
    """The list of ApiCallRc entries of one call, in order."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.entries: list[JsonObject] = []

    def _append(self, ret_code: int, message: str, refs: Mapping[str, Optional[str]], **texts: str) -> None:
        entry: JsonObject = {"ret_code": signed(ret_code), "message": message}
        entry.update((key, value) for key, value in texts.items() if value)
        if refs:
            entry["obj_refs"] = dict(refs)
        entry["created_at"] = timestamp()
        self.entries.append(entry)

    def add(
        self,
        code: int,
        message: str,
        *,
        severity: int = MASK_SUCCESS,
        op: Optional[int] = None,
        obj: Optional[int] = None,
        refs: Optional[Mapping[str, Optional[str]]] = None,
        cause: str = "",
        details: str = "",
        correction: str = "",
    ) -> None:
        """One entry; operation, object and references default to those of the call."""
        ret_code = severity | (self.context.operation if op is None else op)
        ret_code |= (self.context.obj if obj is None else obj) | code
        merged = {**(refs or {}), **self.context.refs}
        self._append(ret_code, message, merged, cause=cause, details=details, correction=correction)

    def info(self, code: int, message: str, **texts: Any) -> None:
        """An information entry."""
        self.add(code, message, severity=MASK_INFO, **texts)

    def warn(self, code: int, message: str, **texts: Any) -> None:
        """A warning entry."""
        self.add(code, message, severity=MASK_WARN, **texts)

    def bare_warning(self, code: int, message: str, **texts: str) -> None:
        """A warning without the bits and references of the call."""
        self._append(MASK_WARN | code, message, {}, **texts)

    def error(self, exc: ApiError) -> None:
        """The entry of an error, with the description of the call as details."""
        if exc.bare:
            self._append(
                MASK_ERROR | exc.code, exc.message, {}, cause=exc.cause, details=exc.details, correction=exc.correction
            )
        else:
            self.add(
                exc.code,
                exc.message,
                severity=MASK_ERROR,
                obj=exc.obj,
                cause=exc.cause,
                details="\n".join(text for text in (exc.details, self.context.description) if text),
                correction=exc.correction,
            )
        if exc.report:
            self.entries[-1]["error_report_ids"] = [report_id()]

    def satellite_error(self, node: str, message: str, details: str = "") -> None:
        """A command that failed on a node: 998 with the node's name in front."""
        self.add(FAIL_UNKNOWN_ERROR, f"({node}) {message}", severity=MASK_ERROR, details=details)
        self.entries[-1]["error_report_ids"] = [report_id()]

    def not_connected(self, node: str) -> None:
        """The warning of a satellite that is not connected."""
        self.warn(WARN_NOT_CONNECTED, f"No active connection to satellite '{node}'", details=NOT_CONNECTED_DETAILS)

    def has_error(self) -> bool:
        """Whether an entry is an error."""
        return any(is_error(entry["ret_code"]) for entry in self.entries)

    def status(self, success: int) -> int:
        """HTTP status of this answer."""
        return status_of(self.entries, success)


NOT_CONNECTED_DETAILS = (
    "The controller is trying to (re-) establish a connection to the satellite. The controller stored the changes "
    "and as soon the satellite is connected, it will receive this update."
)


def status_of(entries: list[JsonObject], success: int) -> int:
    """HTTP status of a list of entries: the first error decides."""
    for entry in entries:
        code = unsigned(entry["ret_code"])
        if code & MASK_ERROR == MASK_ERROR:
            return 404 if 300 <= code & CODE_BITS < 400 else 500
    return success


def parse_error(details: str) -> list[JsonObject]:
    """The answer to a body that cannot be read."""
    return [
        {
            "ret_code": signed(API_CALL_PARSE_ERROR),
            "message": "Unable to parse input json.",
            "details": details,
            "error_report_ids": [report_id()],
            "created_at": timestamp(),
        }
    ]


def plain_error(code: int, message: str, details: str = "", report: bool = False) -> list[JsonObject]:
    """One error entry without bits and references of a call."""
    entry: JsonObject = {"ret_code": signed(MASK_ERROR | code), "message": message}
    if details:
        entry["details"] = details
    if report:
        entry["error_report_ids"] = [report_id()]
    entry["created_at"] = timestamp()
    return [entry]
