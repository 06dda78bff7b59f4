from __future__ import annotations

import copy
from typing import Any

import pytest

from linstor_sandbox.answers import API_CALL_PARSE_ERROR, MASK_ERROR, MASK_WARN, signed
from linstor_sandbox.conformance.comparison import differences

ERROR = {
    "ret_code": signed(MASK_ERROR | 0x1380000 | 501),
    "message": "A resource definition with the name 'a' already exists",
    "cause": "The ResourceDefinition already exists",
    "details": "Resource definition: a",
    "correction": "Delete it first",
    "obj_refs": {"RscDfn": "a", "UUID": "afb564b9-6ffe-4042-b0dd-d6eef34abed6"},
    "created_at": "2026-11-22T12:11:54Z",
}
PROGRESS = {"ret_code": 0x1340003, "message": "(n1) Resource 'a' [DRBD] adjusted."}
RESOURCE = {
    "name": "a",
    "uuid": "afb564b9-6ffe-4042-b0dd-d6eef34abed6",
    "flags": ["DISKLESS"],
    "layer_object": {"drbd": {"connections": {"n2": {"connected": True}}, "tcp_ports": [7000]}},
    "volumes": [
        {
            "device_path": "/dev/drbd1000",
            "allocated_size_kib": 55,
            "state": {"replication_states": {"n2": {"replication_state": "Established"}}},
        }
    ],
}


def changed(what: Any, path: str, value: Any) -> Any:
    """A copy in which one value is another."""
    result = copy.deepcopy(what)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    below = result
    for key in parents:
        below = below[key]
    below[last] = value
    return result


def test_equal_answers_have_no_differences() -> None:
    assert differences(500, [ERROR], 500, [copy.deepcopy(ERROR)]) == []
    assert differences(200, [RESOURCE], 200, [copy.deepcopy(RESOURCE)]) == []
    assert differences(None, "connection refused", None, None) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("0.ret_code", signed(MASK_WARN | 0x1380000 | 501)),
        ("0.ret_code", signed(MASK_ERROR | 0x1340000 | 501)),
        ("0.ret_code", signed(MASK_ERROR | 0x1380000 | 502)),
        ("0.message", "A resource definition with the name 'b' already exists"),
        ("0.cause", ""),
        ("0.details", ""),
        ("0.correction", ""),
        ("0.obj_refs.RscDfn", "b"),
        ("0.obj_refs", {}),
        ("0.error_report_ids", ["6B02D528-00000-000001"]),
    ],
)
def test_everything_that_an_entry_says_counts(path: str, value: Any) -> None:
    assert len(differences(500, [ERROR], 500, changed([ERROR], path, value))) == 2


def test_how_often_and_in_which_order_things_are_said_counts() -> None:
    first, second = {**ERROR, "ret_code": 1, "message": "first"}, {**ERROR, "ret_code": 1, "message": "second"}
    assert differences(200, [first, second], 200, [first, second, second]) != []
    assert differences(200, [first, second], 200, [second, first]) != []
    of_nodes = [{**first, "message": "Did it on 'n1'"}, {**first, "message": "Did it on 'n2'"}]
    assert differences(200, of_nodes, 200, of_nodes[::-1]) == []
    again = {**first, "message": "Resource 'a' on 'n1' marked for deletion"}
    assert differences(200, [again, again], 200, [again]) == []


def test_of_the_parsers_words_the_field_counts() -> None:
    unknown = {"ret_code": signed(API_CALL_PARSE_ERROR), "message": "Unable to parse input json."}
    recorded = {**unknown, "details": 'Unrecognized field "nam" (class X), not marked\n at [Source: REDACTED]'}
    assert differences(400, [recorded], 400, [{**unknown, "details": 'Unrecognized field "nam" (class Y)'}]) == []
    assert differences(400, [recorded], 400, [{**unknown, "details": 'Unrecognized field "name" (class X)'}]) != []


def test_the_status_counts() -> None:
    assert differences(201, [ERROR], 200, [ERROR]) == ["status 200, recorded 201"]


def test_the_satellites_progress_does_not_count_but_their_errors_do() -> None:
    assert differences(201, [ERROR, PROGRESS], 201, [ERROR]) == []
    failed = {**ERROR, "message": "(n1) Failed to create volume"}
    assert differences(500, [failed], 500, [{**failed, "message": "(n2) Failed to create volume"}]) != []
    warning = {**PROGRESS, "ret_code": signed(MASK_WARN | 1)}
    assert differences(201, [ERROR, warning], 201, [ERROR]) != []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("0.uuid", "00000000-6ffe-4042-b0dd-d6eef34abed6"),
        ("0.layer_object.drbd.tcp_ports", [7001]),
        ("0.volumes.0.device_path", "/dev/drbd1001"),
        ("0.volumes.0.allocated_size_kib", 0),
    ],
)
def test_uuids_ports_minors_and_small_amounts_do_not_count(path: str, value: Any) -> None:
    assert differences(200, [RESOURCE], 200, changed([RESOURCE], path, value)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("0.flags", []),
        ("0.flags", ["DISKLESS", "DELETE"]),
        ("0.name", "b"),
        ("0.new", 1),
        ("0.volumes.0.allocated_size_kib", -1),
        ("0.volumes.0.allocated_size_kib", 4096),
        ("0.volumes.0.device_path", "/dev/loop7"),
        ("0.volumes.0.state.replication_states", {}),
    ],
)
def test_fields_flags_and_values_of_objects_count(path: str, value: Any) -> None:
    assert differences(200, [RESOURCE], 200, changed([RESOURCE], path, value)) != []


POOLS_SPACE = ("free_capacity", "max_vlm_size_in_kib", "available_size_in_kib", "max_volume_size_kib")


@pytest.mark.parametrize("key", POOLS_SPACE)
def test_the_space_of_pools_counts_to_the_kib(key: str) -> None:
    assert differences(200, [{key: 14680064}], 200, [{key: 14680064}]) == []
    assert len(differences(200, [{key: 14680064}], 200, [{key: 14680064 - 4}])) == 1


def test_a_late_event_of_a_peer_that_is_gone_does_not_count() -> None:
    late = {"n2": {"replication_state": "Established"}, "n3": {"replication_state": "Established"}}
    recorded = changed([RESOURCE], "0.volumes.0.state.replication_states", late)
    assert differences(200, recorded, 200, [RESOURCE]) == []
