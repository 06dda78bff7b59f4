"""Hosts of a sandbox, for tests of what is done on hosts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from linstor_sandbox import Sandbox
from linstor_un.hosts.runner import Host
from linstor_un.settings import Settings

DATASTORES = "/var/lib/one/datastores"


def host(sandbox: Sandbox, name: str, device_timeout_seconds: int = 1, in_use_timeout_seconds: int = 5) -> Host:
    """Return a host that is reached over the sandbox's ssh."""
    settings = Settings(
        ssh=(str(sandbox.root / "bin" / "ssh"),),
        device_timeout_seconds=device_timeout_seconds,
        in_use_timeout_seconds=in_use_timeout_seconds,
    )
    return Host(name, settings)


def below(sandbox: Sandbox, name: str, path: str) -> Path:
    """Return where a path of a host is on this machine."""
    return sandbox.host(name) / path.lstrip("/")


def replace_tool(sandbox: Sandbox, name: str, tool: str, script: str) -> Path:
    """Put a program of ours in the place of a host's; unlink it to have the host's own again."""
    path = sandbox.host(name) / "bin" / tool
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def say_size(monkeypatch: pytest.MonkeyPatch, folder: Path, size_bytes: int) -> None:
    """Let the front-end take any file for a device of this size, by a lsblk of its own in a new folder."""
    folder.mkdir(exist_ok=True)
    (folder / "lsblk").write_text(f"#!/bin/sh\necho {size_bytes}\n")
    (folder / "lsblk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
