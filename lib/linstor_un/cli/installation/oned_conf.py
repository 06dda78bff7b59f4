"""What oned.conf must say for the driver, as edits that touch nothing else and can each be taken back.

opennebula-contract.md, 10.1: of several TM_MAD or DATASTORE_MAD oned takes the first, of several options the last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Optional, Union

from linstor_un.cli.installation.oned_syntax import Attribute, Span, attributes
from linstor_un.errors import UnreadableConfiguration

DRIVER = "linstor_un"
TM_MAD_CONF = f"""\
TM_MAD_CONF = [
    NAME = "{DRIVER}", LN_TARGET = "NONE", CLONE_TARGET = "SYSTEM", SHARED = "YES", DS_MIGRATE = "YES",
    DRIVER = "raw", DISK_TYPE = "BLOCK", ALLOW_ORPHANS = "YES", DS_LIVE_MIGRATE = "YES", DS_MIGRATE_SNAP = "YES"
]"""
DS_MAD_CONF = f"""\
DS_MAD_CONF = [
    NAME = "{DRIVER}", REQUIRED_ATTRS = "", PERSISTENT_ONLY = "NO", MARKETPLACE_ACTIONS = "export"
]"""
# Without these oned takes what they would say anyway.
_OPTIONAL_KEYS = frozenset({"REQUIRED_ATTRS", "PERSISTENT_ONLY"})
OVERRIDES = {"save": "save_linstor_un", "restore": "restore_linstor_un"}


class Word(NamedTuple):
    """A word of ARGUMENTS, which oned's drivers split at blanks."""

    text: str
    span: Span


class Option(NamedTuple):
    """An option of one of oned's drivers, as Ruby's GetoptLong reads it."""

    letter: str
    name: str

    def last(self, arguments: str) -> Optional[Word]:
        """Return the value that holds, with its place, or None where the option is not given."""
        found = None
        words = _words(arguments)
        for number, word in enumerate(words):
            if word.text == f"-{self.letter}" or self._is_long(word.text):
                following = words[number + 1 : number + 2]
                found = next((after for after in following if not after.text.startswith("-")), found)
            elif word.text.startswith(f"-{self.letter}"):
                found = _tail(word, 2)
            elif "=" in word.text and self._is_long(word.text.partition("=")[0]):
                found = _tail(word, word.text.index("=") + 1)
        return found

    def _is_long(self, text: str) -> bool:
        return len(text) > 3 and f"--{self.name}".startswith(text)


_TM_TYPES = Option("d", "tm-types")
_DS_TYPES = Option("d", "ds-types")
_SYSTEM_TYPES = Option("s", "system-ds-types")
_LOCAL = Option("l", "local")
_VALUED_OPTIONS = "rtwlds"


class Listed(NamedTuple):
    """The driver's place in the list of an option of TM_MAD or DATASTORE_MAD.

    `default` is the list that oned's driver takes without the option; where it takes all that there are, nothing.
    """

    attribute: str
    option: Option
    default: str = ""

    def is_needed(self, text: str) -> bool:
        """Tell whether the driver is missing from the list."""
        found = self.option.last(_arguments(text, self.attribute)[0])
        return DRIVER not in _items(found.text) if found else bool(self.default)

    def apply(self, text: str) -> str:
        """Return the text with the driver in the list."""
        arguments, place = _arguments(text, self.attribute)
        found = self.option.last(arguments)
        if found:
            return _put(text, place.start + found.span.end, f",{DRIVER}")
        return _put(text, place.end, self._whole)

    def revert(self, text: str) -> str:
        """Return the text without the driver in the list."""
        arguments, place = _arguments(text, self.attribute)
        found = self.option.last(arguments)
        if not found:
            return text
        if self.default and found.text == f"{self.default},{DRIVER}" and arguments.endswith(self._whole):
            return _cut(text, Span(place.end - len(self._whole), place.end))
        return _without(text, found, place, DRIVER)

    @property
    def _whole(self) -> str:
        return f" -{self.option.letter} {self.default},{DRIVER}"


