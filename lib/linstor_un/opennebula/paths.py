"""Which files of the front-end may become images: SAFE_DIRS and RESTRICTED_DIRS.

Stricter than OpenNebula's own check (opennebula-contract.md, 12): whole components are compared, what cannot be
resolved is refused, and the file that was checked is the file that is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from linstor_un.errors import ForbiddenPath, UnusableImage


def open_image(path: str, safe: Sequence[str], restricted: Sequence[str]) -> int:
    """Open the image file at `path` for reading and return its descriptor.

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
        _check(os.path.realpath(f"/proc/self/fd/{descriptor}"), path, safe, restricted)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            what = "a directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "no regular file"
            raise UnusableImage(f"Image path {path} is {what}: PATH must name a file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_ssh_url(url: str, safe: Sequence[str]) -> None:
    """Check that a URL of OpenNebula's downloader lies in a directory of another host that SAFE_DIRS names.

    oneadmin's own key opens it, and most that is on any host with it. Raises ForbiddenPath.
    """
    directories = [directory.rstrip("/") + "/" for directory in safe if directory.startswith("ssh://")]
    if ".." in url.split("/") or not url.startswith(tuple(directories)):
        above = url.rpartition("/")[0]
        raise ForbiddenPath(
            f"Image path {url} is not allowed, since oneadmin's key would read it for anybody: add its directory to "
            f"the datastore's SAFE_DIRS, for example {above}"
        )


def _check(resolved: str, path: str, safe: Sequence[str], restricted: Sequence[str]) -> None:
    # OpenNebula's own default where the datastore has neither attribute is its own check list below.
    if any(_below(resolved, directory) for directory in safe):
        return
    for directory in (*restricted, "/var/lib/one", "/etc/one", os.path.expanduser("~")):
        if directory != "~" and _below(resolved, directory):
            raise ForbiddenPath(
                f"Image path {path} is not allowed: it lies in {directory}, which is restricted; move the file to one "
                f"of the datastore's SAFE_DIRS ({' '.join(safe) or 'none is set'})"
            )


def _below(path: str, directory: str) -> bool:
    directory = os.path.realpath(directory)
    return path == directory or path.startswith(directory.rstrip("/") + "/")
