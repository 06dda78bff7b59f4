"""The keys that request bodies may have; any other is an error, as it is for the real controller."""

from __future__ import annotations

import json
import re
from typing import Any

from ..answers import ParseError

_PROPS = "override_props delete_props delete_namespaces"
_FILTER = (
    "place_count additional_place_count node_name_list storage_pool storage_pool_list storage_pool_diskless_list "
    "not_place_with_rsc not_place_with_rsc_regex replicas_on_same replicas_on_different "
    "x_replicas_on_different_map@1.23.0 "
    "layer_stack provider_list diskless_on_remaining diskless_type overprovision port_count"
)
# Without effect here: drbd_node_id, drbd_tcp_port_count, port_count, storage_pool_diskless_list, use_zfs_clone.
# A word is a key; `key:Schema` has an object below, `key:[Schema]` a list of them, `key@1.29.1` exists since then.
_SCHEMAS: dict[str, str] = {
    "AutoSelectFilter": _FILTER,
    "AutoPlaceRequest": "diskless_on_remaining select_filter:AutoSelectFilter layer_list snap_names@1.27.0 "
    "copy_all_snaps@1.27.0",
    "Node": "name type props flags net_interfaces:[NetInterface] connection_status uuid storage_providers "
    "resource_layers unsupported_providers unsupported_layers eviction_timestamp",
    "NetInterface": "name address satellite_port satellite_encryption_type is_active uuid",
    "NodeModify": "node_type " + _PROPS,
    "StoragePool": "storage_pool_name node_name provider_kind props static_traits free_capacity total_capacity "
    "free_space_mgr_name uuid reports supports_snapshots shared_space external_locking",
    "PropsModify": _PROPS,
    "ResourceGroup": "name description props select_filter:AutoSelectFilter uuid peer_slots@1.21.0",
    "ResourceGroupModify": "description select_filter:AutoSelectFilter peer_slots@1.21.0 snap_names@1.27.0 "
    "copy_all_snaps@1.27.0 " + _PROPS,
    "VolumeGroup": "volume_number props uuid flags",
    "VolumeGroupModify": "flags " + _PROPS,
    "Spawn": "resource_definition_name resource_definition_external_name volume_sizes select_filter:AutoSelectFilter "
    "partial definitions_only peer_slots@1.21.0 volume_passphrases@1.22.0 resource_definition_props@1.22.0",
    "QuerySizeInfo": "select_filter:AutoSelectFilter ignore_cache_older_than_sec",
    "ResourceDefinitionCreate": "drbd_port drbd_secret drbd_peer_slots@1.21.0 drbd_transport_type "
    "resource_definition:ResourceDefinition",
    "ResourceDefinition": "props flags layer_data:[LayerData] name resource_group_name external_name uuid "
    "volume_definitions:[VolumeDefinition]",
    "LayerData": "type data",
    "ResourceDefinitionModify": "drbd_port drbd_peer_slots layer_stack resource_group " + _PROPS,
    "VolumeDefinitionCreate": "volume_definition:VolumeDefinition drbd_minor_number passphrase@1.22.0",
    "VolumeDefinition": "volume_number size_kib props flags layer_data uuid",
    "VolumeDefinitionModify": "size_kib flags " + _PROPS,
    "ResourceCreate": "resource:Resource layer_list drbd_node_id drbd_tcp_port_count drbd_tcp_ports@1.26.0 "
    "snap_names@1.27.0 copy_all_snaps@1.27.0 drbd_client@1.28.0",
    "Resource": "name node_name props flags layer_object state uuid create_timestamp effective_props",
    "MakeAvailable": "layer_list diskful drbd_tcp_ports@1.26.0 snap_names@1.27.0 copy_all_snaps@1.27.0 "
    "drbd_tiebreaker@1.28.0 drbd_client@1.28.0 auto_manage_dual_primary@1.29.0",
    "UnmakeAvailable": "",
    "ToggleDisk": "operation storage_pool migrate_from layer_list",
    "Snapshot": "name resource_name nodes props snapshot_definition_props@1.24.0 resource_definition_props@1.24.0 "
    "flags volume_definitions uuid snapshots",
    "MultiSnapshot": "snapshots:[Snapshot]",
    "SnapshotRestore": "to_resource nodes stor_pool_rename@1.21.0",
    "SnapshotRollback": "zfs_rollback_strategy@1.26.0",
    "Clone": "name external_name use_zfs_clone@1.13.0 volume_passphrases@1.22.0 layer_list@1.24.0 "
    "resource_group@1.24.0 override_props@1.26.0 delete_props@1.26.0 delete_namespaces@1.26.0 "
    "volume_sizes@1.29.1",
    "PassphraseCreate": "new_passphrase old_passphrase",
    "Any": "*",
}


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


