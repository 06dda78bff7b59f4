"""One OpenNebula: everything the stand-in can do."""

from __future__ import annotations

from types import TracebackType
from typing import Optional

from linstor_sandbox.opennebula.requests import Requests


class Cloud(Requests):
    """oned, its drivers and its users: `with Cloud(remotes, var, environment=sandbox.environment()) as cloud: ...`."""

    def __enter__(self) -> Cloud:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()
