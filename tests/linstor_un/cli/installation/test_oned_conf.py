"""What is edited in oned.conf: exactly the needed lines, once, and each edit can be taken back to the byte."""

from __future__ import annotations

import difflib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linstor_sandbox.opennebula import datastores
from linstor_un.cli.installation import oned_conf
from linstor_un.cli.installation.oned_conf import DS_MAD_CONF, TM_MAD_CONF, Listed, Option
from linstor_un.cli.installation.oned_syntax import attributes
from linstor_un.errors import UnreadableConfiguration
from tests.conftest import CHECKOUT
from tests.linstor_un.cli.trees import NAMES, RELEASES

LOCAL = " -l save=save_linstor_un,restore=restore_linstor_un"
# Release by release the lists that grow and the hypervisors that run kvm's scripts.
LISTS = {
    "5.12.0": ("dev,vcenter,iscsi_libvirt", "iscsi_libvirt,vcenter", "fs_lvm,qcow2,vcenter", ["-t 15 -r 0 kvm"]),
    "6.4.0": (
        "dev,vcenter,iscsi_libvirt",
        "iscsi_libvirt,vcenter",
        "fs_lvm_ssh,qcow2,vcenter",
        ["-t 15 -r 0 kvm -p", "-t 15 -r 0 kvm"],
    ),
    "6.10.0": (
        "dev,vcenter,iscsi_libvirt",
        "vcenter,restic,rsync",
        "fs_lvm_ssh,qcow2,vcenter",
        ["-t 15 -r 0 kvm -p", "-t 15 -r 0 kvm"],
    ),
    "7.0.0": (
        "dev,iscsi_libvirt,netapp",
        "restic,rsync,netapp",
        "fs_lvm_ssh,qcow2,netapp",
        ["-t 15 -r 0 kvm -p", "-t 15 -r 0 kvm"],
    ),
    "7.4.0": (
        "iscsi_libvirt,netapp,purefa",
        "purefa,virtiofs,interactive",
        "qcow2,netapp,purefa",
        ["-t 15 -r 0 kvm -p", "-t 15 -r 0 kvm"],
    ),
}
MINIMAL = """\
# TM_MAD = [ EXECUTABLE = "one_tm", ARGUMENTS = "-d old" ]
TM_MAD = [ EXECUTABLE = "one_tm", ARGUMENTS = "-t 15 -d dummy,ssh" ]
DATASTORE_MAD = [
    EXECUTABLE = "one_datastore", # -d and -s
    ARGUMENTS  = "-t 15 -d fs,ceph -s ssh,ceph"
]
VM_MAD = [ NAME = "kvm", EXECUTABLE = "one_vmm_exec", ARGUMENTS = "-t 15 -r 0 kvm -p", TYPE = "kvm" ]
"""


def original(release: str) -> str:
    return (RELEASES / release / "oned.conf").read_text("latin-1")


