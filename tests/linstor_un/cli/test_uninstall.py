"""uninstall: what was there is back to the byte, and what was edited since keeps its edits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from linstor_un.cli.output import DRY_RUN
from tests.linstor_un.cli.trees import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return an OpenNebula with the driver."""
    made = Tree(tmp_path / "one")
    made.oned_conf.write_bytes(made.oned_conf.read_bytes().rstrip(b"\n"))
    made.done("install", "--yes")
    return made


def test_what_was_edited_since_keeps_its_edits(tree: Tree) -> None:
    for path, old, new in (
        (tree.oned_conf, "purefa,linstor_un", "purefa,linstor_un,later"),
        (tree.vmm_execrc, "kvm-linstor_un", "kvm-linstor_un kvm-later"),
    ):
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    said = tree.done("uninstall", "--yes")
    assert said.count("was changed since: only the lines for linstor_un go") == 2
    assert "linstor_un" not in tree.oned_conf.read_text() + tree.vmm_execrc.read_text()
    assert "netapp,purefa,later" in tree.oned_conf.read_text()
    assert "kvm-purefa" in tree.vmm_execrc.read_text() and "kvm-later" in tree.vmm_execrc.read_text()
    assert not list(tree.folder.rglob("*linstor*"))


def test_other_files_in_the_drivers_folders_stay(tree: Tree) -> None:
    mine = tree.remotes / "tm/linstor_un/clone.mine"
    mine.write_text("mine")
    tree.done("uninstall", "--yes")
    assert list(tree.remotes.rglob("*linstor_un*/*")) == [mine]


def test_a_script_that_was_changed_since_is_named(tree: Tree) -> None:
    script = tree.remotes / "tm/linstor_un/mv"
    script.write_text(script.read_text() + "# patched\n")
    assert f"{script} was changed since and goes with what was changed" in tree.done("uninstall", "--yes")
    assert not script.exists()


def test_a_dry_run_changes_nothing(tree: Tree) -> None:
    before = tree.content()
    *shown, last = tree.done("uninstall", "--dry-run").splitlines()
    assert (last, shown[0].startswith("Back to what was there")) == (DRY_RUN, True)
    changes = json.loads(tree.done("uninstall", "--dry-run", "--json"))
    assert {change["change"] for change in changes if "/lib/" in change["path"]} == {"removed"}
    assert tree.content() == before


def test_what_was_never_installed_is_refused(tmp_path: Path) -> None:
    result = Tree(tmp_path / "bare").run("uninstall", "--yes")
    assert result.exit_code == 1
    assert "was not installed by `linstor-un install` here" in result.output


def test_a_record_of_another_version_is_left_alone(tree: Tree) -> None:
    record = tree.var / "linstor_un/installed.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 2'))
    before = tree.content()
    for verb in ("install", "upgrade", "uninstall"):
        result = tree.run(verb, "--yes")
        assert result.exit_code == 1
        assert "use the linstor-un that has written it" in result.output
    assert tree.content() == before


@pytest.mark.parametrize("path", ["/etc/passwd", "{remotes}/../../etc/passwd", "{remotes}x/script", "/"])
def test_a_record_that_names_what_no_installation_changes_is_not_followed(tree: Tree, path: str) -> None:
    """OpenNebula's user may write the record, and root may be who uninstalls."""
    record = tree.var / "linstor_un/installed.json"
    planted = json.loads(record.read_text())
    first = next(iter(planted["paths"].values()))
    planted["paths"][path.format(remotes=tree.remotes)] = {**first, "original": None, "original_digest": "absent"}
    record.write_text(json.dumps(planted))
    before = tree.content()
    result = tree.run("uninstall", "--yes")
    assert result.exit_code == 1
    assert "which no installation changes" in result.output
    assert tree.content() == before
