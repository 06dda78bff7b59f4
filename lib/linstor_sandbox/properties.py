"""Properties: which keys and values the controller takes, and how a modify request changes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from re import Pattern
from typing import Any, NoReturn

from . import answers
from .answers import Answer, ApiError

Props = dict[str, str]

ALLOW_TWO_PRIMARIES = "DrbdOptions/Net/allow-two-primaries"
QUORUM = "DrbdOptions/Resource/quorum"
QUORUM_SET_BY = "Internal/Drbd/QuorumSetBy"
AUTO_TIEBREAKER = "DrbdOptions/auto-add-quorum-tiebreaker"
AUTO_VERIFY = "DrbdOptions/auto-verify-alg"
EXACT_SIZE = "DrbdOptions/ExactSize"
SKIP_DISK = "DrbdOptions/SkipDisk"
FREEZE_BLOCK_SIZE = "Linstor/Drbd/freeze-block-size"
DISCARD_GRANULARITY = "DrbdOptions/Disk/rs-discard-granularity"
STOR_POOL_NAME = "StorPoolName"
META_POOL = "StorPoolNameDrbdMeta"
ALLOW_MIXING = "AllowMixingStoragePools"
BALANCE_ENABLED = "BalanceResourcesEnabled"
OVERSUBSCRIPTION = "MaxOversubscriptionRatio"
OVERSUBSCRIPTION_FREE = "MaxFreeCapacityOversubscriptionRatio"
OVERSUBSCRIPTION_TOTAL = "MaxTotalCapacityOversubscriptionRatio"

_FREE_NAMESPACES = (
    "Aux/",
    "DrbdOptions/Net/",
    "DrbdOptions/Disk/",
    "DrbdOptions/PeerDevice/",
    "DrbdOptions/Resource/",
    "DrbdOptions/Handlers/",
    "StorDriver/",
    "Autoplacer/",
    "FileSystem/",
    "sys/fs/",
    "ExtCmd/",
    "Luks/",
    "Cluster/",
    "SnapshotShipping/",
    "BackupShipping/",
    "AutoSnapshot/",
    "Snapshot/",
    "Clone/",
    "REST/",
    "Internal/",
    "CopySnapshot/",
    "Writecache/",
    "Cache/",
)
_KEYS = frozenset(
    (
        STOR_POOL_NAME,
        META_POOL,
        "PrefNic",
        "PeerSlotsNewResource",
        "MinorNrAutoRange",
        "TcpPortAutoRange",
        OVERSUBSCRIPTION,
        OVERSUBSCRIPTION_FREE,
        OVERSUBSCRIPTION_TOTAL,
        BALANCE_ENABLED,
        "BalanceResourcesInterval",
        "BalanceResourcesGracePeriod",
        "BalanceResourcesSkipDiskLimit",
        ALLOW_MIXING,
        "SkipDisk",
        "AutoplaceTarget",
        "AllocationGranularity",
        "DiskfulBy",
        "netcomPort",
        "CurStltConnName",
        AUTO_TIEBREAKER,
        AUTO_VERIFY,
        EXACT_SIZE,
        SKIP_DISK,
        "DrbdOptions/auto-quorum",
        "DrbdOptions/auto-diskful",
        "DrbdOptions/auto-diskful-allow-cleanup",
        "DrbdOptions/EncryptPassphrase",
        "DrbdOptions/ForceInitialSync",
        "DrbdOptions/AutoEvictAllowEviction",
        "DrbdOptions/AutoEvictAfterTime",
        "DrbdOptions/AutoEvictMaxDisconnectedNodes",
        "DrbdOptions/AutoEvictMinReplicaCount",
        "DrbdOptions/auto-verify-algo-allowed-list",
        "DrbdOptions/verify-alg-disable",
        "DrbdOptions/ForceMetadataInternal",
    )
)
_YES_NO: tuple[Pattern[str], str] = (re.compile("yes|no", re.I), "This value must be either 'yes' or 'no'.")
_TRUE_FALSE: tuple[Pattern[str], str] = (re.compile("true|false|yes|no", re.I), "This value has to be a boolean.")
_VALUES: dict[str, tuple[Pattern[str], str]] = {
    ALLOW_TWO_PRIMARIES: _YES_NO,
    AUTO_TIEBREAKER: _TRUE_FALSE,
    EXACT_SIZE: _TRUE_FALSE,
    BALANCE_ENABLED: _TRUE_FALSE,
    "DrbdOptions/auto-diskful-allow-cleanup": _TRUE_FALSE,
    QUORUM: (re.compile(r"off|majority|all|\d+"), "This value must match off|majority|all or a number."),
    "DrbdOptions/Resource/on-no-quorum": (
        re.compile("io-error|suspend-io"),
        "This value must be either 'io-error' or 'suspend-io'.",
    ),
    "DrbdOptions/Net/protocol": (re.compile("[ABC]"), "This value must match A|B|C."),
}
_RANGES = {"DrbdOptions/Net/max-buffers": (32, 131072)}
_DEPRECATED = {"DrbdOptions/auto-quorum": QUORUM}


def _check_key(key: str) -> None:
    if key in _KEYS or any(key.startswith(space) and key != space for space in _FREE_NAMESPACES):
        return
    refuse_key(key)


def refuse_key(key: str) -> NoReturn:
    """ApiError 213 for a key that the controller does not know."""
    raise ApiError(
        answers.FAIL_INVLD_PROP,
        f"Invalid property key: {key}",
        cause=f"The key '{key}' is not whitelisted.",
        report=True,
    )


def _wrong_value(key: str, value: str) -> str:
    """What a value of this key has to look like; empty when the value does."""
    if key in _RANGES:
        low, high = _RANGES[key]
        return "" if value.isdigit() and low <= int(value) <= high else f"This value has to match ({low} - {high})."
    if key in _VALUES:
        pattern, text = _VALUES[key]
        return "" if pattern.fullmatch(value) else text
    return ""


def check(props: Mapping[str, Any]) -> Props:
    """The properties of a request as strings; ApiError 213 for the first bad key or value."""
    checked: Props = {}
    for key, value in props.items():
        text = str(value)
        _check_key(key)
        wrong = _wrong_value(key, text)
        if wrong:
            raise ApiError(
                answers.FAIL_INVLD_PROP,
                f"Invalid property({key}) value: {text}",
                cause=f"The value '{text}' is not valid for the key '{key}'",
                details=wrong,
                report=True,
            )
        checked[key] = text.lower() if _VALUES.get(key) is _TRUE_FALSE else text
    return checked


def strip_keys(props: Iterable[str], namespaces: Iterable[str]) -> list[str]:
    """The keys that lie in one of the namespaces."""
    roots = tuple(space.strip("/") + "/" for space in namespaces)
    return [key for key in props if roots and key.startswith(roots)]


def modify(answer: Answer, obj: int, target: Props, body: Mapping[str, Any]) -> bool:
    """override_props, delete_props and delete_namespaces of a request; True when something changed."""
    override = check(body.get("override_props") or {})
    deleted = list(body.get("delete_props") or [])
    spaces = strip_keys(target, body.get("delete_namespaces") or [])
    before = dict(target)
    for key in override:
        if key in _DEPRECATED:
            answer.warn(answers.WARN_DEPRECATED, f"{key} is deprecated, please use {_DEPRECATED[key]}")
    target.update(override)
    if override:
        answer.add(
            answers.CREATED, "Successfully set property key(s): " + ",".join(override), op=answers.CREATE, obj=obj
        )
    for key in [*deleted, *spaces]:
        target.pop(key, None)
    if deleted:
        answer.add(
            answers.DELETED, "Successfully deleted property key(s): " + ",".join(deleted), op=answers.DELETE, obj=obj
        )
    return target != before


def is_true(value: object) -> bool:
    """Whether a property's value means yes."""
    return str(value).lower() in ("true", "yes", "1")


def matches_filters(props: Mapping[str, str], filters: Iterable[str]) -> bool:
    """`Key` or `Key=Value`, all of which must hold."""
    for text in filters:
        key, equals, value = text.partition("=")
        if key not in props or (equals and props[key] != value):
            return False
    return True
