"""Which files of the front-end may become images: SAFE_DIRS and RESTRICTED_DIRS, and none of the driver's own.

Stricter than OpenNebula's own check (opennebula-contract.md, 12): whole components are compared, what cannot be
resolved is refused, and the file that was checked is the file that is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from linstor_un.errors import ForbiddenPath, UnusableImage


def open_image(path: str, safe: Sequence[str], restricted: Sequence[str], own: Sequence[str] = ()) -> int:
    """Open the image file at `path` for reading and return its descriptor.

    `own` are files of the driver that are no image's under whatever name, in SAFE_DIRS neither.
    Raises ForbiddenPath, and UnusableImage for what is absent or no regular file.
    """
    try:
        # Opened first and judged by where the descriptor really points: a link changed in between gains nothing.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as failure:
        _check(os.path.realpath(path), path, safe, restricted)
        raise UnusableImage(
            f"Image file {path} cannot be read ({failure.strerror}): correct PATH or its permissions"
        ) from None
    try:
        _check_is_not_own(descriptor, path, own)
        _check(os.path.realpath(f"/proc/self/fd/{descriptor}"), path, safe, restricted)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            what = "a directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "no regular file"
            raise UnusableImage(f"Image path {path} is {what}: PATH must name a file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_is_not_own(descriptor: int, path: str, own: Sequence[str]) -> None:
    opened = os.fstat(descriptor)
    for name in own:
        try:
            is_own = os.path.samestat(opened, os.stat(name))
        except OSError:
            continue
        if is_own:
            raise _is_own(path)


def _is_own(path: str) -> ForbiddenPath:
    return ForbiddenPath(f"Image path {path} is not allowed: it is a file of the driver itself; name an image's file")


def check_ssh_url(url: str, safe: Sequence[str], restricted: Sequence[str], own: Sequence[str] = ()) -> None:
    """Check that a file of another host is none of those that must not become images here, by its path alone.

    oneadmin's own key reads it, and the host may be the front-end. SAFE_DIRS may name directories of other hosts too
    (`ssh://host:/directory`); `own` as with open_image. Raises ForbiddenPath.
    """
    directories = [directory.rstrip("/") + "/" for directory in safe if directory.startswith("ssh://")]
    path = url.partition("://")[2].partition(":")[2]
    if not path.startswith("/") or {".", "..", "~"} & set(path.split("/")):
        raise ForbiddenPath(f"Image path {url} is not allowed: name the file as ssh://host:/directory/file")
    plain = "/" + "/".join(filter(None, path.split("/")))
    if plain in {spelt for name in own for spelt in (os.path.normpath(name), os.path.realpath(name))}:
        raise _is_own(url)
    if not url.startswith(tuple(directories)):
        _check(plain, url, safe, restricted)


def _check(resolved: str, path: str, safe: Sequence[str], restricted: Sequence[str]) -> None:
    # OpenNebula's own default where the datastore has neither attribute is its own check list below.
    if any(_below(resolved, directory) for directory in safe):
        return
    for directory in (*restricted, *_own_directories()):
        if directory != "~" and _below(resolved, directory):
            raise ForbiddenPath(
                f"Image path {path} is not allowed: it lies in {directory}, which is restricted; move the file to one "
                f"of the datastore's SAFE_DIRS ({' '.join(safe) or 'none is set'})"
            )


def _own_directories() -> tuple[str, ...]:
    """Return where OpenNebula keeps what nobody else may read; a self-contained one below ONE_LOCATION."""
    location = os.environ.get("ONE_LOCATION", "")
    packaged = ("/var/lib/one", "/etc/one", os.path.expanduser("~"))
    return (*packaged, f"{location}/var", f"{location}/etc") if location.startswith("/") else packaged


def _below(path: str, directory: str) -> bool:
    directory = os.path.realpath(directory)
    return path == directory or path.startswith(directory.rstrip("/") + "/")
