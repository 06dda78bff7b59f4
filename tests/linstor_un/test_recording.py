"""The call of an action in the system log: it can be had back, and nothing secret is in it."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linstor_un import recording
from linstor_un.errors import InvalidInput
from tests.conftest import SHARED

CALLS = SHARED / "opennebula-calls"
SECRET = "s3cret-that-nobody-may-see"


def read(lines: list[str]) -> recording.Recorded:
    numbers = [line.split(":")[0] for line in lines]
    assert numbers == [f"call {number}/{len(lines)}" for number in range(1, len(lines) + 1)]
    assert all(len(line) < 4100 and line.isprintable() for line in lines)
    return recording.read("".join(line.partition(": ")[2] for line in lines))


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_arguments_come_back(arguments: list[str]) -> None:
    arguments = [argument.encode("utf-8", "replace").decode() for argument in arguments]
    assert read(recording.lines(arguments, b"")).arguments == tuple(arguments)


def test_bytes_of_no_encoding_come_back() -> None:
    argument = b"node1:/\xff\xfe".decode("utf-8", "surrogateescape")
    assert read(recording.lines([argument], b"")).arguments == (argument,)


@given(st.integers(0, 12000))
def test_xml_of_any_length_comes_back_over_as_many_lines_as_it_needs(length: int) -> None:
    # Not to be compressed, so that there are several lines.
    text = base64.b64encode(zlib.compress(str(list(range(length))).encode()))[:length]
    document = b"<DS_DRIVER_ACTION_DATA><IMAGE><NAME>" + text + b"</NAME></IMAGE></DS_DRIVER_ACTION_DATA>"
    lines = recording.lines(["7"], base64.b64encode(document))
    assert read(lines) == recording.Recorded(("7",), document)
    assert len(lines) > 1 or length < 6000


def test_the_xml_may_be_plain_or_an_argument() -> None:
    document = b"<VM>" + b"x" * 200 + b"</VM>"
    assert read(recording.lines(["-"], document)).document == document
    old = base64.b64encode(document).decode()
    assert read(recording.lines([old, "7"], b"")) == recording.Recorded((old, "7"), document)


def test_what_is_longer_than_a_log_should_hold_is_left_out_and_said_so() -> None:
    noise = b"".join(zlib.compress(str(number).encode()) for number in range(20000))
    document = b"<VM>" + base64.b64encode(noise) + b"</VM>"
    found = read(recording.lines(["7", "x" * 5000], document))
    assert found == recording.Recorded(("7",), b"", True)


def test_what_is_no_xml_is_not_written() -> None:
    assert recording.lines(["7"], SECRET.encode()) == ["call 1/1: 7"]


@pytest.mark.parametrize("cut", ["7 <", "7 <eJ", "<!!!!", "7 <QUJD"])
def test_what_was_cut_is_refused(cut: str) -> None:
    if cut == "7 <":
        assert recording.read(cut).document == b""
        return
    with pytest.raises(InvalidInput, match="has not all of its lines"):
        recording.read(cut)


@pytest.mark.parametrize(
    "element",
    [
        f"<LS_TOKEN>{SECRET}</LS_TOKEN>",
        f"<LS_TOKEN><![CDATA[{SECRET}]]></LS_TOKEN>",
        f"<DATASTORE><ID>1</ID><TEMPLATE><S3_THING><![CDATA[{SECRET}]]></S3_THING></TEMPLATE></DATASTORE>",
        f"<DATASTORE><TEMPLATE><A>1</A><MY_PASSWORD>{SECRET}</MY_PASSWORD></TEMPLATE></DATASTORE>",
        f"<VM><TEMPLATE><CONTEXT><WHAT_EVER><![CDATA[{SECRET}]]></WHAT_EVER><X>1</X></CONTEXT></TEMPLATE></VM>",
        f"<VM><USER_TEMPLATE><NOTE>a\nb {SECRET}</NOTE></USER_TEMPLATE></VM>",
        f"<VM><TEMPLATE><GRAPHICS><LISTEN>x</LISTEN><PASSWD>{SECRET}</PASSWD></GRAPHICS></TEMPLATE></VM>",
        f"<IMAGE><TEMPLATE><ADMIN_SECRET>{SECRET}</ADMIN_SECRET></TEMPLATE></IMAGE>",
        f"<IMAGE><PATH><![CDATA[https://user:{SECRET}@host/image]]></PATH></IMAGE>",
        f"<IMAGE><PATH><![CDATA[https://host/image?X-Signature={SECRET}&more]]></PATH></IMAGE>",
        f"<LS_CONTROLLERS>linstor://admin:{SECRET}@host</LS_CONTROLLERS>",
    ],
)
def test_nothing_secret_is_written(element: str) -> None:
    document = f"<DS_DRIVER_ACTION_DATA>{element}<END>1</END></DS_DRIVER_ACTION_DATA>".encode()
    for arguments, data in ((["7"], base64.b64encode(document)), ([base64.b64encode(document).decode(), "7"], b"")):
        found = read(recording.lines(arguments, data))
        assert SECRET.encode() not in found.document
        assert b"(hidden)" in found.document and found.document.endswith(b"<END>1</END></DS_DRIVER_ACTION_DATA>")


def test_what_the_driver_reads_is_kept() -> None:
    kept = (
        b"<D><IMAGE><ID>7</ID><PATH><![CDATA[https://host/a.qcow2]]></PATH><SIZE>8</SIZE></IMAGE><DATASTORE><ID>101</ID>"
        b"<TEMPLATE><STORAGE_POOL><![CDATA[data]]></STORAGE_POOL><LS_TOKEN_FILE>/t</LS_TOKEN_FILE><LS_KEYFILE>/k"
        b"</LS_KEYFILE><AUTO_PLACE>2</AUTO_PLACE></TEMPLATE></DATASTORE></D>"
    )
    assert recording.hidden(kept) == kept


def recorded_calls() -> list[dict[str, Any]]:
    """Return the calls of a real oned, where they are beside the project."""
    calls = [call for path in sorted(CALLS.glob("*.json")) for call in json.loads(path.read_text())]
    return [call for call in calls if isinstance(call, dict) and isinstance(call.get("argv"), list)]


@pytest.mark.skipif(not CALLS.exists(), reason="the recorded calls are not beside the project")
def test_the_calls_of_a_real_oned_come_back_from_few_lines() -> None:
    counts = []
    for call in recorded_calls():
        arguments = [str(word) for word in call["argv"][1:]]
        standard_input = call.get("stdin") if isinstance(call.get("stdin"), str) else ""
        lines = recording.lines(arguments, base64.b64encode(str(standard_input).encode()))
        assert read(lines).arguments == tuple(arguments)
        counts.append(len(lines))
    assert counts and max(counts) <= 2
