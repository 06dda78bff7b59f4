"""What names LINSTOR accepts."""

from __future__ import annotations

import string

from . import answers
from .answers import ApiError

_LETTERS = string.ascii_letters
_INNER = string.ascii_letters + string.digits + "_-"
_DRBD_KEYWORDS = ("all", "proxy")


def _cause(name: str, shortest: int, longest: int) -> str:
    """Why a name is refused, in the controller's words; empty when it is fine."""
    if len(name) < shortest:
        return f"Invalid name: Name length {len(name)} is less than minimum length {shortest}"
    if len(name) > longest:
        return f"Invalid name: Name length {len(name)} is greater than maximum length {longest}"
    if not any(char in _LETTERS for char in name):
        return "Invalid name: Name must contain at least one character that matches [a-zA-Z]"
    if name[0] not in _LETTERS + "_":
        return f"Invalid name: Cannot begin with character '{name[0]}'"
    bad = next((char for char in name if char not in _INNER), "")
    return f"Invalid name: Cannot contain character '{bad}'" if bad else ""


def _refuse(code: int, message: str, cause: str) -> None:
    if cause:
        raise ApiError(code, message, cause=cause, report=True)


def check_resource_name(name: str) -> None:
    """ApiError 202 for a bad name of a resource definition."""
    cause = _cause(name, 2, 48)
    if not cause and name.lower() in _DRBD_KEYWORDS:
        cause = f"The specified name '{name}' cannot be used because it matches a keyword reserved for DRBD."
    _refuse(answers.FAIL_INVLD_RSC_NAME, f"The specified resource name '{name}' is invalid.", cause)


def check_snapshot_name(name: object) -> None:
    """ApiError 218 for a bad name of a snapshot."""
    known = isinstance(name, str)
    cause = _cause(str(name), 2, 48) if known else "Given name is null"
    _refuse(
        answers.FAIL_INVLD_SNAPSHOT_NAME,
        f"The given snapshot name '{name if known else 'null'}' is invalid.",
        cause,
    )


def check_group_name(name: str) -> None:
    """ApiError 237 for a bad name of a resource group."""
    _refuse(answers.FAIL_INVLD_RSC_GRP_NAME, f"The given resource group name '{name}' is invalid.", _cause(name, 2, 48))


def check_pool_name(name: str) -> None:
    """ApiError 208 for a bad name of a storage pool, whose reason the real one does not give."""
    if _cause(name, 3, 48):
        raise ApiError(answers.FAIL_INVLD_STOR_POOL_NAME, f"The given storage pool name '{name}' is invalid.")


def check_kvs_name(name: str) -> None:
    """ApiError 223 for a bad name of a key-value store."""
    _refuse(
        answers.FAIL_INVLD_KVS_NAME,
        f"The given key value store instance name '{name}' is invalid.",
        _cause(name, 2, 48),
    )


def check_node_name(name: str) -> None:
    """ApiError 200 for a bad name of a node."""
    allowed = string.ascii_letters + string.digits + "-."
    bad = next((char for char in name if char not in allowed), "")
    if not 2 <= len(name) <= 255 or name[:1] in "-." or bad:
        cause = f"Domain name cannot contain character '{bad}'" if bad else "Invalid name: not a valid host name"
        _refuse(answers.FAIL_INVLD_NODE_NAME, f"The given node name '{name}' is invalid.", cause)


def name_from_external(external: str) -> str:
    """A resource name made from an external name: what is not allowed becomes _, bytes beyond ASCII become letters."""
    letters = string.ascii_uppercase + string.ascii_lowercase
    name = (
        "".join(
            letters[(256 - byte) % 52] if byte > 127 else chr(byte) if chr(byte) in _INNER else "_"
            for byte in external.encode("utf-8", "replace")
        )[:44]
        or "rsc"
    )
    return name if name[0] in _LETTERS + "_" else "_" + name
