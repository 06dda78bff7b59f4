"""A driver whose files are a distribution's package's: install and uninstall do the configuration, and no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from linstor_un.cli.installation import packaged, payload, tree
from tests.conftest import CHECKOUT
from tests.linstor_un.cli.trees import Tree


@pytest.fixture
def cloud(tmp_path: Path) -> Tree:
    """Return an OpenNebula into whose remotes folder a package has put this driver."""
    found = Tree(tmp_path / "one")
    library = found.remotes / payload.LIBRARY
    shutil.copytree(CHECKOUT / payload.LIBRARY, library, ignore=shutil.ignore_patterns("__pycache__"))
    (library / "INSTALLER").write_text("deb\n")
    (library / "vendored/some-1.dist-info").mkdir(parents=True)
    (library / "vendored/some-1.dist-info/METADATA").write_text("Name: some\n")
    (library / "vendored/some.py").write_text("ANSWER = 42\n")
    shutil.copy(CHECKOUT / "linstor-un", found.remotes)
    for folder in ("datastore/linstor_un", "tm/linstor_un"):
        shutil.copytree(CHECKOUT / folder, found.remotes / folder)
    return found


def own(cloud: Tree, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the package's own command."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, str(cloud.remotes / "linstor-un"), *arguments, "--root", str(cloud.folder)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=check)


def sources(cloud: Tree) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in cloud.remotes.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }


def test_only_the_configuration_is_installed_and_removed(cloud: Tree) -> None:
    files, stock = sources(cloud), cloud.oned_conf.read_bytes()
    said = own(cloud, "install", "--yes").stdout
    assert "There now: linstor_un of the package linstor-un." in said
    assert sources(cloud) == files
    assert b"linstor_un" in cloud.oned_conf.read_bytes()
    assert not (cloud.commands / "linstor-un").exists()
    compiled = {path.name.partition(".")[0] for path in cloud.remotes.rglob("*.pyc")}
    assert {"driver", "some"} < compiled
    assert "nothing to do" in own(cloud, "upgrade", "--yes").stdout
    said = own(cloud, "uninstall", "--yes").stdout
    assert "The files are of the package linstor-un: `apt-get remove linstor-un`" in said
    assert sources(cloud) == files
    assert cloud.oned_conf.read_bytes() == stock


def test_another_copy_and_another_interpreter_are_refused(cloud: Tree) -> None:
    before = cloud.content()
    result = cloud.run("install", "--yes")
    assert result.exit_code == 1
    assert "is of the package linstor-un: install a newer package with `apt-get install`" in result.output
    done = own(cloud, "install", "--yes", "--python", sys.executable, check=False)
    assert done.returncode == 1
    assert "are run by the distribution's Python: leave --python away" in done.stderr
    assert {name: content for name, content in cloud.content().items() if "__pycache__" not in name} == before


def test_the_packages_copy_installs_what_it_brings_along_elsewhere(cloud: Tree, tmp_path: Path) -> None:
    other = Tree(tmp_path / "other")
    command = [sys.executable, cloud.remotes / "linstor-un", "install", "--yes", "--root", other.folder]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(command, capture_output=True, env=environment, check=True)
    library = other.remotes / payload.LIBRARY
    assert (library / "vendored/some.py").exists()
    assert (library / "vendored/some-1.dist-info/METADATA").exists()
    assert not (library / "INSTALLER").exists()
    assert packaged.kind(tree.find(str(other.folder))) == ""
    probe = f"import sys; sys.path.insert(0, {str(library.parent)!r}); import linstor_un, some; print(some.ANSWER)"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout == "42\n"


def test_a_prepared_tree_is_looked_at_in_itself(tmp_path: Path) -> None:
    image = Tree(tmp_path / "image", packages=True)
    link = image.remotes / payload.LIBRARY
    link.parent.mkdir()
    link.symlink_to("/usr/share/linstor_un/lib/linstor_un")
    private = image.folder / "usr/share/linstor_un/lib/linstor_un"
    private.mkdir(parents=True)
    assert packaged.kind(tree.find(str(image.folder))) == ""
    (private / "INSTALLER").write_text("rpm\n")
    result = image.run("install", "--yes")
    assert result.exit_code == 1
    assert "install a newer package with `dnf install`" in result.output


def test_what_a_package_has_lost_the_package_brings_again(cloud: Tree) -> None:
    own(cloud, "install", "--yes")
    script = cloud.remotes / "tm/linstor_un/mv"
    script.unlink()
    assert "nothing to do" in own(cloud, "install", "--yes").stdout
    found = json.loads(own(cloud, "check", "--json", check=False).stdout)
    remedies = {row["code"]: row["remedy"] for row in found}
    assert remedies["scripts-missing"] == "install the package linstor-un again"
    assert "files-changed" not in remedies


def test_a_package_of_an_unknown_kind_is_still_a_package(cloud: Tree) -> None:
    (cloud.remotes / packaged.KIND_FILE).write_text("pkg\n")
    assert packaged.program(tree.find(str(cloud.folder))) == "the package manager"
