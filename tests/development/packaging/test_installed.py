"""deb and rpm on a machine: installed before and after OpenNebula, upgraded, and removed to the byte."""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from development.packaging import deb, rpm, source
from linstor_un.cli.installation import oned_conf
from tests.conftest import CHECKOUT
from tests.development.packaging.conftest import Built, answer, need, need_program
from tests.development.packaging.machine import Machine, reason_for_none
from tests.linstor_un.cli.trees import Tree

pytestmark = pytest.mark.skipif(bool(reason_for_none()), reason=reason_for_none())

REMOTES = "/var/lib/one/remotes"
LIBRARY = "/usr/share/linstor_un/lib/linstor_un"
CONFIGURATION = f"{REMOTES}/etc/datastore/linstor_un/linstor_un.conf"
NEXT = "99.0.0"
_CONTROL = "Package: opennebula\nVersion: 7.4.0\nArchitecture: all\nMaintainer: x <x@x.invalid>\nDescription: x\n"
_SPEC = """\
Name: opennebula
Version: 7.4.0
Release: 1
Summary: x
License: x
BuildArch: noarch
%description
x
%install
cp -a %{stage}/. %{buildroot}/
%files
%config /etc/one/oned.conf
/etc/one/vmm_exec/vmm_execrc
%dir /var/lib/one/remotes
/var/lib/one/remotes/VERSION
/var/lib/one/remotes/*/*
"""


# What the packages share is tried with one.
ONE_KIND = pytest.mark.parametrize("packages", ["deb"], indirect=True)


class Packages:
    """The packages of one kind, and the program that puts them on a machine."""

    def __init__(self, kind: str, path: Path, machine: Machine, work: Path) -> None:
        self.kind = kind
        self.path = path
        self.machine = machine
        self.work = work

    def install(self, path: Path) -> str:
        """Install a package, or upgrade to it."""
        return self.machine.dpkg("-i", str(path)) if self.kind == "deb" else self._rpm("-U", "--nodeps", str(path))

    def remove(self) -> str:
        """Remove the driver's package, and what it keeps of its configuration."""
        return self.machine.dpkg("-P", "linstor-un") if self.kind == "deb" else self._rpm("-e", "linstor-un")

    def _rpm(self, *arguments: str) -> str:
        return self.machine.rpm(*arguments)

    def next(self) -> Path:
        """Return the package of a later version."""
        builder = deb if self.kind == "deb" else rpm
        return builder.build(self.work, self.work / "next", source.vendored(), source.epoch(), NEXT)

    def opennebula(self) -> Path:
        """Return a package with the files of OpenNebula that the driver's looks at."""
        stage = self.work / "opennebula"
        Tree(stage, packages=True)
        shutil.rmtree(stage / "usr")
        if self.kind == "deb":
            (stage / "DEBIAN").mkdir()
            (stage / "DEBIAN/control").write_text(_CONTROL)
            (stage / "DEBIAN/conffiles").write_text("/etc/one/oned.conf\n")
            answer("dpkg-deb", "--root-owner-group", "--build", stage, self.work / "opennebula.deb")
            return self.work / "opennebula.deb"
        (self.work / "opennebula.spec").write_text(_SPEC)
        definitions = (f"stage {stage}", f"_topdir {self.work}", f"_rpmdir {self.work}", "__os_install_post %{nil}")
        words = [word for definition in definitions for word in ("--define", definition)]
        answer("rpmbuild", "-bb", "--quiet", *words, self.work / "opennebula.spec")
        return next((self.work / "noarch").glob("opennebula-*.rpm"))


@pytest.fixture(params=["deb", "rpm"])
def packages(request: pytest.FixtureRequest, built: Built, tmp_path: Path) -> Iterator[Packages]:
    """Return the packages and a machine without any."""
    kind = request.param
    need_program("dpkg" if kind == "deb" else "rpm")
    path = built(kind)[0]
    machine = Machine(tmp_path / "machine")
    yield Packages(kind, path, machine, tmp_path)
    machine.remove()


def bare_opennebula(machine: Machine) -> None:
    """Put OpenNebula's files on the machine, as nobody's package."""
    tree = Tree(machine.root / "tree", packages=True)
    shutil.copytree(
        tree.folder, machine.root, dirs_exist_ok=True, symlinks=True, ignore=lambda _, names: {"usr"} & {*names}
    )
    shutil.rmtree(tree.folder)


