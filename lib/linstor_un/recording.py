"""The call of an action as lines of the system log, from which `linstor-un replay` shows it again.

`call 1/2: WORD WORD <DATA`: words are percent-encoded, so that a line stays a line; the XML, wherever it came from,
follows compressed, over as many lines as it needs. Nothing secret is written: of a datastore's attributes only those
that the driver has itself, of a VM neither its context nor what its user wrote, and no value whose name speaks of
secrets.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple, Optional
from urllib.parse import quote_from_bytes, unquote_to_bytes

from linstor_un import hiding
from linstor_un.errors import InvalidInput
from linstor_un.opennebula import decoding
from linstor_un.settings import ALIASES, ATTRIBUTES, SECRET

HIDDEN = hiding.HIDDEN.encode()
# Half of what rsyslog takes for one message; more lines than this nobody wants to have from one action.
_LONGEST_LINE = 4000
_MOST_LINES = 16
_SHORTEST_XML = 100
_XML, _EMPTY, _LEFT_OUT = "%xml", "%", "%left-out"
_KEPT = {
    name.encode()
    for name in (*ATTRIBUTES, *ALIASES, "DS_MAD", "TM_MAD", "TYPE", "DISK_TYPE", "SHARED")
    if name not in SECRET
}
# Compiled when there is XML: transfer actions have none, and do not pay for it.
_DATASTORE = rb"(?s)<DATASTORE>.*?</DATASTORE>"
_ELEMENT = rb"(?s)<([A-Z0-9_]+)>[^<]*(?:<!\[CDATA\[.*?\]\]>[^<]*)*</\1>"
_USERS = rb"(?s)<(CONTEXT|USER_TEMPLATE|GRAPHICS|RAW)>.*?</\1>"
_SECRET_NAME = rb"TOKEN(?!_FILE)|PASS|SECRET|CREDENTIAL|_KEY$|^KEY$"


class Recorded(NamedTuple):
    """A call as it was recorded: the arguments, and the XML that was the first of them or came on stdin, if any.

    `is_left_out` tells of XML that was too long for the log.
    """

    arguments: tuple[str, ...]
    document: bytes
    is_left_out: bool = False


def lines(arguments: Sequence[str], standard_input: bytes) -> list[str]:
    """Return the lines that a call leaves in the log."""
    document = _document(standard_input)
    words = []
    for argument in arguments:
        own = _document(argument.encode("utf-8", "surrogateescape")) if len(argument) > _SHORTEST_XML else b""
        document = document or own
        words.append(_XML if own else _quoted(hiding.urls(argument)))
    text = " ".join(words)
    if document:
        data = base64.b64encode(zlib.compress(hidden(document))).decode()
        text += f" <{data}" if len(data) < _LONGEST_LINE * _MOST_LINES else f" {_LEFT_OUT}"
    parts = [text[start : start + _LONGEST_LINE] for start in range(0, max(len(text), 1), _LONGEST_LINE)]
    return [f"call {number}/{len(parts)}: {part}" for number, part in enumerate(parts, 1)]


def _quoted(argument: str) -> str:
    if len(argument) > _LONGEST_LINE:
        return _LEFT_OUT
    return quote_from_bytes(argument.encode("utf-8", "surrogateescape"), "/:.,=+@-_~") or _EMPTY


def _document(data: bytes) -> bytes:
    """Return the XML in `data`, plain or as base64; nothing for what is neither."""
    try:
        found = decoding.decode(data) if data else b""
    except InvalidInput:
        return b""
    return found if found.lstrip().startswith(b"<") else b""


def hidden(document: bytes) -> bytes:
    """Return the XML without what nobody may read."""
    document = re.sub(_USERS, rb"<\1>" + HIDDEN + rb"</\1>", document)
    document = re.sub(_DATASTORE, lambda found: _template_hidden(found.group()), document)
    document = re.sub(_ELEMENT, lambda found: _element_hidden(found, None), document)
    # Byte by byte, whatever their encoding is.
    return hiding.urls(document.decode("latin-1")).encode("latin-1")


def _template_hidden(datastore: bytes) -> bytes:
    head, opening, template = datastore.partition(b"<TEMPLATE>")
    return head + opening + re.sub(_ELEMENT, lambda found: _element_hidden(found, _KEPT), template)


def _element_hidden(found: re.Match[bytes], kept: Optional[set[bytes]]) -> bytes:
    name = found.group(1)
    if re.search(_SECRET_NAME, name) or (kept is not None and name not in kept):
        return b"<" + name + b">" + HIDDEN + b"</" + name + b">"
    return found.group()


def read(text: str) -> Recorded:
    """Return the call that these lines, put together without their beginnings, are; raises InvalidInput."""
    words, separator, data = text.partition(" <") if " <" in text else (text, "", "")
    if not separator and text.startswith("<"):
        words, separator, data = "", "<", text[1:]
    try:
        document = zlib.decompress(base64.b64decode(data, validate=True)) if data else b""
    except (binascii.Error, ValueError, zlib.error):
        raise InvalidInput(
            "A recorded call cannot be read: the log has not all of its lines, or they were cut"
        ) from None
    found = words.split()
    is_left_out = _LEFT_OUT in found
    arguments = tuple(_word(word, document) for word in found if word != _LEFT_OUT)
    return Recorded(arguments, document, is_left_out)


def _word(word: str, document: bytes) -> str:
    if word == _XML:
        return base64.b64encode(document).decode()
    return "" if word == _EMPTY else unquote_to_bytes(word).decode("utf-8", "surrogateescape")
