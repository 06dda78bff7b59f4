"""LINSTOR's return codes: what is an error, which of several decides, and what a person is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linstor_un.cluster import codes
from linstor_un.cluster.codes import Entry, entry, refusal
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

ERROR, WARNING, INFO = -0x4000000000000000, -0x8000000000000000, 0x4000000000000000


def error(code: int, message: str = "It failed", **more: object) -> Entry:
    """Return an entry that says that a request failed."""
    return entry({"ret_code": ERROR | code, "message": message, **more})


@given(st.integers(0, 0x7FFF))
def test_severities_are_told_apart_although_json_has_them_signed(code: int) -> None:
    kinds = {number: entry({"ret_code": number | code}) for number in (ERROR, WARNING, INFO, 0)}
    assert [number for number, item in kinds.items() if item.is_error] == [ERROR]
    assert [number for number, item in kinds.items() if item.is_warning] == [WARNING]
    assert all(item.code == code for item in kinds.values())


@given(st.integers(0, 0x7FFF), st.sampled_from([ERROR, WARNING, INFO, 0]))
def test_signed_and_unsigned_say_the_same(code: int, severity: int) -> None:
    signed, unsigned = entry({"ret_code": severity | code}), entry({"ret_code": (severity | code) % (1 << 64)})
    assert (signed.is_error, signed.is_warning, signed.code) == (unsigned.is_error, unsigned.is_warning, unsigned.code)


@pytest.mark.parametrize(
    ("number", "is_error", "code"),
    [
        (-4611686018407201820, True, 996),  # Not enough available nodes
        (-4611686018373647387, True, 997),  # Resource 'u1' is still in use.
        (-4611686018406940171, True, 501),  # A resource definition with the name 'lt1c' already exists
        (-4611686018427387587, True, 317),  # Resource group 'nosuch' not found.
        (-3458764513820540931, True, 32765),  # Unable to parse input json.
        (20447233, False, 1),  # New resource definition 'early' created.
        (4611686018447582994, False, 10002),  # Resource-definition property ... updated
        (-9223372036834065430, False, 1002),  # No active connection to satellite 'n1'
        (-9223372036818074625, False, 1023),  # VolumeDefinition already has the expected size
    ],
)
def test_recorded_codes_are_read(number: int, is_error: bool, code: int) -> None:
    item = entry({"ret_code": number})
    assert (item.is_error, item.code) == (is_error, code)


def test_an_entry_may_lack_everything() -> None:
    assert entry({}) == Entry(0, "", "", "", "", (), {})
    assert entry({"obj_refs": None}).references == {}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (300, NotFound),
        (310, NotFound),
        (399, NotFound),
        (501, AlreadyExists),
        (514, AlreadyExists),
        (599, AlreadyExists),
        (996, NoRoom),
        (980, NoRoom),
        (997, InUse),
        (992, InUse),
        (979, NotReady),
        (995, NotReady),
        (202, InvalidInput),
        (994, ControllerFailed),
        (999, ControllerFailed),
        (1, ControllerFailed),
    ],
)
def test_a_code_becomes_the_error_of_its_remedy(code: int, kind: type[DriverError]) -> None:
    raised = refusal("Doing it", [error(code)])
    assert type(raised) is kind
    assert raised.code == code
    assert str(raised).startswith("Doing it failed: It failed; ")


@pytest.mark.parametrize("position", [0, 1, 2])
def test_the_entry_that_failed_decides_wherever_it_stands(position: int) -> None:
    entries = [entry({"ret_code": INFO | 1, "message": "made"}), entry({"ret_code": WARNING | 1002, "message": "hm"})]
    entries.insert(position, error(996, "Not enough nodes"))
    raised = refusal("Creating it", entries)
    assert (type(raised), raised.code) == (NoRoom, 996)
    assert "Not enough nodes" in str(raised) and "made" not in str(raised)


def test_of_several_failures_the_first_decides() -> None:
    assert refusal("Doing it", [error(997, "open"), error(996, "full")]).code == 997


def test_a_failure_without_words_is_still_a_sentence() -> None:
    item = entry({"ret_code": ERROR | 996})
    assert str(refusal("Doing it", [item])) == (
        "Doing it failed: LINSTOR gave no reason; free space, bring nodes back, or change the datastore's placement "
        "attributes"
    )


@pytest.mark.parametrize("entries", [[], [entry({})], [entry({"ret_code": INFO | 1, "message": "made"})]])
def test_an_http_error_without_an_error_is_still_a_sentence(entries: list[Entry]) -> None:
    raised = refusal("Doing it", entries)
    assert type(raised) is ControllerFailed
    assert "LINSTOR gave no reason" in str(raised) and raised.code == 0


def test_a_controllers_own_advice_wins_and_reports_are_named() -> None:
    item = error(
        1, "It broke.\n", cause="The disk\nis gone.", correction="Buy\na new one.", error_report_ids=["6B-1", "6B-2"]
    )
    assert str(refusal("Doing it", [item])) == (
        "Doing it failed: It broke. The disk is gone; Buy a new one (error report 6B-1, 6B-2)"
    )


@pytest.mark.parametrize(("code", "message"), [(999, "It failed"), (1, "TransactionMgr: transMgr is dirty")])
def test_a_confused_controller_is_to_be_restarted(code: int, message: str) -> None:
    assert "restart linstor-controller" in str(refusal("Doing it", [error(code, message)]))


def test_a_missing_passphrase_is_named_with_the_command() -> None:
    cause = "Unable to create encrypt key without having a master key"
    assert "linstor encryption create-passphrase" in str(refusal("Doing it", [error(1, cause=cause)]))


@given(st.integers(0, 0x7FFF), st.text(), st.text(), st.text())
def test_whatever_linstor_says_is_one_line(code: int, message: str, cause: str, correction: str) -> None:
    sentence = str(refusal("Doing it", [error(code, message, cause=cause, correction=correction)]))
    assert sentence.startswith("Doing it failed: ")
    assert sentence == sentence.strip() and len(sentence.splitlines()) == 1


def test_a_size_that_no_pool_has_room_for_is_no_wrong_value() -> None:
    assert type(refusal("Creating it", [error(206, "Not enough free space available for volume 0 of 'x'.")])) is NoRoom
    assert type(refusal("Creating it", [error(206, "The size 0 is invalid")])) is InvalidInput


def test_every_class_of_errors_that_is_raised_has_a_remedy() -> None:
    assert set(codes._CLASSES.values()) | {NotFound, AlreadyExists, ControllerFailed} == set(codes._REMEDIES)