class Override(NamedTuple):
    """Actions that the VM_MAD with this name is to run on the front-end, each as `save=save_linstor_un`."""

    name: str
    actions: tuple[str, ...]

    def apply(self, text: str) -> str:
        """Return the text with the actions."""
        arguments, place = _arguments(text, "VM_MAD", self.name)
        added = ",".join(self.actions)
        found = _LOCAL.last(arguments)
        if found:
            return _put(text, place.start + found.span.end, f",{added}")
        return _put(text, place.end, f" -l {added}")

    def revert(self, text: str) -> str:
        """Return the text without the actions."""
        for action in self.actions:
            arguments, place = _arguments(text, "VM_MAD", self.name)
            found = _LOCAL.last(arguments)
            alone = re.search(rf"\s-l\s+{action}(?!\S)", arguments)
            if alone:
                text = _cut(text, Span(place.start + alone.start(), place.start + alone.end()))
            elif found:
                text = _without(text, found, place, action)
        return text


class Stanza(NamedTuple):
    """A TM_MAD_CONF or DS_MAD_CONF of the driver's own."""

    stanza: str

    def apply(self, text: str) -> str:
        """Return the text with the stanza after the last of its kind."""
        name = self._own.name
        last = [found for found in attributes(text) if found.name == name][-1:]
        if last:
            return _put(text, last[0].span.end, self._added(text))
        return text + self._added(text)

    def revert(self, text: str) -> str:
        """Return the text without the stanza, also where it has been changed meanwhile."""
        if self._added(text) in text:
            return text.replace(self._added(text), "", 1)
        present = _named(text, self._own.name, DRIVER)
        return _cut(text, present.span) if present else text

    @property
    def _own(self) -> Attribute:
        return attributes(self.stanza)[0]

    def _added(self, text: str) -> str:
        return f"\n\n{self.stanza}".replace("\n", "\r\n" if "\r\n" in text else "\n")


class Keys(NamedTuple):
    """Pairs that an older stanza of the driver does not have yet; those that it has are the operator's."""

    kind: str
    pairs: tuple[tuple[str, str], ...]

    def apply(self, text: str) -> str:
        """Return the text with the pairs behind the others."""
        present = _named(text, self.kind, DRIVER)
        assert present is not None, "asked for only where there is one"
        return _put(text, present.pairs[-1].span.end, "".join(map(self._added, self.pairs)))

    def revert(self, text: str) -> str:
        """Return the text without the pairs, where they have still these values."""
        for pair in self.pairs:
            present = _named(text, self.kind, DRIVER)
            span = present.span if present else Span(0, 0)
            start = text.find(self._added(pair), span.start, span.end)
            text = _cut(text, Span(start, start + len(self._added(pair)))) if start >= 0 else text
        return text

    @staticmethod
    def _added(pair: tuple[str, str]) -> str:
        return f', {pair[0]} = "{pair[1]}"'


Edit = Union[Listed, Override, Stanza, Keys]


def needed(text: str) -> list[Edit]:
    """Return the edits that this oned.conf needs; raises UnreadableConfiguration."""
    lists = (
        Listed("TM_MAD", _TM_TYPES),
        Listed("DATASTORE_MAD", _DS_TYPES),
        Listed("DATASTORE_MAD", _SYSTEM_TYPES, "shared,ssh,ceph"),
    )
    edits: list[Edit] = [item for item in lists if item.is_needed(text)]
    for name in hypervisors(text):
        given = overridden(text, name)
        actions = tuple(f"{action}={script}" for action, script in OVERRIDES.items() if action not in given)
        edits += [Override(name, actions)] if actions else []
    for stanza in (TM_MAD_CONF, DS_MAD_CONF):
        edits += _needed_stanza(text, stanza)
    return edits


