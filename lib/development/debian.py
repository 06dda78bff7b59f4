"""Programs from Debian's or Ubuntu's packages: installed by root, unpacked into the checkout by anybody else."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from development.errors import NotPossible

# What is looked for: any of the programs, and the package that has the first.
PROGRAMS = (
    (("qemu-img",), "qemu-utils"),
    (("genisoimage", "mkisofs", "xorriso"), "genisoimage"),
    (("mkfs.ext4",), "e2fsprogs"),
    (("debugfs",), "e2fsprogs"),
    (("mkfs.xfs",), "xfsprogs"),
    (("mkswap",), "util-linux"),
    (("gzip",), "gzip"),
    (("bzip2",), "bzip2"),
    (("xz",), "xz-utils"),
    (("zstd",), "zstd"),
    (("openssl",), "openssl"),
)

# What builds packages: needed for nothing else.
BUILDERS = {"deb": ((("dpkg-deb",), "dpkg"),), "rpm": ((("rpmbuild",), "rpm"),)}

Programs = Sequence[tuple[tuple[str, ...], str]]
Say = Callable[[str], None]


def missing(path: str, programs: Programs = PROGRAMS) -> list[str]:
    """The packages of the programs that are not on the path."""
    packages = [package for names, package in programs if not any(shutil.which(name, path=path) for name in names)]
    return list(dict.fromkeys(packages))


def provide(programs: Programs, tools: Path, say: Say) -> None:
    """Install what is missing of programs that only one command needs; NotPossible says what to do by hand."""
    path = os.environ.get("PATH", os.defpath)
    if packages := missing(path, programs):
        install(packages, False, tools, say)
    if packages := missing(path, programs):
        raise NotPossible(f"these are missing after they were installed: {', '.join(packages)}")


def install(packages: Sequence[str], needs_pip: bool, tools: Path, say: Say) -> None:
    """Install packages and, if asked, what a virtual environment needs for pip; NotPossible says what to do by hand."""
    if shutil.which("apt-get") is None:
        wanted = [*packages, *(["python3-venv"] if needs_pip else [])]
        raise NotPossible(
            f"this is neither Debian nor Ubuntu: install the programs of Debian's packages {', '.join(wanted)} yourself"
        )
    prefix = _as_root()
    if prefix is not None:
        _install_as_root(prefix, [*packages, *([_venv_package()] if needs_pip else [])], say)
    else:
        _unpack_as_user(packages, needs_pip, tools, say)


def _as_root() -> list[str] | None:
    """What goes before a command to run it as root; None when this user cannot."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and _succeeds(["sudo", "-n", "true"]):
        return ["sudo", "-n"]
    return None


def _venv_package() -> str:
    """The package with ensurepip for the Python that runs this."""
    return f"python3.{sys.version_info[1]}-venv"


def _install_as_root(prefix: Sequence[str], packages: Sequence[str], say: Say) -> None:
    say(f"system packages: {', '.join(packages)}")
    environment = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive"]
    command = [*environment, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    if _succeeds(command):
        return
    # The package lists of a new machine are empty or old.
    _succeeds([*environment, "apt-get", "update", "-qq"])
    _must(command, packages)


def _unpack_as_user(packages: Sequence[str], needs_pip: bool, tools: Path, say: Say) -> None:
    """Download packages with what they need and unpack them below `tools`; nothing outside of it is written."""
    folder, root = tools / "apt", tools / "root"
    options = _private_apt(folder)
    # A source that cannot be reached need not be the one that has the packages.
    _succeeds(["apt-get", *options, "update", "-qq"])
    wanted = [*packages, *(_wheel_packages(options) if needs_pip else [])]
    say(f"programs for this checkout only, as this user may not install any: {', '.join(wanted)}")
    download = ["install", "-y", "-qq", "--download-only", "--no-install-recommends"]
    _must(["apt-get", *options, *download, *wanted], wanted)
    root.mkdir(exist_ok=True)
    for archive in sorted((folder / "cache" / "archives").glob("*.deb")):
        _must(["dpkg-deb", "-x", str(archive), str(root)], [archive.name])
    shutil.rmtree(folder)
    _wrap_programs(root, tools / "bin")


def _wheel_packages(options: Sequence[str]) -> list[str]:
    """Name the packages with the wheel of pip; what Debian 11 had instead does not run without other packages."""
    names = ["python3-pip-whl", "python3-setuptools-whl"]
    if not _succeeds(["apt-cache", *options, "show", *names]):
        raise NotPossible(
            "this Python has no pip for virtual environments, and apt knows no package python3-pip-whl: "
            "have root install python3-venv, then run ./dev again"
        )
    return names


def _private_apt(folder: Path) -> list[str]:
    """Options that give apt folders of its own; it sees the system's sources and what is installed."""
    for name in ("state/lists/partial", "cache/archives/partial", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State": folder / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": folder / "cache",
        "Dir::Log": folder / "log",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "",
    }
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def _wrap_programs(root: Path, wrappers: Path) -> None:
    """Write one small script for each unpacked program, which finds the unpacked libraries and settings."""
    wrappers.mkdir(exist_ok=True)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in _settings(root).items()]
    libraries = ":".join(str(folder) for folder in _library_folders(root))
    lines.append(f"export LD_LIBRARY_PATH={shlex.quote(libraries)}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}")
    for folder in ("bin", "sbin", "usr/bin", "usr/sbin"):
        for program in sorted((root / folder).glob("*")):
            text = "\n".join(["#!/bin/sh", *lines, f'exec {shlex.quote(str(program))} "$@"', ""])
            (wrappers / program.name).write_text(text, encoding="utf-8")
            (wrappers / program.name).chmod(0o755)


def _library_folders(root: Path) -> list[Path]:
    return [folder for pattern in ("lib/*-linux-*", "usr/lib/*-linux-*") for folder in sorted(root.glob(pattern))]


def _settings(root: Path) -> dict[str, str]:
    """Where unpacked programs find what they look for below /etc and /usr, as far as it was unpacked."""
    candidates = {
        "MKE2FS_CONFIG": root / "etc" / "mke2fs.conf",
        "OPENSSL_CONF": root / "etc" / "ssl" / "openssl.cnf",
        "RPM_CONFIGDIR": root / "usr" / "lib" / "rpm",
        "MAGIC": root / "usr" / "lib" / "file" / "magic.mgc",
    }
    return {name: str(path) for name, path in candidates.items() if path.exists()}


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _must(command: Sequence[str], packages: Sequence[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        told = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise NotPossible(
            f"cannot get {', '.join(packages)}: make Debian's packages reachable for apt, or have root install them "
            f"(apt-get install {' '.join(packages)}), then run ./dev again\n{told}"
        )
