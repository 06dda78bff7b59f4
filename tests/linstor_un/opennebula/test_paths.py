"""Which files of the front-end may become images."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from linstor_un.errors import DriverError, ForbiddenPath, UnusableImage
from linstor_un.opennebula.paths import check_ssh_url, open_image


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    """Return a directory that images may come from."""
    directory = tmp_path / "safe"
    directory.mkdir()
    (directory / "image.raw").write_bytes(b"image")
    (tmp_path / "secret").write_bytes(b"secret")
    return directory


def read(path: object, safe: Path) -> bytes:
    """Return what is read of an image, where only `safe` is allowed."""
    descriptor = open_image(str(path), [str(safe)], ["/"])
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def test_a_file_in_a_safe_directory_is_read(safe: Path) -> None:
    assert read(safe / "image.raw", safe) == b"image"
    assert read(f"{safe}//./image.raw", safe) == b"image"
    assert read(safe / ".." / "safe" / "image.raw", safe) == b"image"


def test_a_link_is_judged_by_where_it_leads(safe: Path, tmp_path: Path) -> None:
    (safe / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "in").symlink_to(safe / "image.raw")
    (safe / "folder").symlink_to(tmp_path)
    assert read(tmp_path / "in", safe) == b"image"
    for path in (safe / "out", safe / "folder" / "secret", safe / ".." / "secret"):
        with pytest.raises(ForbiddenPath, match="SAFE_DIRS"):
            read(path, safe)


def test_a_safe_directory_may_be_a_link_itself(safe: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(safe)
    assert read(safe / "image.raw", tmp_path / "link") == b"image"


def test_whole_components_are_compared(safe: Path) -> None:
    neighbour = safe.with_name("safe-not")
    neighbour.mkdir()
    (neighbour / "image.raw").write_bytes(b"x")
    with pytest.raises(ForbiddenPath):
        read(neighbour / "image.raw", safe)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/shadow", "/nowhere/at/all", "/proc/self/environ", "/dev/zero"])
def test_nothing_else_is_read_and_nobody_learns_whether_it_is_there(safe: Path, path: str) -> None:
    with pytest.raises(ForbiddenPath) as refusal:
        read(path, safe)
    assert str(refusal.value) == (
        f"Image path {path} is not allowed: it lies in /, which is restricted; move the file to one of the datastore's "
        f"SAFE_DIRS ({safe})"
    )


def test_what_is_no_file_is_refused_at_once(safe: Path) -> None:
    os.mkfifo(safe / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(safe / "socket"))
    for path, words in ((safe, "a directory"), (safe / "fifo", "no regular file"), (safe / "socket", "cannot be read")):
        with pytest.raises(UnusableImage, match=words):
            read(path, safe)
    listener.close()


def test_a_file_that_is_not_there_is_named_with_the_remedy(safe: Path) -> None:
    with pytest.raises(UnusableImage, match="none.raw cannot be read .*: correct PATH or its permissions"):
        read(safe / "none.raw", safe)


def test_a_path_that_cannot_be_a_path_is_refused(safe: Path) -> None:
    (safe / "loop").symlink_to(safe / "loop")
    for path in (safe / "loop", safe / ("x" * 300), safe / "image.raw" / "below"):
        with pytest.raises(DriverError):
            read(path, safe)


def test_opennebulas_own_files_are_restricted_without_being_named(monkeypatch: pytest.MonkeyPatch, safe: Path) -> None:
    monkeypatch.setenv("HOME", str(safe))
    for path in (safe / "image.raw", "/var/lib/one/.one/one_auth", "/etc/one/oned.conf"):
        with pytest.raises(ForbiddenPath):
            os.close(open_image(str(path), [], []))
    os.close(open_image(str(safe / "image.raw"), [str(safe)], []))


@pytest.mark.parametrize("url", ["ssh://backup:/var/images/disk", "ssh://oneadmin@node1:/var/tmp/linstor_un-export.x"])
def test_a_file_of_another_host_is_judged_as_one_of_ours(url: str) -> None:
    check_ssh_url(url, [], [])
    with pytest.raises(ForbiddenPath, match="it lies in /var, which is restricted"):
        check_ssh_url(url, [], ["/var"])
    check_ssh_url(url, ["/var"], ["/"])
    check_ssh_url(url, [url.rpartition("/")[0]], ["/"])


@pytest.mark.parametrize(
    "url",
    [
        "ssh://onefe:/var/lib/one/.one/one_auth",
        "ssh://onefe://var/lib/one/.one/one_auth",
        "ssh://onefe:/var/./lib/one/.one/one_auth",
        "ssh://onefe:/var/tmp/../lib/one/.one/one_auth",
        "ssh://onefe:.one/one_auth",
        "ssh://onefe:~/.one/one_auth",
        "ssh://onefe:/etc/one/oned.conf",
    ],
)
def test_what_is_opennebulas_own_on_another_host_is_no_image(url: str) -> None:
    with pytest.raises(ForbiddenPath, match="is not allowed"):
        check_ssh_url(url, ["/srv"], [])


def test_the_place_of_a_file_is_what_it_was_when_it_was_opened(
    monkeypatch: pytest.MonkeyPatch, safe: Path, tmp_path: Path
) -> None:
    own, opened = tmp_path / "own", os.open
    own.mkdir()
    (own / "image.raw").write_bytes(b"from elsewhere")

    def swap(*arguments: Any) -> int:
        descriptor = opened(*arguments)
        own.rename(tmp_path / "moved")
        own.symlink_to(safe)
        return descriptor

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(ForbiddenPath):
        open_image(str(own / "image.raw"), [str(safe)], ["/"])


def test_no_descriptor_is_left_open(safe: Path, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in (tmp_path / "secret", safe, safe / "none"):
        with pytest.raises(DriverError):
            read(path, safe)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_drivers_own_files_are_no_images_by_any_name(safe: Path, tmp_path: Path) -> None:
    own = safe / "token"
    own.write_bytes(b"token")
    (tmp_path / "link").symlink_to(own)
    os.link(own, tmp_path / "second name")
    absent = str(tmp_path / "absent")
    spellings = (own, f"{safe}//../safe/./token", tmp_path / "link", tmp_path / "second name")
    for path in spellings:
        for named in (own, tmp_path / "link"):
            with pytest.raises(ForbiddenPath, match="a file of the driver itself; name an image's file"):
                open_image(str(path), [str(tmp_path)], [], [absent, str(named)])
    os.close(open_image(str(safe / "image.raw"), [str(tmp_path)], [], [absent, str(own)]))


def test_the_drivers_own_files_are_no_images_over_ssh_either(safe: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(safe / "image.raw")
    for path in (safe / "image.raw", f"/{safe}//image.raw", tmp_path / "link"):
        with pytest.raises(ForbiddenPath, match="a file of the driver itself"):
            check_ssh_url(f"ssh://onefe:{path}", [f"ssh://onefe:{tmp_path}"], [], [str(tmp_path / "link")])
    check_ssh_url(f"ssh://onefe:{safe}/other", [], [], [str(tmp_path / "link")])


@pytest.mark.parametrize("below", ["var/.one/one_auth", "etc/oned.conf"])
def test_so_are_those_of_a_self_contained_opennebula(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, below: str
) -> None:
    monkeypatch.setenv("ONE_LOCATION", str(tmp_path))
    secret = tmp_path / below
    secret.parent.mkdir(parents=True)
    secret.write_bytes(b"secret")
    with pytest.raises(ForbiddenPath, match=f"it lies in {tmp_path}/{below[:3]}, which is restricted"):
        open_image(str(secret), [], ["/nowhere"])
