"""The syntax of oned.conf, with the place of everything, so that an edit changes nothing but what it must.

As oned reads it: `NAME = value` and `NAME = [ NAME = value, ... ]`; a value is one word or stands in double quotes, in
which a quote has a backslash before it; # begins a comment. Text is handled as Latin-1, where a
byte is a character.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn, Optional

from linstor_un.errors import UnreadableConfiguration

_IGNORED = re.compile(r"(?:\s+|#[^\n]*)*")
_BLANKS = re.compile(r"[ \t\r]*")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\"|\\)*)"')
_WORD = re.compile(r"[^=#\s,\[\]]+")


class Span(NamedTuple):
    """Where something stands in the text, from `start` up to `end`."""

    start: int
    end: int


class Pair(NamedTuple):
    """`NAME = value` inside of a vector; `inner` is the value without its quotes."""

    name: str
    value: str
    span: Span
    inner: Span


class Attribute(NamedTuple):
    """An attribute with its value, or with its pairs where it is a vector."""

    name: str
    value: str
    pairs: tuple[Pair, ...]
    span: Span

    def pair(self, name: str) -> Optional[Pair]:
        """Return the pair with this name, or None; oned takes the first."""
        return next((pair for pair in self.pairs if pair.name == name), None)

    def text(self, name: str) -> str:
        """Return the value of a pair, empty where there is none."""
        found = self.pair(name)
        return found.value if found else ""


def attributes(text: str) -> list[Attribute]:
    """Return the attributes of oned.conf in their order; raises UnreadableConfiguration."""
    reader = _Reader(text)
    found = []
    while not reader.is_at_end():
        found.append(reader.attribute())
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def is_at_end(self) -> bool:
        self._skip(_IGNORED)
        return self.position >= len(self.text)

    def attribute(self) -> Attribute:
        start = self.position
        name = self._name()
        self._skip(_BLANKS)
        if self.text.startswith("[", self.position):
            pairs = self._vector()
            return Attribute(name, "", tuple(pairs), Span(start, self.position))
        if self.text.startswith("\n", self.position) or self.position >= len(self.text):
            return Attribute(name, "", (), Span(start, self.position))
        value, _ = self._value()
        return Attribute(name, value, (), Span(start, self.position))

    def _vector(self) -> list[Pair]:
        self.position += 1
        pairs = []
        self._skip(_IGNORED)
        while not self.text.startswith("]", self.position):
            start = self.position
            name = self._name()
            self._skip(_BLANKS)
            value, inner = self._value()
            pairs.append(Pair(name, value, Span(start, self.position), inner))
            self._skip(_IGNORED)
            if self.text.startswith(",", self.position):
                self.position += 1
                self._skip(_IGNORED)
        self.position += 1
        return pairs

    def _name(self) -> str:
        match = _NAME.match(self.text, self.position) or self._refuse()
        self.position = match.end()
        self._skip(_BLANKS)
        if not self.text.startswith("=", self.position):
            self._refuse()
        self.position += 1
        return match.group().upper()

    def _value(self) -> tuple[str, Span]:
        match = _QUOTED.match(self.text, self.position)
        if match:
            self.position = match.end()
            return match.group(1).replace('\\"', '"'), Span(*match.span(1))
        match = _WORD.match(self.text, self.position) or self._refuse()
        self.position = match.end()
        return match.group(), Span(*match.span())

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.position)
        if match:
            self.position = match.end()

    def _refuse(self) -> NoReturn:
        line = self.text.count("\n", 0, self.position) + 1
        raise UnreadableConfiguration(
            f"oned.conf cannot be understood from line {line} on: correct that line, which oned does not read as it is "
            "meant either"
        )
