"""What the stand-in raises: a request that oned refuses, and an entry script that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linstor_sandbox.opennebula.scripts import Call


class Refused(ValueError):
    """oned refuses the request before any driver is asked."""


class ActionFailed(RuntimeError):
    """An entry script failed; the states are what oned would have set, so that recover_retry works."""

    def __init__(self, call: Call) -> None:
        super().__init__(
            f"{call.kind}/{call.verb} {' '.join(call.argv_shown)} exited with {call.exit_code}: "
            f"{call.stderr.strip() or 'it wrote nothing to stderr'}"
        )
        self.call = call
