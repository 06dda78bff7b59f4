"""The XML that OpenNebula hands over, in all its forms, and what is no XML of OpenNebula's."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from linstor_un.errors import InvalidInput
from linstor_un.opennebula import decoding

XML = b"<VM><ID>7</ID></VM>"
ENCODED = base64.b64encode(XML)


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        ((ENCODED.decode(), "7"), b""),
        (("-", "7"), ENCODED),
        (("7",), ENCODED),
        (("7",), ENCODED + b"\n"),
        (("7",), b"\n".join(ENCODED[at : at + 8] for at in range(0, len(ENCODED), 8))),
        (("7",), b"  " + XML),
    ],
)
def test_the_form_of_the_call_is_told_by_its_arguments_alone(arguments: tuple[str, ...], stdin: bytes) -> None:
    assert decoding.action_data(arguments, stdin) == (XML, "7")


def test_an_argument_wins_over_stdin() -> None:
    assert decoding.action_data((ENCODED.decode(), "7"), b"<OTHER/>") == (XML, "7")


@pytest.mark.parametrize("arguments", [(), ("a", "b", "c")])
def test_another_number_of_arguments_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match=f"got {len(arguments)} arguments"):
        decoding.action_data(arguments, ENCODED)


@given(st.binary())
def test_whatever_comes_is_xml_or_refused(data: bytes) -> None:
    try:
        tree = decoding.parse(decoding.decode(data), "VM")
    except InvalidInput:
        return
    assert tree.tag == "VM"


@given(st.binary(max_size=200))
def test_whatever_a_name_is_made_of_the_rest_is_read_or_refused(name: bytes) -> None:
    try:
        tree = decoding.parse(b"<VM><NAME><![CDATA[" + name + b"]]></NAME><ID>7</ID></VM>", "VM")
    except InvalidInput:
        return
    assert tree.find("ID") is not None or b"<" in name


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    tree = decoding.parse(b"<VM><NAME>M\xfcller\xff</NAME><ID>7</ID></VM>", "VM")
    assert decoding.text(tree, "NAME") == "M\ufffdller\ufffd"
    assert decoding.required_number(tree, "ID") == 7


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"<VM><ID>7</ID>", "cannot be read"),
        (b"<VM/>x", "cannot be read"),
        (b"", "cannot be read"),
        (b"<!DOCTYPE VM><VM/>", "document type"),
        (b"<!DOCTYPE VM [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><VM>&e;</VM>", "document type"),
        (b"<VM>&e;</VM>", "cannot be read"),
        (b"<IMAGE/>", "is a <IMAGE> and must be a <VM>"),
        (b"<x:VM xmlns:x='y'/>", "must be a <VM>"),
        (b"<VM>" + b"<A>" * 400 + b"</A>" * 400 + b"</VM>", "cannot be read"),
        (b"<?xml version='1.0' encoding='UTF-7'?><VM>+ADw-</VM>", "cannot be read"),
    ],
)
def test_what_oned_never_sends_is_refused(document: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        decoding.parse(document, "VM")


def test_no_entity_is_ever_replaced() -> None:
    bomb = b"<!DOCTYPE VM [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]><VM><NAME>&b;</NAME></VM>"
    with pytest.raises(InvalidInput, match="document type"):
        decoding.parse(bomb, "VM")


def test_more_than_oned_ever_sends_is_refused() -> None:
    with pytest.raises(InvalidInput, match="longer than 64 MiB"):
        decoding.decode(b"x" * (64 * 1024 * 1024 + 1))


@pytest.mark.parametrize("data", [b"%%%", b"abc", "\u00e9".encode(), b"PFZNP!g=", b"a" * 1001])
def test_what_is_neither_xml_nor_base64_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="neither XML nor base64"):
        decoding.decode(data)


@pytest.mark.parametrize(
    ("text", "number"), [("7", 7), (" 7\n", 7), ("-1", -1), ("", None), ("0", 0), ("9" * 19, 10**19 - 1)]
)
def test_a_whole_number_is_read(text: str, number: int) -> None:
    assert decoding.number(etree.fromstring(f"<VM><SIZE>{text}</SIZE></VM>"), "SIZE") == number


@pytest.mark.parametrize("text", ["1.0", "1e3", "0x10", "1_000", "\u0663", "+1", "--1", "1 2", "seven", "9" * 20])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="<SIZE> is .* must be a whole number"):
        decoding.number(etree.fromstring(f"<VM><SIZE>{text}</SIZE></VM>"), "SIZE")


def test_a_number_that_must_be_there_is_there_and_not_negative() -> None:
    assert decoding.number(etree.fromstring("<VM/>"), "SIZE") is None
    with pytest.raises(InvalidInput, match="<SIZE> is missing"):
        decoding.required_number(etree.fromstring("<VM><SIZE/></VM>"), "SIZE")
    with pytest.raises(InvalidInput, match="<SIZE> is -1 and must not be negative"):
        decoding.required_number(etree.fromstring("<VM><SIZE>-1</SIZE></VM>"), "SIZE")
