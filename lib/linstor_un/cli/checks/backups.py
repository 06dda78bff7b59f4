"""Backups by increments: whether hosts and pools can make them, where a VM asks for such."""

from __future__ import annotations

from collections.abc import Iterator

from linstor_un.cli.checks.facts import Facts, ForIncrements
from linstor_un.cli.checks.finding import Finding, error, of_failure, warning

_PACKAGES = {
    "qemu-io": "qemu-utils (EL: qemu-img)",
    "thin_delta": "thin-provisioning-tools (EL: device-mapper-persistent-data)",
    "zstream": "zfsutils-linux (EL: zfs)",
}


def increments(facts: Facts) -> Iterator[Finding]:
    """Can it be asked what has changed since the last backup?"""
    for host in facts.increments:
        if host.failure:
            yield of_failure("host-ssh", host.failure)
        for lack in host.lacks:
            kind, _, name = lack.partition(" ")
            yield _program(host, name) if kind == "program" else _right(host, name)


def _program(host: ForIncrements, name: str) -> Finding:
    what = f"{name} is missing on {host.name}, and a VM is backed up by increments"
    remedy = f"install {_PACKAGES[name]} there"
    # What has changed is written by it, however that became known.
    if host.may_compare and name != "qemu-io":
        return warning("backup-program", f"{what}: whole disks are compared instead", remedy)
    return error("backup-program", what, remedy)


def _right(host: ForIncrements, name: str) -> Finding:
    what = f"The driver's user may not run `sudo -n {name}` on {host.name}, and a VM is backed up by increments"
    remedy = "give it the right as docs/backup.md says"
    if host.may_compare:
        return warning("backup-right", f"{what}: whole disks are compared instead", remedy)
    return error("backup-right", what, remedy)


CHECKS = (increments,)
