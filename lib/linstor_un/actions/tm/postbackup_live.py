"""tm/postbackup_live: remove what a backup of a running VM needed for as long as its files were fetched.

Arguments and stdin: see actions/backup.py.
"""

from __future__ import annotations

from linstor_un.actions.tm import postbackup
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Do what is done where the VM does not run."""
    postbackup.run(call)
