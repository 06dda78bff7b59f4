"""What mixed mode edits in oned.conf: the lines that the documentation has, once, and they can be taken back."""

from __future__ import annotations

import difflib
import re

import pytest

from linstor_un.cli.installation import mixed_modes, oned_conf
from linstor_un.cli.installation.mixed_modes import MODES
from linstor_un.cli.installation.oned_syntax import attributes
from linstor_un.errors import InvalidInput
from tests.conftest import CHECKOUT
from tests.linstor_un.cli.trees import NAMES, RELEASES

ALL = ["ssh", "shared", "local", "ceph"]


def original(release: str) -> str:
    return (RELEASES / release / "oned.conf").read_text("latin-1")


def installed(release: str) -> str:
    before = original(release)
    return oned_conf.edited(before, oned_conf.needed(before))


def pairs(text: str, driver: str) -> dict[str, str]:
    stanzas = [item for item in attributes(text) if item.name == "TM_MAD_CONF" and item.text("NAME") == driver]
    return {pair.name: pair.value for pair in stanzas[0].pairs}


@pytest.mark.parametrize("release", NAMES)
def test_exactly_the_needed_pairs_come_once_and_go_again(release: str) -> None:
    before = installed(release)
    after = mixed_modes.edited(before, ALL)
    own, ceph = pairs(after, "linstor_un"), pairs(after, "ceph")
    assert own.items() - pairs(before, "linstor_un").items() == {
        ("TM_MAD_SYSTEM", "ssh,shared,local"),
        *(pair for name in ("ssh", "shared", "local") for pair in MODES[name].keys.items()),
    }
    listed = pairs(before, "ceph")["TM_MAD_SYSTEM"]
    assert ceph.items() - pairs(before, "ceph").items() == {
        ("TM_MAD_SYSTEM", f"{listed},linstor_un"),
        *MODES["ceph"].keys.items(),
    }
    others = {item.text("NAME") for item in attributes(after)} - {"linstor_un", "ceph"}
    assert len(others) > 10
    gone = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] == "-"]
    # The last line of our stanza, and those of ceph's that have its list and its last pair.
    assert len(gone) <= 3
    assert mixed_modes.edited(after, ALL) == after
    assert mixed_modes.faults(after) == [] and set(mixed_modes.named(after)) == set(ALL)
    assert mixed_modes.reverted(after, before) == before
    assert mixed_modes.reverted(after, original(release)) == before


def test_one_by_one_is_the_same_as_at_once() -> None:
    before = installed("7.4.0")
    text = before
    for name in ALL:
        text = mixed_modes.edited(text, [name])
    assert pairs(text, "linstor_un") == pairs(mixed_modes.edited(before, ALL), "linstor_un")
    assert mixed_modes.reverted(text, before) == before


def test_what_is_wrong_is_named_put_right_and_put_back() -> None:
    before = re.sub(
        r'(NAME = "linstor_un", LN_TARGET = "NONE",)',
        r'\1 LN_TARGET_SSH="SYSTEM", TM_MAD_SYSTEM=" shared ",',
        installed("7.4.0"),
    )
    assert pairs(before, "linstor_un")["LN_TARGET_SSH"] == "SYSTEM"
    found = {(fault.mode, fault.key, fault.value) for fault in mixed_modes.faults(before)}
    assert {("ssh", "TM_MAD_SYSTEM", " shared "), ("ssh", "LN_TARGET_SSH", "SYSTEM")} <= found
    assert ("shared", "LN_TARGET_SHARED", "") in found
    after = mixed_modes.edited(before, ["ssh", "shared"])
    assert mixed_modes.faults(after) == []
    assert mixed_modes.reverted(after, before) == before


def test_a_stanza_of_the_operators_own_keeps_its_form() -> None:
    before = 'TM_MAD_CONF = [ NAME = "linstor_un", LN_TARGET = "NONE",\r\n  SHARED = "YES", ]\r\nPORT = 2633\r\n'
    after = mixed_modes.edited(before, ["ssh"])
    assert after.endswith(", ]\r\nPORT = 2633\r\n") and '\r\n    LN_TARGET_SSH = "NONE"' in after
    assert mixed_modes.reverted(after, before) == before


def test_what_nobody_knows_is_refused() -> None:
    assert mixed_modes.parse(" ssh,Shared,,ssh ") == ["ssh", "shared"]
    with pytest.raises(InvalidInput, match="--mixed does not know fs_lvm: it takes ssh, local, shared, qcow2, ceph"):
        mixed_modes.parse("ssh,fs_lvm")
    with pytest.raises(InvalidInput, match="oned.conf has no TM_MAD_CONF of ceph"):
        mixed_modes.edited(installed("7.4.0").replace('NAME = "ceph"', 'NAME = "chef"'), ["ceph"])


def test_images_of_files_in_our_system_datastores_are_noticed() -> None:
    text = mixed_modes.edited(installed("7.4.0"), ALL)
    assert mixed_modes.unwanted(text) == []
    text = re.sub(r'(NAME = "shared", .*\n\s+TM_MAD_SYSTEM = "ssh)"', r'\1,linstor_un"', text)
    assert mixed_modes.unwanted(text) == ["shared"]


def test_the_documentation_has_the_lines_that_are_written() -> None:
    text = (CHECKOUT / "docs" / "mixed.md").read_text()
    after = mixed_modes.edited(installed("7.4.0"), ALL)
    shown = re.findall(r"^    TM_MAD_CONF = \[.*?\]", text, re.MULTILINE | re.DOTALL)
    assert len(shown) == 2
    for block in shown:
        [stanza] = attributes(block)
        driver = stanza.text("NAME")
        written = pairs(after, driver)
        for pair in stanza.pairs:
            assert written[pair.name] == pair.value, pair.name
        wanted = [key for name in ALL if MODES[name].images == driver for key in MODES[name].keys]
        assert [key for key in ("TM_MAD_SYSTEM", *wanted) if stanza.pair(key) is None] == []