# What a value has to be; keys that are not here may be anything.
_LISTS = _words(
    "node_name_list storage_pool_list storage_pool_diskless_list not_place_with_rsc replicas_on_same layer_stack",
    "replicas_on_different layer_list provider_list delete_props delete_namespaces volume_sizes volume_passphrases",
    "nodes flags snap_names drbd_tcp_ports",
)
_MAPS = _words(
    "props override_props x_replicas_on_different_map stor_pool_rename resource_definition_props data",
    "snapshot_definition_props",
)
# Numbers of 64 bits; all others have 32.
_LONGS = _words("size_kib volume_sizes")
_NUMBERS = _words(
    "place_count additional_place_count volume_number size_kib peer_slots drbd_port drbd_peer_slots drbd_minor_number",
    "drbd_node_id drbd_tcp_port_count port_count volume_sizes drbd_tcp_ports x_replicas_on_different_map",
)
_TEXTS = _words(
    "name node_name external_name to_resource resource_name resource_definition_name type operation description",
    "resource_definition_external_name resource_group_name resource_group storage_pool storage_pool_name",
    "provider_kind new_passphrase old_passphrase migrate_from not_place_with_rsc_regex passphrase drbd_secret",
)


def _fits(key: str, value: Any) -> bool:
    """Whether a value is of its key's type, as Jackson sees it: numbers and texts turn into each other."""
    if value is None:
        return True
    if key in _LISTS:
        return isinstance(value, list) and all(_is_scalar(key, item) for item in value)
    if key in _MAPS:
        return isinstance(value, dict) and (key == "data" or all(_is_scalar(key, item) for item in value.values()))
    return key not in _NUMBERS | _TEXTS or _is_scalar(key, value)


def _as_declared(key: str, value: Any) -> Any:
    """Numbers where texts are expected are their text, and texts where numbers are expected their number."""
    if isinstance(value, list):
        return [_as_declared(key, item) for item in value]
    if isinstance(value, dict):
        return {name: _as_declared(key, item) for name, item in value.items()} if key in _NUMBERS else value
    if key in _NUMBERS:
        return int(value)
    return value if isinstance(value, str) else json.dumps(value)


def _is_scalar(key: str, value: Any) -> bool:
    if key in _NUMBERS:
        bits = 63 if key in _LONGS else 31
        digits = isinstance(value, (int, str)) and re.fullmatch(r"-?[0-9]{1,20}", str(value)) is not None
        return digits and not isinstance(value, bool) and -(1 << bits) <= int(value) < 1 << bits
    return value is not None and not isinstance(value, (list, dict))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _parse_schema(text: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{key: (what is below, since which version)}."""
    keys = {}
    for word in text.split():
        rest, _, since = word.partition("@")
        key, _, below = rest.partition(":")
        keys[key] = (below, _version(since or "0"))
    return keys


_PARSED = {name: _parse_schema(text) for name, text in _SCHEMAS.items()}


def check(schema: str, value: Any, version: tuple[int, ...]) -> None:
    """ParseError for the first key that this version does not know."""
    keys = _PARSED[schema]
    if "*" in keys:
        return
    if not isinstance(value, dict):
        raise ParseError(f"Cannot deserialize value of type `JsonGenTypes${schema}`")
    known = [key for key, (_, since) in keys.items() if since <= version]
    for key, below in list(value.items()):
        if key not in known:
            raise ParseError(_unrecognized(schema, key, known))
        if not _fits(key, below):
            raise ParseError(f"Cannot deserialize value of `{schema}.{key}` from {str(below)[:60]}")
        if key in _LISTS | _TEXTS | _NUMBERS and below is not None:
            value[key] = _as_declared(key, below)
        if keys[key][0] and below is not None:
            _check_below(keys[key][0], below, version)


def _check_below(schema: str, value: Any, version: tuple[int, ...]) -> None:
    if not schema.startswith("["):
        check(schema, value, version)
        return
    if not isinstance(value, list):
        raise ParseError("Cannot deserialize value of type `java.util.ArrayList`")
    for item in value:
        check(schema.strip("[]"), item, version)


def _unrecognized(schema: str, key: str, known: list[str]) -> str:
    names = ", ".join(f'"{name}"' for name in known)
    return (
        f'Unrecognized field "{key}" (class com.linbit.linstor.api.rest.v1.serializer.JsonGenTypes${schema}), '
        f"not marked as ignorable ({len(known)} known properties: {names}])"
    )


def parse(schema: str, raw: bytes, optional: bool, version: tuple[int, ...]) -> Any:
    """The body as an object; an empty one counts as {} where the call takes it."""
    if not raw.strip():
        if optional:
            return {}
        raise ParseError("No content to map due to end-of-input")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise ParseError(str(exc)) from None
    if schema.startswith("["):
        _check_below(schema, value, version)
    else:
        check(schema, value, version)
    return value
