"""Changing files so that all is done or nothing: each is replaced at once, and put back where a later one fails."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple, NoReturn, Optional

from linstor_un.cli.installation.tree import Tree
from linstor_un.errors import NotWritable
from linstor_un.undo import STOPPING_SIGNALS, Stopped, Undo

FILE, LINK, DIRECTORY = "file", "link", "directory"
_BYTECODE = "__pycache__"


class Content(NamedTuple):
    """What is at a path: a file with its bytes, a link with its target, or a directory.

    `owner` is user and group, None for those of the folder that it is in; `modified_ns` None for now.
    """

    kind: str
    data: bytes = b""
    mode: int = 0o644
    target: str = ""
    owner: Optional[tuple[int, int]] = None
    modified_ns: Optional[int] = None

    def is_same(self, other: Optional[Content]) -> bool:
        """Tell whether the other is as good: owners and times are not compared, nor a link's or a folder's rights."""
        if other is None or self.kind != other.kind:
            return False
        return (
            self.kind == DIRECTORY
            or (self.data, self.target) == (other.data, other.target)
            and (self.kind == LINK or self.mode == other.mode)
        )


class Change(NamedTuple):
    """What becomes of a path of the tree; None is nothing there."""

    path: str
    before: Optional[Content]
    after: Optional[Content]

    @property
    def what(self) -> str:
        """Return new, changed or removed."""
        if self.before is None:
            return "new"
        return "removed" if self.after is None else "changed"


def read(path: str) -> Optional[Content]:
    """Return what is at a path on this machine, None where nothing is."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
    if stat.S_ISLNK(found.st_mode):
        return Content(LINK, target=os.readlink(path), owner=owner)
    if stat.S_ISDIR(found.st_mode):
        return Content(DIRECTORY, mode=mode, owner=owner)
    try:
        with open(path, "rb") as file:
            return Content(FILE, file.read(), mode, owner=owner, modified_ns=found.st_mtime_ns)
    except PermissionError:
        raise NotWritable(f"{path} cannot be read: run the command as root") from None


def check_writable(tree: Tree, changes: Sequence[Change]) -> None:
    """Check that every change can be made; raises NotWritable naming the first that cannot."""
    for change in changes:
        folder = os.path.dirname(tree.here(change.path))
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise NotWritable(
                f"{tree.here(change.path)} cannot be changed, as {folder} is not writable: run the command as root; "
                "nothing was changed"
            )


@contextmanager
def all_or_nothing() -> Iterator[Undo]:
    """Put back what the block has changed where it fails or is stopped by a signal."""
    before = {number: signal.signal(number, _stop) for number in STOPPING_SIGNALS}
    try:
        with Undo() as undo:
            yield undo
    except Stopped as stopped:
        raise NotWritable(str(stopped)) from None
    except OSError as failure:
        raise NotWritable(
            f"{failure.filename or 'A file'} cannot be changed ({failure.strerror}): correct that and run the command "
            "again; everything is as it was"
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _: Optional[FrameType]) -> NoReturn:
    raise Stopped(f"Stopped by {signal.Signals(number).name}: everything is as it was, run the command again")


def make(tree: Tree, change: Change, undo: Undo) -> None:
    """Make one change, which `undo` puts back; raises OSError."""
    path = tree.here(change.path)
    undo.push(f"change of {path}", lambda: put(path, change.before))
    put(path, change.after)


def put(path: str, content: Optional[Content]) -> None:
    """Have this content at a path, in one step for whoever looks; raises OSError."""
    new = temporary(path)
    _remove(new)
    if content is None:
        _remove(path)
    elif content.kind == DIRECTORY:
        if not os.path.isdir(path):
            os.mkdir(path, content.mode)
            _own(path, path, content)
    else:
        if os.path.isdir(path):
            _remove(path)
        _write(new, content, os.path.lexists(path))
        _own(new, path, content)
        os.replace(new, path)


def temporary(path: str) -> str:
    """Return where the new content of a path lies until it is complete."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.linstor_un-new")


def _write(new: str, content: Content, replaces: bool) -> None:
    if content.kind == LINK:
        os.symlink(content.target, new)
        return
    # Nobody else may read it before it has its owner and rights: oned.conf holds passwords.
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content.data)
        file.flush()
        if replaces:
            os.fsync(file.fileno())


def _own(new: str, path: str, content: Content) -> None:
    """Give a new file the owner, rights, attributes and time that it is to have."""
    folder = os.stat(os.path.dirname(path))
    owner = content.owner or (folder.st_uid, folder.st_gid)
    if os.geteuid() == 0:
        os.chown(new, *owner, follow_symlinks=False)
    if content.kind != FILE:
        return
    if os.path.isfile(path):
        # For attributes such as SELinux's.
        shutil.copystat(path, new)
        os.utime(new)
    os.chmod(new, content.mode)
    if content.modified_ns is not None:
        os.utime(new, ns=(content.modified_ns, content.modified_ns))


def _remove(path: str) -> None:
    """Remove what is at a path; a folder only where nothing but bytecode is in it."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(os.path.join(path, _BYTECODE), ignore_errors=True)
        if not os.listdir(path):
            os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)
