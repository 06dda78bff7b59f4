"""Changing a volume as an action would: as the driver's user, while nobody else may, and giving way to a delete."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, Optional

import click

from linstor_un import locks
from linstor_un.driver import configuration_path
from linstor_un.errors import Busy
from linstor_un.settings import Settings, lock_directory
from linstor_un.undo import Stopped

_WAIT_SECONDS = 5.0


def check_user(settings: Settings, words: str) -> None:
    """Refuse to be root where the driver is not: root's locks hold no action, or are ones that it may not open."""
    user = os.stat(settings.lock_directory or os.path.dirname(configuration_path())).st_uid
    if os.geteuid() == 0 and user != 0:
        name = pwd.getpwuid(user).pw_name
        raise click.UsageError(f"Change volumes as the user of the driver: sudo -u {name} linstor-un {words}")


@contextmanager
def interruptible() -> Iterator[None]:
    """Let go of a volume that oned deletes meanwhile: that action asks whoever holds it to stop."""

    def stop(_: int, __: Optional[FrameType]) -> NoReturn:
        raise Stopped("asked to stop")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def held(settings: Settings, resource: str) -> Iterator[None]:
    """Hold a volume for one step; raises Busy where an action has it, or wants it in order to delete it."""
    name = settings.names.first_name(resource)
    try:
        with interruptible(), locks.volume_lock(lock_directory(settings), name, _WAIT_SECONDS):
            yield
    except Stopped:
        raise Busy(f"An action deletes {resource} and has precedence: look with `linstor-un status volumes`") from None
