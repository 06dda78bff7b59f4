"""One lock per volume on the front-end, so that two actions never change the same volume at once."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Optional

from linstor_un import log
from linstor_un.errors import Busy, InvalidSetting
from linstor_un.settings import Settings, lock_directory
from linstor_un.undo import surely, undisturbed

_FIRST_WAIT_SECONDS = 0.005
_LONGEST_WAIT_SECONDS = 0.25
_ATTACHED = b"attached"


@contextmanager
def volume_lock(
    directory: str, resource: str, timeout_seconds: float, interrupt_holder: bool = False
) -> Iterator[bool]:
    """Hold the lock of `resource` for the length of the block, which is told whether another one has had it until now.

    Arguments: `directory` where the lock files live; `timeout_seconds` to wait at most; `interrupt_holder` asks the
    action that holds it to stop and clean up, as a delete may: oned sends deletes while a cancelled action still runs.

    Raises Busy when the wait is over.
    """
    lock = _VolumeLock(os.path.join(directory, f"linstor_un-{resource.lower()}.lock"))
    with surely(lock.give_back):
        is_contended = not lock.take()
        if is_contended:
            _wait(lock, resource, timeout_seconds, interrupt_holder)
        yield is_contended


class _VolumeLock:
    """The lock file of a volume, which this process holds or does not."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: Optional[int] = None

    def take(self) -> bool:
        """Take it if nobody has it; return whether it is ours."""
        # A signal between the making of the file and the note of that would leave it.
        with undisturbed():
            self._descriptor = _locked(self.path, fcntl.LOCK_EX)
            if self._descriptor is None:
                return False
            log.show_in(self._descriptor)
            _write_holder(self.path, self._descriptor)
        return True

    def give_back(self) -> None:
        """Let others have it, if it is ours."""
        if self._descriptor is None:
            return
        log.hide_from(self._descriptor)
        # Unlinked while still held: whoever waits on the old file notices that it is gone and starts again.
        _unlink(self.path)
        os.close(self._descriptor)
        self._descriptor = None


def of_volume(settings: Settings, resource: str, interrupt_holder: bool = False) -> AbstractContextManager[bool]:
    """Return the lock of a volume, where LOCK_DIR says and for as long as LOCK_TIMEOUT allows; see `volume_lock`."""
    # Whoever holds it, and is asked to stop perhaps, does so when it has LINSTOR's answer.
    timeout_seconds = settings.lock_timeout_seconds + settings.request_timeout_seconds
    return volume_lock(lock_directory(settings), resource, timeout_seconds, interrupt_holder)


def held(settings: Settings) -> frozenset[str]:
    """Return the volumes, in lower case, that some action holds at this moment, or only copies from."""
    directory = lock_directory(settings)
    found = set()
    for name in os.listdir(directory):
        match = re.fullmatch(r"linstor_un-([^@]+)(?:@.*)?\.lock", name)
        if match and _is_held(os.path.join(directory, name)):
            found.add(match.group(1))
    return frozenset(found)


