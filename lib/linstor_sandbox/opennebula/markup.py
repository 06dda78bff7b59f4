"""Writing XML as oned writes it: no white space, text of attributes in CDATA, empty elements in full."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape

from linstor_sandbox.opennebula.templates import Value

PERMISSIONS = ("OWNER_U", "OWNER_M", "OWNER_A", "GROUP_U", "GROUP_M", "GROUP_A", "OTHER_U", "OTHER_M", "OTHER_A")


def element(name: str, *content: str) -> str:
    """An element around content that is markup already."""
    return f"<{name}>{''.join(content)}</{name}>"


def text(name: str, value: object) -> str:
    """An element with escaped text: numbers and object names."""
    return element(name, escape(str(value)))


def cdata(name: str, value: object) -> str:
    """An element with its text in CDATA; a `]]>` inside is split, so that it arrives as written."""
    return element(name, f"<![CDATA[{str(value).replace(']]>', ']]]]><![CDATA[>')}]]>")


def ids(name: str, identifiers: Iterable[int]) -> str:
    """A list of object ids."""
    return element(name, *(text("ID", identifier) for identifier in identifiers))


def attributes(values: Mapping[str, str]) -> str:
    """A template's attributes, sorted as oned keeps them."""
    return "".join(cdata(name, values[name]) for name in sorted(values))


def template(name: str, entries: Iterable[tuple[str, Value]]) -> str:
    """A template with single attributes and vectors, sorted by name; equal names keep their order."""
    ordered = sorted(entries, key=lambda entry: entry[0])
    return element(
        name,
        *(cdata(key, value) if isinstance(value, str) else element(key, attributes(value)) for key, value in ordered),
    )


def owner(name: str, identifier: int, group_may_use: bool = False) -> str:
    """The head that every object has: id, owner, name, permissions."""
    granted = {"OWNER_U", "OWNER_M"} | ({"GROUP_U"} if group_may_use else set())
    rights = element("PERMISSIONS", *(text(right, int(right in granted)) for right in PERMISSIONS))
    return (
        text("ID", identifier)
        + "<UID>0</UID><GID>0</GID><UNAME>oneadmin</UNAME><GNAME>oneadmin</GNAME>"
        + text("NAME", name)
        + rights
    )


def base64_text(document: str) -> str:
    """A document as oned hands it to scripts: base64 in one line."""
    return base64.b64encode(document.encode()).decode()
