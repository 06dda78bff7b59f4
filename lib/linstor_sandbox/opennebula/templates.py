"""OpenNebula's template text: `NAME = value` and `NAME = [ KEY = value, ... ]`."""

from __future__ import annotations

import re
from typing import Union
from xml.etree import ElementTree

from linstor_sandbox.opennebula.errors import Refused

Vector = dict[str, str]
Value = Union[str, Vector]
Template = list[tuple[str, Value]]

_NAME = re.compile(r"[\s,]*([A-Za-z0-9_.]+)\s*=\s*")
_PLAIN = re.compile(r"[^\s,\]\[\"]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


def parse(text: str) -> Template:
    """The attributes in their order, names in capitals; a name may occur more than once (DISK). Text or XML."""
    if text.lstrip().startswith("<"):
        return _from_xml(text)
    return _attributes(_without_comments(text), nested=False)


def _from_xml(text: str) -> Template:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        raise Refused("Parse error: XML Template malformed.") from None
    return [
        (item.tag.upper(), {part.tag.upper(): part.text or "" for part in item} if len(item) else item.text or "")
        for item in root
    ]


def single(template: Template) -> dict[str, str]:
    """The attributes that have one value; of several of the same name the last."""
    return {name: value for name, value in template if isinstance(value, str)}


def vectors(template: Template, name: str) -> list[Vector]:
    """The values of every attribute NAME = [ ... ], in their order."""
    return [value for key, value in template if key == name and isinstance(value, dict)]


def _attributes(text: str, nested: bool) -> Template:
    attributes: Template = []
    position = 0
    while text[position:].strip(" \t\r\n,"):
        name = _NAME.match(text, position)
        if name is None:
            raise Refused(f"cannot parse the template at {text[position : position + 30]!r}: expected NAME = value")
        value, position = _value(text, name.end(), nested)
        attributes.append((name.group(1).upper(), value))
    return attributes


def _value(text: str, position: int, nested: bool) -> tuple[Value, int]:
    if text[position : position + 1] == "[" and not nested:
        end = _closing_bracket(text, position)
        return dict(_strings(_attributes(text[position + 1 : end], nested=True))), end + 1
    quoted = _QUOTED.match(text, position)
    if quoted:
        return re.sub(r'\\(["\\])', r"\1", quoted.group(1)), quoted.end()
    plain = _PLAIN.match(text, position)
    return (plain.group(), plain.end()) if plain else ("", position)


def _strings(template: Template) -> list[tuple[str, str]]:
    return [(name, value) for name, value in template if isinstance(value, str)]


def _closing_bracket(text: str, start: int) -> int:
    position = start + 1
    while position < len(text):
        quoted = _QUOTED.match(text, position)
        if quoted:
            position = quoted.end()
        elif text[position] == "]":
            return position
        else:
            position += 1
    raise Refused(f"cannot parse the template: no ] closes {text[start : start + 30]!r}")


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