def edited(text: str) -> str:
    return oned_conf.edited(text, oned_conf.needed(text))


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """Return the lines that went and those that came."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [line[2:] for line in lines if line[0] == "-"], [line[2:] for line in lines if line[0] == "+"]


@pytest.mark.parametrize("release", NAMES)
def test_exactly_the_needed_lines_of_a_release_change(release: str) -> None:
    before = original(release)
    tm, ds, system, hypervisors = LISTS[release]
    gone, come = changed(before, edited(before))
    assert len(gone) == 2 + len(hypervisors)
    expected = []
    for line in gone:
        line = re.sub(rf'({tm}|{ds})(?=[" ])', r"\1,linstor_un", line)
        line = line.replace(f'{system}"', f'{system},linstor_un"')
        expected.append(re.sub(r'"(-t 15 -r 0 kvm( -p)?)"', rf'"\1{LOCAL}"', line))
    stanzas = [*TM_MAD_CONF.splitlines(), "", *DS_MAD_CONF.splitlines(), ""]
    assert sorted(come) == sorted([*expected, *stanzas])
    assert [line for line in gone if line in come] == []


@pytest.mark.parametrize("release", NAMES)
def test_once_is_enough_and_can_be_taken_back(release: str) -> None:
    before = original(release)
    edits = oned_conf.needed(before)
    after = oned_conf.edited(before, edits)
    assert oned_conf.needed(after) == []
    assert oned_conf.reverted(after, edits) == before


@pytest.mark.parametrize("release", NAMES)
def test_the_stanzas_lie_behind_the_last_of_their_kind(release: str) -> None:
    names = [(found.name, found.text("NAME")) for found in attributes(edited(original(release)))]
    for kind in ("TM_MAD_CONF", "DS_MAD_CONF"):
        assert [name for found, name in names if found == kind][-1] == "linstor_un"
        places = [place for place, (found, _) in enumerate(names) if found == kind]
        assert places == list(range(places[0], places[0] + len(places)))


def test_the_readme_says_what_is_written() -> None:
    text = (CHECKOUT / "README.md").read_text()
    shown = {found.name: found for found in attributes(edited(original("7.4.0"))) if found.text("NAME") == "linstor_un"}
    for kind, stanza in (("TM_MAD_CONF", TM_MAD_CONF), ("DS_MAD_CONF", DS_MAD_CONF)):
        block = re.search(rf"^ *{kind} = \[.*?\]", text, re.MULTILINE | re.DOTALL)
        assert block
        assert dict(pairs(block.group())) == dict(pairs(stanza))
        assert {pair.name: pair.value for pair in shown[kind].pairs} == dict(pairs(stanza))


def test_the_tests_have_what_is_written() -> None:
    # A value of theirs alone would hide that oned refuses what the installed lines do not allow.
    assert dict(pairs(TM_MAD_CONF)) == datastores.TM_MAD_CONF


def pairs(stanza: str) -> list[tuple[str, str]]:
    return [(pair.name, pair.value) for pair in attributes(stanza)[0].pairs]


HOSTILE = {
    "windows line ends": MINIMAL.replace("\n", "\r\n"),
    "no newline at the end": MINIMAL.rstrip("\n"),
    "a comment at the end": MINIMAL + "# the end",
    "several entries": MINIMAL + MINIMAL.replace('NAME = "kvm"', 'NAME = "kvm2"'),
    "a driver of the admin's": MINIMAL.replace("dummy,ssh", "dummy,my-own,ssh").replace("fs,ceph ", "my-own,fs "),
    "the driver in the middle": MINIMAL.replace("dummy,ssh", "dummy,linstor_un,ssh"),
    "a value over several lines": MINIMAL.replace("-t 15 -d fs,ceph", "-t 15\n        -d fs,ceph\n       "),
    "tabs and no blanks": MINIMAL.replace(" = ", "=").replace("    ", "\t"),
    "lower case": MINIMAL.replace("ARGUMENTS", "arguments").replace("TM_MAD", "tm_mad"),
    "attached options": MINIMAL.replace("-d dummy,ssh", "-ddummy,ssh").replace("-d fs,ceph", "--ds-types=fs,ceph"),
    "long options": MINIMAL.replace("-s ssh,ceph", "--system-ds-types ssh,ceph").replace("-d fs", "--ds fs"),
    "the same option twice": MINIMAL.replace("-d dummy,ssh", "-d dummy -d ssh"),
    "no list of transfer drivers": MINIMAL.replace(" -d dummy,ssh", ""),
    "no list of system datastores": MINIMAL.replace(" -s ssh,ceph", ""),
    "no list of system datastores and a blank": MINIMAL.replace(" -s ssh,ceph", " "),
    "other local actions": MINIMAL.replace("kvm -p", "kvm -p -l migrate=migrate_local,deploy"),
    "local actions in front": MINIMAL.replace("-t 15 -r 0 kvm", "-l migrate=migrate_local -t 15 -r 0 kvm"),
    "one of both overrides": MINIMAL.replace("kvm -p", "kvm -p -l save=save_linstor_un"),
    "an override of the admin's": MINIMAL.replace("kvm -p", "kvm -p -l save=my_save"),
    "quotes in a value": MINIMAL + 'X = "say \\"TM_MAD = [\\" # no comment"\n',
    "bytes of no encoding": MINIMAL + "# \xff\xfe\n",
    "the stanza of 2019": MINIMAL
    + 'TM_MAD_CONF = [\n    NAME = "linstor_un", LN_TARGET = "NONE", CLONE_TARGET = "SYSTEM", SHARED = "yes",\n'
    + '    DS_MIGRATE = "YES", ALLOW_ORPHANS="yes"\n]\n'
    + 'DS_MAD_CONF = [\n    NAME = "linstor_un", PERSISTENT_ONLY = "NO",\n    MARKETPLACE_ACTIONS = "export"\n]\n',
    "empty values": MINIMAL + "A =\nB = [ ]\nC = 5 # five\n",
}


@pytest.mark.parametrize("title", HOSTILE)
def test_whatever_the_file_looks_like(title: str) -> None:
    before = HOSTILE[title]
    edits = oned_conf.needed(before)
    after = oned_conf.edited(before, edits)
    assert oned_conf.needed(after) == []
    assert oned_conf.reverted(after, edits) == before
    # Of what was there, nothing has gone.
    kept = iter(after)
    assert all(character in kept for character in before)


def arguments(text: str, kind: str, number: int = 0) -> str:
    found = [item for item in attributes(text) if item.name == kind][number]
    return " ".join(found.text("ARGUMENTS").split())


def test_a_list_that_is_not_given_stays_as_oned_takes_it() -> None:
    after = edited(HOSTILE["no list of transfer drivers"])
    assert arguments(after, "TM_MAD") == "-t 15"
    after = edited(HOSTILE["no list of system datastores"])
    assert arguments(after, "DATASTORE_MAD") == "-t 15 -d fs,ceph,linstor_un -s shared,ssh,ceph,linstor_un"


def test_the_entry_that_oned_takes_is_edited() -> None:
    after = edited(HOSTILE["several entries"])
    assert [arguments(after, "TM_MAD", number) for number in (0, 1)] == [
        "-t 15 -d dummy,ssh,linstor_un",
        "-t 15 -d dummy,ssh",
    ]
    assert arguments(after, "VM_MAD", 1).endswith(LOCAL)
    assert arguments(edited(HOSTILE["the same option twice"]), "TM_MAD") == "-t 15 -d dummy -d ssh,linstor_un"
    assert '# TM_MAD = [ EXECUTABLE = "one_tm", ARGUMENTS = "-d old" ]\n' in after


def test_what_an_admin_has_decided_stays() -> None:
    assert arguments(edited(HOSTILE["an override of the admin's"]), "VM_MAD").endswith(
        "-l save=my_save,restore=restore_linstor_un"
    )
    after = edited(HOSTILE["the stanza of 2019"])
    assert 'SHARED = "yes"' in after
    added = 'DRIVER = "raw", DISK_TYPE = "BLOCK", DS_LIVE_MIGRATE = "YES", DS_MIGRATE_SNAP = "YES"'
    assert f'ALLOW_ORPHANS="yes", {added}\n]' in after


def test_other_hypervisors_are_left_alone() -> None:
    for release in NAMES:
        after = edited(original(release))
        others = [
            item for item in attributes(after) if item.name == "VM_MAD" and item.text("NAME") not in ("kvm", "qemu")
        ]
        assert others and all("linstor_un" not in item.text("ARGUMENTS") for item in others)


def test_new_lines_end_as_the_old_ones_do() -> None:
    after = edited(HOSTILE["windows line ends"])
    assert after.count("\n") == after.count("\r\n")


def test_what_was_edited_since_keeps_its_edits() -> None:
    before = original("7.4.0")
    edits = oned_conf.needed(before)
    since = oned_conf.edited(before, edits)
    for old, new in (
        ("purefa,linstor_un", "purefa,linstor_un,later"),
        (
            'SHARED = "YES", DS_MIGRATE = "YES",\n    DRIVER = "raw", DISK',
            "DISK",
        ),
        ("kvm -p -l save", "kvm -p -l deploy=mine,save"),
        ("MONITORING_INTERVAL_MARKET    = 600", "MONITORING_INTERVAL_MARKET    = 900"),
    ):
        assert old in since
        since = since.replace(old, new)
    back = oned_conf.reverted(since, edits)
    assert "linstor_un" not in back
    gone, come = changed(before, back)
    assert [line.strip() for line in come if line.strip()] == [
        "MONITORING_INTERVAL_MARKET    = 900",
        'ARGUMENTS      = "-t 15 -r 0 kvm -p -l deploy=mine",',
        gone[2].strip().replace("purefa", "purefa,later"),
        gone[3].strip().replace('netapp,purefa"', 'netapp,purefa,later"'),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [("A = 1\nB\n", 2), ('A = [ B "c" ]\n', 1), ('A = "never ends\n', 1), ("A = [ B = 1\n", 2), ("= 5\n", 1)],
)
def test_what_cannot_be_understood_is_refused_by_its_line(text: str, line: int) -> None:
    with pytest.raises(UnreadableConfiguration, match=f"from line {line} on: correct that line"):
        oned_conf.needed(text)


def test_a_file_without_oneds_drivers_is_refused() -> None:
    with pytest.raises(UnreadableConfiguration, match="no TM_MAD with ARGUMENTS: restore it"):
        oned_conf.needed("PORT = 2633\n")


WORDS = st.sampled_from(["-t", "15", "-d", "-dfs", "a,b", "--tm-types", "--tm-types=x", "linstor_un", "-x"])


@given(words=st.lists(WORDS, max_size=6), blanks=st.sampled_from([" ", "  ", "\n\t"]))
def test_any_arguments_can_be_edited_and_taken_back(words: list[str], blanks: str) -> None:
    text = f'TM_MAD = [ ARGUMENTS = "{blanks.join(words)}" ]\n'
    edit = Listed("TM_MAD", Option("d", "tm-types"), "one,two")
    if edit.is_needed(text):
        after = edit.apply(text)
        assert not edit.is_needed(after)
        assert edit.revert(after) == text
