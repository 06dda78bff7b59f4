"""Wheel, sdist, deb and rpm: what is in them, and that the same checkout makes the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
from importlib import util
from pathlib import Path
from zipfile import ZipFile

import pytest

from development.packaging import source
from development.packaging.__main__ import KINDS, main
from linstor_un import __version__
from tests.conftest import CHECKOUT
from tests.development.packaging.conftest import Built, answer, made, need_program
from tests.linstor_un.cli.trees import Tree

REMOTES = "/var/lib/one/remotes"
PRIVATE = "/usr/share/linstor_un"
VENDORED = f"{PRIVATE}/lib/linstor_un/vendored/"


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkout_makes_the_same_bytes_every_time(kind: str, built: Built, tmp_path: Path) -> None:
    first = built(kind)
    before = os.umask(0o077)
    try:
        second = made(kind, tmp_path / "again", tmp_path / "work")
    finally:
        os.umask(before)
    assert {path.name: path.read_bytes() for path in first} == {path.name: path.read_bytes() for path in second}


def installed_by_a_checkout(folder: Path) -> dict[str, tuple[int, str]]:
    """Return rights and digest of what `linstor-un install` puts, as the distribution's Python would run it."""
    tree = Tree(folder, packages=True)
    before = set(tree.content())
    tree.done("install", "--yes", "--python", sys.executable)
    own, theirs = f"#!{sys.executable}\n".encode(), b"#!/usr/bin/python3\n"
    return {
        f"/{name}": (stat.S_IMODE(mode), hashlib.sha256(data.replace(own, theirs, 1)).hexdigest())
        for name, (mode, data) in tree.content().items()
        if stat.S_ISREG(mode) and name not in before and "__pycache__" not in name and "one/linstor_un/" not in name
    }


