"""A machine to install packages on: a root folder of its own with this machine's programs, for as long as one command.

Everything is really there, and nothing of this machine changes: the folder is another / in a mount namespace, this
machine's files are below its /host, and its programs are links into that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

# Linked as they are: libraries, what finds them, and what the kernel gives.
_LINKED = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/libexec", "etc/alternatives", "etc/ld.so.cache")
_KERNELS = ("dev", "proc", "sys")
# This machine's files, which nothing there can change; then a command.
_MOUNTED = 'mount --rbind / "$0/host" && mount -o remount,bind,ro "$0/host" && exec "$@"'
_PROGRAMS = ("usr/bin", "bin", "usr/sbin", "sbin")


@cache
def _namespaces() -> list[str]:
    """Return what gives a command namespaces of its own, without a network; empty where that is not to be had."""
    with tempfile.TemporaryDirectory() as root:
        Path(root, "host").mkdir()
        for options in (["-mn"], ["-rmn"]):
            command = ["unshare", *options, "--propagation", "private"]
            try:
                words = [*command, "sh", "-c", _MOUNTED, root, "true"]
                if subprocess.run(words, capture_output=True, check=False).returncode == 0:
                    return command
            except OSError:
                break
    return []


def reason_for_none() -> str:
    """Return why there is no such machine here, empty where there is."""
    return "" if _namespaces() else "this user may not make namespaces: unshare fails"


class Machine:
    """The machine in `root`, with neither OpenNebula nor packages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("host", "etc", "tmp", "usr/share", "usr/bin", "usr/local/bin", "var/lib/rpm", *_DPKG):
            (root / folder).mkdir(parents=True)
        for name in (*_LINKED, *_KERNELS):
            if Path("/", name).exists():
                (root / name).symlink_to(f"/host/{name}")
        self._link_python()
        (root / "bin").symlink_to("usr/bin")
        (root / "sbin").symlink_to("usr/bin")
        (root / "usr/sbin").symlink_to("bin")
        for folder in _PROGRAMS:
            for program in Path("/", folder).glob("*"):
                link = root / "usr/bin" / program.name
                if not os.path.lexists(link):
                    link.symlink_to(f"/host/{folder}/{program.name}")
        python = root / "usr/bin/python3"
        python.unlink(missing_ok=True)
        # The environment's own is a link to somewhere on this machine.
        packages, interpreter = sysconfig.get_path("purelib"), os.path.realpath(sys.executable)
        python.write_text(f'#!/bin/sh\nPYTHONPATH="/host{packages}" exec "{interpreter}" "$@"\n')
        python.chmod(0o755)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        (root / "var/lib/dpkg/status").write_text("".join(_installed(name) for name in _NEEDED))

    def _link_python(self) -> None:
        """Have the interpreter of this environment where it is on this machine: it may look for its library there."""
        prefix = Path(sys.base_prefix)
        for folder in (prefix / "lib", prefix / "lib64", prefix / "bin" / Path(os.path.realpath(sys.executable)).name):
            place = self.at(str(folder))
            if folder.exists() and not os.path.lexists(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(f"/host{folder}")

    def at(self, path: str) -> Path:
        """Return where a path of the machine is."""
        return self.root / path.lstrip("/")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine."""
        return self._run("chroot", str(self.root), *command)

    def dpkg(self, *arguments: str) -> str:
        """Let dpkg work on the machine; return what it and the packages say."""
        done = self._run("dpkg", f"--root={self.root}", "--force-confold", "--no-debsig", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def rpm(self, *arguments: str) -> str:
        """Let rpm work on the machine; return what it and the packages say."""
        done = self._run("rpm", "--root", str(self.root), "--dbpath", "/var/lib/rpm", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        words = [*_namespaces(), "sh", "-c", _MOUNTED, str(self.root), *command]
        path = os.pathsep.join(["/usr/bin", "/usr/sbin", "/bin", "/sbin"])
        environment = {"PATH": path, "LANG": "C.UTF-8", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
        return subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=120)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.root)


_DPKG = ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers")
# What a distribution has: here it is the Python of this environment.
_NEEDED = ("python3", "python3-lxml", "python3-click", "openssh-client")


def _installed(name: str) -> str:
    return (
        f"Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: 9\nMaintainer: x <x@x.invalid>\n"
        f"Description: {name}\n\n"
    )
