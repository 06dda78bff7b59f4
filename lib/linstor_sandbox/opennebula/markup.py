"""Writing XML as oned writes it: no white space, text of attributes in CDATA, empty elements in full."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape

from linstor_sandbox.opennebula.templates import Value

PERMISSIONS = ("OWNER_U", "OWNER_M", "OWNER_A", "GROUP_U", "GROUP_M", "GROUP_A", "OTHER_U", "OTHER_M", "OTHER_A")
OWNERS_RIGHTS = frozenset({"OWNER_U", "OWNER_M"})


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


def owner(
    name: str, identifier: int, granted: frozenset[str] = OWNERS_RIGHTS, owner_id: int = 0, group_id: int = 0
) -> str:
    """The head that every object has: id, owner, name, permissions."""
    rights = element("PERMISSIONS", *(text(right, int(right in granted)) for right in PERMISSIONS))
    names = ["oneadmin" if number == 0 else f"number-{number}" for number in (owner_id, group_id)]
    return (
        text("ID", identifier)
        + f"<UID>{owner_id}</UID><GID>{group_id}</GID><UNAME>{names[0]}</UNAME><GNAME>{names[1]}</GNAME>"
        + text("NAME", name)
        + rights
    )


def base64_text(document: str) -> str:
    """A document as oned hands it to scripts: base64 in one line."""
    return base64.b64encode(document.encode()).decode()