def _is_held(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # Whoever wants the lock at this very moment tries again a few milliseconds later.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class SharedGuest:
    """A volume that is attached somewhere only for copying from it, by one action or by several at once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: Optional[int] = None
        self._is_last = False

    def join(self) -> bool:
        """Share it unless whoever was the last is just leaving it; return whether this is one of them now."""
        with undisturbed():
            self._descriptor = _locked(self._path, fcntl.LOCK_SH)
            if self._descriptor is None:
                return False
            try:
                # Room for the note, now: there may be none when the volume has been attached.
                os.posix_fallocate(self._descriptor, 0, len(_ATTACHED))
            except OSError as failure:
                raise _full(self._path, failure) from None
        return True

    def note_attached(self) -> None:
        """Remember, for whoever is the last, that the volume was not there before."""
        if self._descriptor is not None:
            os.pwrite(self._descriptor, _ATTACHED, 0)

    def may_detach(self) -> bool:
        """Tell whether this was the last to share the volume, and one of them has attached it; says yes once."""
        if self._descriptor is None or self._is_last:
            return False
        try:
            # Where this fails the shared lock is gone too, and another one who tries after us is the last.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._is_last = True
        return os.pread(self._descriptor, len(_ATTACHED), 0) == _ATTACHED

    def part(self) -> None:
        """Share it no longer."""
        if self._descriptor is None:
            return
        # What ended before it began leaves no file either.
        self.may_detach()
        if self._is_last:
            # Not before: whoever comes meanwhile would make a new file and begin at once.
            _unlink(self._path)
        os.close(self._descriptor)
        self._descriptor = None


@contextmanager
def shared_guest(directory: str, resource: str, node: str, timeout_seconds: float) -> Iterator[SharedGuest]:
    """Share, for the length of the block, a volume that is attached on `node` only for copying from it.

    After may_detach has said yes nobody else begins until the block ends, so that the volume is detached while nobody
    reads. Raises Busy where that takes longer than `timeout_seconds`.
    """
    guest = SharedGuest(os.path.join(directory, f"linstor_un-{resource.lower()}@{node.lower()}.lock"))
    deadline = time.monotonic() + timeout_seconds
    with surely(guest.part):
        while not guest.join():
            if time.monotonic() > deadline:
                raise _busy(resource, 0, timeout_seconds)
            time.sleep(_LONGEST_WAIT_SECONDS)
        yield guest


def _wait(lock: _VolumeLock, resource: str, timeout_seconds: float, interrupt_holder: bool) -> None:
    deadline = time.monotonic() + timeout_seconds
    pause = _FIRST_WAIT_SECONDS
    while not lock.take():
        holder = _holder(lock.path)
        if interrupt_holder and holder:
            _interrupt(holder, resource)
            interrupt_holder = False
        if time.monotonic() > deadline:
            raise _busy(resource, holder, timeout_seconds)
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_WAIT_SECONDS)


def _busy(resource: str, holder: int, timeout_seconds: float) -> Busy:
    return Busy(
        f"Another action{f' (process {holder})' if holder else ''} has held volume {resource} for more than "
        f"{timeout_seconds:g} s: wait until it ends and retry, or raise LOCK_TIMEOUT in linstor_un.conf"
    )


def _open(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as failure:
        raise _unusable(path, f"cannot be made ({failure.strerror})") from None
    # It says which process is asked to stop.
    if os.fstat(descriptor).st_uid != os.geteuid():
        os.close(descriptor)
        raise _unusable(path, "belongs to somebody else")
    return descriptor


def _unusable(path: str, reason: str) -> InvalidSetting:
    return InvalidSetting(
        f"The lock {path} {reason}: set LOCK_DIR in linstor_un.conf to a directory that belongs to the user that runs "
        "the driver"
    )


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        log.warning(f"somebody has removed the lock file {path}: keep clean-up tools out of LOCK_DIR")
    except OSError as failure:
        log.warning(
            f"the lock file {path} cannot be removed ({failure.strerror}): remove it once LOCK_DIR can be written to"
        )


def _locked(path: str, how: int) -> int | None:
    """Return the lock file's descriptor, locked so, or None where it is held or has just been given back."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _write_holder(path: str, descriptor: int) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    except OSError as failure:
        raise _full(path, failure) from None


def _full(path: str, failure: OSError) -> InvalidSetting:
    return InvalidSetting(
        f"The lock {path} cannot be written ({failure.strerror}): free space there, or set LOCK_DIR in linstor_un.conf "
        "to a directory that has some"
    )


def _holder(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return int((file.read(20).split() or [b"0"])[0])
    except (OSError, ValueError):
        return 0


class Holder(NamedTuple):
    """What the lock of a volume, in lower case, says of the process that has it; bytes are None where unknown."""

    resource: str
    process: int
    done_bytes: Optional[int]
    total_bytes: Optional[int]
    step: str


def holders(settings: Settings) -> list[Holder]:
    """Return what the locks say, without touching them: one that a killed action has left says what that did."""
    directory = lock_directory(settings)
    found = []
    for name in sorted(os.listdir(directory)):
        match = re.fullmatch(r"linstor_un-([^@]+)\.lock", name)
        said = _said(os.path.join(directory, name)) if match else []
        if match and said and said[0].isdigit():
            done, total, step = said[1:] if len(said) == len(Holder._fields) - 1 else ("-", "-", "")
            found.append(Holder(match.group(1), int(said[0]), _number(done), _number(total), step))
    return found


def _said(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n").split(" ", 3)
    except OSError:
        return []


def _number(text: str) -> Optional[int]:
    return int(text) if text.isdigit() else None


def _interrupt(process: int, resource: str) -> None:
    log.info(f"asking process {process}, which holds {resource}, to stop")
    try:
        os.kill(process, signal.SIGTERM)
    except OSError as failure:
        log.warning(f"process {process} could not be asked to stop: {failure}")