def without_what_only_packages_have(found: dict[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """Return the files by the path where they are for oned: the library is behind a link."""
    marker, library = f"{PRIVATE}/lib/linstor_un/INSTALLER", f"{PRIVATE}/lib/"
    return {
        path.replace(library, f"{REMOTES}/lib/"): rest
        for path, rest in found.items()
        if path.startswith((REMOTES, library)) and not path.startswith(VENDORED) and path != marker
    }


def test_the_deb_has_what_install_puts_and_python_linstor(built: Built, tmp_path: Path) -> None:
    path = built("deb")[0]
    packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = archive.getmembers()
        found = {
            member.name.lstrip("."): (member.mode, hashlib.sha256(archive.extractfile(member).read()).hexdigest())  # type: ignore[union-attr]
            for member in members
            if member.isfile()
        }
    assert without_what_only_packages_have(found) == installed_by_a_checkout(tmp_path / "tree")
    assert {(member.uname, member.gname, member.uid, member.gid) for member in members} == {("root", "root", 0, 0)}
    assert f"{VENDORED}linstor/linstorapi.py" in found
    assert [name for name in found if name.endswith(".pyc")] == []
    depends = answer("dpkg-deb", "-f", path, "Depends", "Architecture", "Version")
    assert "python3-lxml" in depends and "python3-click" in depends and "Architecture: all" in depends
    assert f"Version: {source.system_version()}-1" in depends


def test_the_rpm_has_what_install_puts_and_python_linstor(built: Built, tmp_path: Path) -> None:
    need_program("rpm")
    path = built("rpm")[0]
    query = "[%{FILENAMES}|%{FILEMODES:octal}|%{FILEDIGESTS}|%{FILEUSERNAME}|%{FILEGROUPNAME}|%{FILEFLAGS:fflags}\n]"
    rows = [line.split("|") for line in answer("rpm", "-qp", "--qf", query, path).splitlines()]
    found = {name: (int(mode, 8) & 0o7777, digest) for name, mode, digest, *_ in rows if digest}
    assert without_what_only_packages_have(found) == installed_by_a_checkout(tmp_path / "tree")
    assert {tuple(row[3:5]) for row in rows} == {("root", "root")}
    assert f"{VENDORED}linstor/linstorapi.py" in found
    # The folders that OpenNebula's packages own are not ours.
    folders = {name for name, mode, *_ in rows if stat.S_ISDIR(int(mode, 8))}
    assert f"{REMOTES}/tm/linstor_un" in folders
    assert folders.isdisjoint({"/var/lib/one", REMOTES, f"{REMOTES}/tm", f"{REMOTES}/vmm/kvm", "/usr/bin"})
    assert [name for name, *_, flags in rows if "c" in flags] == [f"{REMOTES}/etc/datastore/linstor_un/linstor_un.conf"]
    needed = answer("rpm", "-qp", "--requires", path)
    assert "python3-lxml" in needed and "python3-click" in needed and "/usr/bin/python3" in needed


@pytest.mark.parametrize(
    ("version", "expected"), [("3.0.0", "3.0.0"), ("3.0.0.dev0", "3.0.0~dev0"), ("3.1.0rc2", "3.1.0~rc2")]
)
def test_a_version_is_older_than_the_release_that_it_leads_to(version: str, expected: str) -> None:
    assert source.system_version(version) == expected


def test_the_sdist_has_all_that_git_has_and_installs(built: Built, tmp_path: Path) -> None:
    archive = next(path for path in built("python") if path.name.endswith(".tar.gz"))
    with tarfile.open(archive) as sources:
        names = {member.name.partition("/")[2] for member in sources.getmembers() if member.isfile()}
        if hasattr(tarfile, "data_filter"):
            sources.extractall(tmp_path, filter="data")
        else:
            sources.extractall(tmp_path)
    assert set(source.files()) - names == {".gitignore"}
    unpacked = next(tmp_path.iterdir())
    tree = Tree(tmp_path / "one")
    answer(sys.executable, unpacked / "linstor-un", "install", "--yes", "--root", tree.folder)
    assert (tree.remotes / "tm/linstor_un/mv").exists() and tree.configuration.exists()


def clean_environment(folder: Path, wheel: Path) -> Path:
    """Return the bin folder of a virtual environment with the wheel; what it needs is this environment's."""
    if util.find_spec("pip") is None:
        pytest.skip("this environment has no pip")
    answer(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    packages = sysconfig.get_path("purelib")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": packages}
    command = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", wheel]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    own = answer(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(own, "needed.pth").write_text(f"{packages}\n")
    return folder / "bin"


def test_a_wheel_in_a_clean_environment_installs_the_driver(built: Built, tmp_path: Path) -> None:
    wheel = next(path for path in built("python") if path.suffix == ".whl")
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    assert not [name for name in names if name.startswith(("linstor_sandbox", "development", "tests"))]
    assert f"\nVersion: {__version__}\n" in metadata
    programs = clean_environment(tmp_path / "venv", wheel)
    tree = Tree(tmp_path / "one")
    before = tree.content()
    answer(programs / "linstor-un", "install", "--yes", "--root", tree.folder)
    expected = {path.name for path in (CHECKOUT / "tm/linstor_un").iterdir()}
    assert {path.name for path in (tree.remotes / "tm/linstor_un").iterdir()} == expected
    assert tree.configuration.read_bytes() == (CHECKOUT / "etc/linstor_un.conf").read_bytes()
    mv = tree.remotes / "tm/linstor_un/mv"
    assert mv.read_text().startswith(f"#!{programs}/python")
    assert "The action takes 4 arguments" in subprocess.run([mv, "x"], capture_output=True, text=True).stderr
    answer(programs / "linstor-un", "uninstall", "--yes", "--root", tree.folder)
    assert tree.content() == before


def test_the_bill_of_materials_names_what_is_contained(built: Built) -> None:
    bill = json.loads(built("sbom")[0].read_text())
    vendored = source.vendored()
    own = bill["metadata"]["component"]
    assert (own["name"], own["version"]) == ("linstor_un", __version__)
    by_name = {component["name"]: component for component in bill["components"]}
    assert by_name["python-linstor"]["version"] == vendored.version
    assert by_name["python-linstor"]["hashes"] == [{"alg": "SHA-256", "content": vendored.sha256}]
    assert by_name.keys() == {"python-linstor", "python3", "lxml", "click"}
    assert all(component["licenses"] for component in [own, *bill["components"]])
    stated = vendored.files[f"python_linstor-{vendored.version}.dist-info/METADATA"].decode()
    assert f"License: {by_name['python-linstor']['licenses'][0]['license']['id']}\n" in stated


@pytest.mark.parametrize("arguments", [["floppy"], ["deb", "floppy"]])
def test_an_unknown_kind_is_refused_before_anything_is_built(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "there is no package of kind floppy" in capsys.readouterr().err


def test_a_missing_builder_is_said_and_the_others_are_built(
    built: Built, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert built("sbom")
    monkeypatch.setattr("development.packaging.__main__._DESTINATION", tmp_path / "packages")
    monkeypatch.setattr("development.packaging.__main__._WORK", tmp_path / "work")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(programs))
    assert main(["rpm", "sbom"]) == 1
    told = capsys.readouterr()
    assert "no rpm: this is neither Debian nor Ubuntu: install the programs of Debian's packages rpm" in told.err
    assert told.out.strip().endswith(".cdx.json")