def driver_files(machine: Machine) -> set[str]:
    """Return all that the machine has of the driver."""
    folders = ("etc", "usr/bin", "usr/share", "var/lib/one")
    found = [path for folder in folders for path in (machine.root / folder).rglob("*") if "linstor" in str(path)]
    return {str(path.relative_to(machine.root)) for path in found if "linstor" in str(path.relative_to(machine.root))}


def modules(machine: Machine) -> list[Path]:
    return list(machine.at(LIBRARY).rglob("*.py"))


def is_compiled(machine: Machine) -> bool:
    """Tell whether every module has its bytecode, and nothing else has."""
    found = set(machine.at(LIBRARY).rglob("*.pyc"))
    return len(found) == len(modules(machine)) and {path.parent.parent for path in found} == {
        path.parent for path in modules(machine)
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_opennebula_comes_later(packages: Packages) -> None:
    machine = packages.machine
    assert "once OpenNebula is installed, `linstor-un install` edits it" in packages.install(packages.path)
    assert is_compiled(machine)
    checked = machine.run("linstor-un", "check")
    assert checked.returncode == 1 and "install OpenNebula first" in checked.stderr
    said = packages.install(packages.opennebula())
    assert "oned.conf has its lines" in said
    text = machine.at("/etc/one/oned.conf").read_text()
    stock = (packages.work / "opennebula/etc/one/oned.conf").read_text()
    assert text == oned_conf.edited(stock, oned_conf.needed(stock))
    checked = machine.run("linstor-un", "check")
    # What this machine lacks is said, and nothing of what the package has brought.
    assert checked.returncode == 3
    assert "oned-unreachable" in checked.stdout
    wrong = ("scripts-", "package-", "bytecode-", "files-", "not-installed", "interpreter-", "configuration-")
    assert [name for name in wrong if f"#{name}" in checked.stdout] == [], checked.stdout


def test_installed_upgraded_and_removed_where_opennebula_is(packages: Packages) -> None:
    machine = packages.machine
    bare_opennebula(machine)
    before = {name: digest(machine.at(name)) for name in ("/etc/one/oned.conf", "/etc/one/vmm_exec/vmm_execrc")}
    assert "systemctl restart opennebula" in packages.install(packages.path)
    edited = {name: digest(machine.at(name)) for name in before}
    assert all(edited[name] != before[name] for name in before)
    # The driver runs, with python-linstor of its own.
    done = machine.run(f"{REMOTES}/tm/linstor_un/mv", "x")
    assert "The action takes 4 arguments" in done.stderr
    probe = f"import sys; sys.path.insert(0, '{REMOTES}/lib'); import linstor_un, linstor; print(linstor.__file__)"
    assert machine.run("python3", "-c", probe).stdout.startswith(f"{REMOTES}/lib/linstor_un/vendored/")
    assert machine.at(f"{REMOTES}/lib/linstor_un").readlink() == Path(LIBRARY)
    assert "nothing to do" in machine.run("linstor-un", "install", "--yes").stdout

    # An upgrade keeps what the operator has changed, takes what is obsolete away, and says nothing of oned.conf.
    machine.at(CONFIGURATION).write_text("STAGING_DIR=/var/big\n")
    gone = machine.at(f"{LIBRARY}/cli/__pycache__/gone.cpython-39.pyc")
    gone.touch()
    assert "restart" not in packages.install(packages.next())
    assert machine.at(CONFIGURATION).read_text() == "STAGING_DIR=/var/big\n"
    assert not gone.exists() and is_compiled(machine)
    assert {name: digest(machine.at(name)) for name in before} == edited

    assert "systemctl restart opennebula" in packages.remove()
    assert {name: digest(machine.at(name)) for name in before} == before
    left = driver_files(machine)
    # rpm keeps a configuration that was edited.
    assert all(f"/{name}".startswith(str(Path(CONFIGURATION).parent)) for name in left), left


@ONE_KIND
def test_a_checkout_leaves_a_packages_files_alone(packages: Packages) -> None:
    machine = packages.machine
    bare_opennebula(machine)
    packages.install(packages.path)
    program = "apt-get"
    for verb in ("install", "upgrade"):
        done = machine.run("python3", f"/host{CHECKOUT}/linstor-un", verb, "--yes")
        assert done.returncode == 1
        assert f"is of the package linstor-un: install a newer package with `{program} install`" in done.stderr
    done = machine.run("linstor-un", "install", "--python", "/usr/bin/python3")
    assert "are run by the distribution's Python" in done.stderr
    # By hand the lines go and come, and the files stay.
    files = sorted(machine.at(LIBRARY).rglob("*"))
    done = machine.run("linstor-un", "uninstall", "--yes")
    assert f"`{program} remove linstor-un`" in done.stdout
    assert "linstor_un" not in machine.at("/etc/one/oned.conf").read_text()
    assert sorted(machine.at(LIBRARY).rglob("*")) == files
    assert machine.run("linstor-un", "install", "--yes").returncode == 0
    assert "linstor_un" in machine.at("/etc/one/oned.conf").read_text()


def test_the_bash_driver_and_a_link_to_a_checkout_make_room(packages: Packages, tmp_path: Path) -> None:
    machine = packages.machine
    bare_opennebula(machine)
    bash = machine.at(f"{REMOTES}/datastore/linstor_un")
    bash.mkdir()
    for name in ("cp", "linstor_utils.sh"):
        (bash / name).write_text("#!/bin/bash\n# of 2019\n")
        (bash / name).chmod(0o755)
    elsewhere = machine.at("/tmp/checkout")
    elsewhere.mkdir()
    (elsewhere / "mv").write_text("of a checkout\n")
    machine.at(f"{REMOTES}/tm/linstor_un").symlink_to("/tmp/checkout")
    packages.install(packages.path)
    kept = machine.at("/var/lib/one/linstor_un-before")
    assert (kept / "datastore/linstor_un/linstor_utils.sh").read_text().endswith("of 2019\n")
    assert (kept / "tm/linstor_un/mv").read_text() == "of a checkout\n"
    assert not (bash / "linstor_utils.sh").exists()
    assert "python3" in (bash / "cp").read_text()
    assert not machine.at(f"{REMOTES}/tm/linstor_un").is_symlink()
    assert (elsewhere / "mv").read_text() == "of a checkout\n"


@ONE_KIND
def test_a_driver_that_a_checkout_has_installed_becomes_the_packages(packages: Packages) -> None:
    machine = packages.machine
    bare_opennebula(machine)
    stock = machine.at("/etc/one/oned.conf").read_bytes()
    assert machine.run("python3", f"/host{CHECKOUT}/linstor-un", "install", "--yes").returncode == 0
    assert machine.at("/usr/local/bin/linstor-un").is_symlink()
    packages.install(packages.path)
    assert is_compiled(machine)
    assert "files-changed" not in machine.run("linstor-un", "check").stdout
    packages.remove()
    assert machine.at("/etc/one/oned.conf").read_bytes() == stock
    assert {name for name in driver_files(machine) if "linstor_un-before" not in name} == set()


@ONE_KIND
def test_a_configuration_that_cannot_be_read_does_not_stop_the_package(packages: Packages) -> None:
    machine = packages.machine
    bare_opennebula(machine)
    machine.at("/etc/one/oned.conf").write_text("TM_MAD = [\n")
    said = packages.install(packages.path)
    assert "OpenNebula is not configured for it" in said and "oned.conf" in said
    assert machine.at("/etc/one/oned.conf").read_text() == "TM_MAD = [\n"
    packages.remove()


@pytest.mark.parametrize("kind", ["deb"])
def test_another_python_of_the_distribution_gets_its_bytecode(kind: str, built: Built, tmp_path: Path) -> None:
    need(kind)
    machine = Machine(tmp_path / "machine")
    machine.dpkg("-i", str(built(kind)[0]))
    for path in machine.at(LIBRARY).rglob("*.pyc"):
        path.rename(path.with_name(path.name.replace(".cpython-", ".other-")))
    hook = "/usr/share/python3/runtime.d/linstor-un.rtupdate"
    assert stat.S_IMODE(machine.at(hook).stat().st_mode) == 0o755
    done = machine.run(hook, "rtupdate", "python3.11", "python3.13")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert is_compiled(machine)
    machine.remove()


def test_the_words_of_the_maintenance_script() -> None:
    done = subprocess.run([CHECKOUT / "packages/maintain", "dance"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "configure | deconfigure | compile" in done.stderr
