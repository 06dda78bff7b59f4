"""upgrade: the bash linstor_un and older versions are replaced in place, and can be had back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from linstor_un.settings import read_configuration
from tests.conftest import CHECKOUT
from tests.linstor_un.cli.trees import Tree

# As the driver of 2019 was installed by its README.
STANZAS = """
TM_MAD_CONF = [
    NAME = "linstor_un", LN_TARGET = "NONE", CLONE_TARGET = "SYSTEM", SHARED = "yes",
    DS_MIGRATE = "YES", ALLOW_ORPHANS="yes"
]

DS_MAD_CONF = [
    NAME = "linstor_un", PERSISTENT_ONLY = "NO",
    MARKETPLACE_ACTIONS = "export"
]
"""
CONFIGURATION = "# Paths for utilities\nLINSTOR=${LINSTOR:-linstor}\nDD_CONV=sparse\nSTAGING_DIR=/var/big\n"


@pytest.fixture
def bash(tmp_path: Path) -> Tree:
    """Return an OpenNebula of that time with the bash driver."""
    tree = Tree(tmp_path / "one", "5.12.0", packages=True)
    for folder in ("datastore/linstor_un", "tm/linstor_un", "vmm/kvm"):
        for script in (CHECKOUT / folder).iterdir():
            if script.is_file():
                add(tree.remotes / folder / script.name, "#!/bin/bash\n. linstor_utils.sh\n")
    add(tree.remotes / "datastore/linstor_un/linstor_utils.sh", "linstor_cleanup() { :; }\n")
    add(tree.remotes / "datastore/linstor_un/linstor_un.conf", CONFIGURATION)
    add(tree.configuration, CONFIGURATION)
    text = tree.oned_conf.read_text()
    text = text.replace('vcenter,iscsi_libvirt"', 'vcenter,iscsi_libvirt,linstor_un"')
    text = text.replace("iscsi_libvirt,vcenter -s", "iscsi_libvirt,vcenter,linstor_un -s").replace(
        'qcow2,vcenter"', 'qcow2,vcenter,linstor_un"'
    )
    text = text.replace('-t 15 -r 0 kvm"', '-t 15 -r 0 kvm -l save=save_linstor_un,restore=restore_linstor_un"')
    tree.oned_conf.write_text(text + STANZAS)
    tree.vmm_execrc.write_text(tree.vmm_execrc.read_text().replace("kvm-ceph", "kvm-ceph kvm-linstor_un"))
    return tree


def add(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o775)


def test_the_bash_driver_is_replaced_and_comes_back(bash: Tree) -> None:
    before = bash.content()
    said = bash.done("upgrade", "--yes")
    assert "There now: the bash linstor_un." in said
    assert f"{bash.configuration} is yours and stays as it is." in said
    # Nothing of oned.conf but what the stanza of 2019 does not say yet.
    changed = [line for line in said.splitlines() if line.startswith(("+ ", "- "))]
    assert changed == [
        '-    DS_MIGRATE = "YES", ALLOW_ORPHANS="yes"',
        '+    DS_MIGRATE = "YES", ALLOW_ORPHANS="yes", DRIVER = "raw", DISK_TYPE = "BLOCK", DS_LIVE_MIGRATE = "YES", '
        'DS_MIGRATE_SNAP = "YES"',
    ]
    scripts = [path for kind in ("datastore", "tm") for path in (bash.remotes / kind / "linstor_un").iterdir()]
    assert {path.read_bytes().split(b"\n")[2] for path in scripts} == {b"import sys"}
    assert read_configuration(str(bash.configuration)) == {"STAGING_DIR": "/var/big"}
    assert "nothing to do" in bash.done("upgrade", "--yes")
    bash.done("uninstall", "--yes")
    assert bash.content() == before


def test_a_bash_driver_that_is_linked_from_its_checkout_is_not_written_into(bash: Tree) -> None:
    elsewhere = bash.folder / "addon"
    shutil.move(bash.remotes / "tm/linstor_un", elsewhere)
    (bash.remotes / "tm/linstor_un").symlink_to(elsewhere)
    before = bash.content()
    bash.done("upgrade", "--yes")
    assert (elsewhere / "mv").read_text() == "#!/bin/bash\n. linstor_utils.sh\n"
    assert not (bash.remotes / "tm/linstor_un").is_symlink()
    bash.done("uninstall", "--yes")
    assert bash.content() == before


def test_an_older_version_is_replaced_with_what_it_does_not_have_any_more(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "one")
    bare = tree.content()
    tree.done("install", "--yes")
    library, record = tree.remotes / "lib/linstor_un", tree.var / "linstor_un/installed.json"
    older = json.loads(record.read_text())
    # A version with a module that has gone, an action that was different, and another configuration as it comes.
    gone, action = library / "gone.py", tree.remotes / "tm/linstor_un/mv"
    for path, text in ((gone, "GONE = True\n"), (action, "#!/bin/sh\n"), (tree.configuration, "# older\n")):
        path.write_text(text)
        older["paths"].setdefault(str(path), {"original": None, "original_digest": "absent"})
        older["paths"][str(path)]["installed"] = [sha256(text)]
    record.write_text(json.dumps({**older, "version": "2.9"}))
    assert "There now: linstor_un 2.9." in tree.done("upgrade", "--yes")
    assert not gone.exists()
    assert "import sys" in action.read_text() and "LS_CONTROLLERS" in tree.configuration.read_text()
    tree.done("uninstall", "--yes")
    assert tree.content() == bare


def sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def test_where_nothing_is_installed_there_is_nothing_to_upgrade(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "one")
    before = tree.content()
    result = tree.run("upgrade", "--yes")
    assert result.exit_code == 1
    assert "to be upgraded: use `linstor-un install`" in result.output
    assert tree.content() == before
