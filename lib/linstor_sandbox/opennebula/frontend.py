"""The front-end is this machine: what a driver's shells do below /var/lib/one there happens in a folder of its own."""

from __future__ import annotations

from pathlib import Path

# A front-end that is a host of the sandbox too does everything there.
_SHELL = """#!/bin/bash
if [ "$1" = -c ] && [ -z "$IN_FRONTEND_SHELL" ]; then
    export IN_FRONTEND_SHELL=1
    [ -z "{host}" ] || exec ssh "{host}" "$2"
    set -- -c "${{2//\\/var\\/lib\\/one/{folder}}}" "${{@:3}}"
fi
exec /bin/sh "$@"
"""


def install_shell(folder: Path, host: str = "") -> Path:
    """Make folder/frontend, and a directory whose `sh` takes it for /var/lib/one; that directory is for the PATH."""
    shell = folder / "bin" / "sh"
    shell.parent.mkdir()
    (folder / "frontend").mkdir()
    escaped = str(folder / "frontend").replace("/", "\\/")
    shell.write_text(_SHELL.format(host=host, folder=escaped), encoding="utf-8")
    shell.chmod(0o755)
    return shell.parent