def _needed_stanza(text: str, stanza: str) -> list[Edit]:
    own = attributes(stanza)[0]
    present = _named(text, own.name, DRIVER)
    if present is None:
        return [Stanza(stanza)]
    keys = [pair for pair in own.pairs if pair.name not in _OPTIONAL_KEYS and not present.pair(pair.name)]
    return [Keys(own.name, tuple((pair.name, pair.value) for pair in keys))] if keys else []


def edited(text: str, edits: Sequence[Edit]) -> str:
    """Return the text with all of the edits."""
    for edit in edits:
        text = edit.apply(text)
    return text


def reverted(text: str, edits: Sequence[Edit]) -> str:
    """Return the text without what the edits have put into it."""
    for edit in reversed(edits):
        text = edit.revert(text)
    return text


def hypervisors(text: str) -> list[str]:
    """Return the names of the VM_MADs that run the scripts in vmm/kvm: kvm, and qemu for nested VMs."""
    return [found.text("NAME") for found in attributes(text) if found.name == "VM_MAD" and _runs_kvm(found)]


def overridden(text: str, name: str) -> dict[str, str]:
    """Return the actions that the VM_MAD with this name runs on the front-end, in small letters, with their scripts."""
    found = _LOCAL.last(_arguments(text, "VM_MAD", name)[0])
    pairs = (item.partition("=") for item in _items(found.text if found else ""))
    return {action.lower(): script for action, _, script in pairs}


def stanza_of_driver(text: str, kind: str) -> Optional[Attribute]:
    """Return the driver's TM_MAD_CONF or DS_MAD_CONF, or None."""
    return _named(text, kind, DRIVER)


def _runs_kvm(found: Attribute) -> bool:
    program = found.text("EXECUTABLE").rpartition("/")[2]
    return program == "one_vmm_exec" and _hypervisor(found.text("ARGUMENTS")) == "kvm"


def _hypervisor(arguments: str) -> str:
    """Return the first word that is no option nor the value of one."""
    words = [word.text for word in _words(arguments)]
    for before, word in zip(["", *words], words):
        is_value = len(before) == 2 and before[0] == "-" and before[1] in _VALUED_OPTIONS
        is_long_value = before.startswith("--") and "=" not in before and before != "--parallel"
        if not word.startswith("-") and not is_value and not is_long_value:
            return word
    return ""


def _arguments(text: str, attribute: str, name: str = "") -> tuple[str, Span]:
    """Return the ARGUMENTS of the first attribute of a kind, or of the one with a NAME, and their place in the text."""
    found = next(
        (item for item in attributes(text) if item.name == attribute and name in ("", item.text("NAME"))), None
    )
    pair = found.pair("ARGUMENTS") if found else None
    if pair is None:
        raise UnreadableConfiguration(
            f"oned.conf has no {attribute} with ARGUMENTS: restore it from OpenNebula's own oned.conf"
        )
    return text[pair.inner.start : pair.inner.end], pair.inner


def _named(text: str, kind: str, name: str) -> Optional[Attribute]:
    return next((item for item in attributes(text) if item.name == kind and item.text("NAME") == name), None)


def _words(arguments: str) -> list[Word]:
    return [Word(match.group(), Span(*match.span())) for match in re.finditer(r"\S+", arguments)]


def _tail(word: Word, start: int) -> Word:
    return Word(word.text[start:], Span(word.span.start + start, word.span.end))


def _items(text: str) -> list[str]:
    return [item for item in text.split(",") if item]


def _without(text: str, found: Word, place: Span, item: str) -> str:
    kept = ",".join(other for other in found.text.split(",") if other != item)
    return text[: place.start + found.span.start] + kept + text[place.start + found.span.end :]


def _put(text: str, position: int, added: str) -> str:
    return text[:position] + added + text[position:]


def _cut(text: str, span: Span) -> str:
    return text[: span.start] + text[span.end :]
