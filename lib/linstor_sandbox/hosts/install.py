"""Lay out the hosts below the sandbox's root: directories, tool wrappers, the front-end's ssh."""

from __future__ import annotations

import py_compile
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

TOOLS = (
    "blkdiscard",
    "blkid",
    "blockdev",
    "cat",
    "cmp",
    "cp",
    "dd",
    "df",
    "dmsetup",
    "drbdadm",
    "drbdsetup",
    "e2fsck",
    "file",
    "find",
    "fsck",
    "head",
    "hexdump",
    "lsblk",
    "lvs",
    "md5sum",
    "mke2fs",
    "mkfs",
    "mkfs.ext2",
    "mkfs.ext3",
    "mkfs.ext4",
    "mkfs.xfs",
    "mkfs.vfat",
    "mkswap",
    "od",
    "qemu-img",
    "qemu-io",
    "readlink",
    "resize2fs",
    "sha1sum",
    "sha256sum",
    "sudo",
    "tail",
    "thin_delta",
    "tune2fs",
    "udevadm",
    "virsh",
    "wipefs",
    "xxd",
    "zfs",
    "zstream",
    "zstreamdump",
)
DIRECTORIES = (
    "bin",
    "steps",
    "dev/drbd/by-res",
    "dev/mapper",
    "etc",
    "root",
    "tmp",
    "var/lib/one/datastores",
    "var/tmp",
    "var/log",
    "run",
)
_SCRIPT = """#!{python} -IS
import sys
sys.path.insert(0, {library!r})
import {module}
{call}
"""


def _interpreter() -> str:
    """This Python without its virtual environment, which the tools do not need."""
    return str(getattr(sys, "_base_executable", "") or sys.executable)


def _write(path: Path, library: Path, module: str, call: str) -> None:
    path.write_text(_SCRIPT.format(python=_interpreter(), library=str(library), module=module, call=call))
    path.chmod(0o755)


def install(root: Path, nodes: Sequence[str], port: int) -> None:
    """Make root/bin/ssh and root/hosts/<node> with its bin, dev and var."""
    library = root / "bin" / ".lib"
    library.mkdir(parents=True, exist_ok=True)
    for module in ("shim.py", "tools.py", "dying.py"):
        shutil.copy(Path(__file__).parent / module, library / module)
        py_compile.compile(str(library / module), doraise=True)
    ssh = f"shim.ssh({str(root)!r}, {port})"
    _write(root / "bin" / "ssh", library, "shim", ssh)
    for node in nodes:
        host = root / "hosts" / node
        for directory in DIRECTORIES:
            (host / directory).mkdir(parents=True, exist_ok=True)
        for tool in TOOLS:
            call = f"tools.main({tool!r}, {node!r}, {str(root)!r}, {port})"
            _write(host / "bin" / tool, library, "tools", call)
        _let_pass(host / "bin", "dd", "[io]f=")
        _write(host / "bin" / "ssh", library, "shim", ssh)


def _let_pass(directory: Path, tool: str, pattern: str) -> None:
    """Keep what names no file from the wrapper of a tool, which takes as long to start as a MiB takes to copy."""
    (directory / tool).rename(directory / f".{tool}")
    wrapper = directory / tool
    wrapper.write_text(
        f'#!/bin/sh\nfor word; do case $word in {pattern}*) exec "${{0%/*}}/.{tool}" "$@" ;; esac; done\n'
        f'exec /bin/{tool} "$@"\n'
    )
    wrapper.chmod(0o755)


def uninstall(host: Path, tool: str) -> None:
    """Take a tool off a host, also where this machine has its own of that name."""
    (host / "bin" / tool).unlink(missing_ok=True)
    if shutil.which(tool, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"):
        (host / "bin" / tool).write_text(f'#!/bin/sh\necho "sh: 1: {tool}: not found" >&2\nexit 127\n')
        (host / "bin" / tool).chmod(0o755)


def install_watched(root: Path, directory: Path, node: str, command: str, port: int) -> None:
    """Put a command before another of its name: it asks the sandbox before it becomes the other."""
    call = f"shim.watched({command!r}, {node!r}, {str(directory)!r}, {port})"
    _write(directory / command, root / "bin" / ".lib", "shim", call)
