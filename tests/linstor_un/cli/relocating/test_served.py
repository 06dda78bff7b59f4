"""What is offered to the driver is offered to nobody else, and whole."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from linstor_un.cli.relocating import served
from linstor_un.errors import UnusableImage
from linstor_un.hosts import origins, sources
from linstor_un.units import MIB
from tests.linstor_un.scenes import content


@pytest.fixture
def origin(tmp_path: Path) -> origins.Origin:
    path = tmp_path / "disk"
    path.write_bytes(content(2))
    return origins.of_file(str(path), "raw")


def test_it_is_sent_whole_as_often_as_it_is_asked_for(origin: origins.Origin) -> None:
    with served.offered(origin) as offer:
        for _ in range(2):
            source = sources.from_url(offer.url, "", {}, {})
            assert (source.size_bytes, source.format.name) == (origin.size_bytes, "raw")
            assert b"".join(source.blocks()) == content(2)
            source.close()
        assert offer.sent_bytes == origin.size_bytes
    with pytest.raises(UnusableImage, match="Connection refused"):
        sources.from_url(offer.url, "", {}, {})


def test_only_what_was_sent_whole_has_a_digest(origin: origins.Origin) -> None:
    with served.offered(origin) as offer:
        with urllib.request.urlopen(urllib.request.Request(offer.url, method="HEAD")) as answer:
            assert int(answer.headers["Content-Length"]) == origin.size_bytes
        assert offer.digest == ""
        with urllib.request.urlopen(offer.url) as answer:
            answer.read()
        assert offer.digest == hashlib.sha256(content(2)).hexdigest()


class _EndsLate:
    """A disk whose end is told some time after its last byte, as that of a program on a host is."""

    size_bytes = MIB

    def __init__(self) -> None:
        self._left = MIB

    def open(self) -> sources.Reader:
        return self

    def read(self, size: int) -> bytes:
        if not self._left:
            threading.Event().wait(0.3)
        block = bytes(min(size, self._left))
        self._left -= len(block)
        return block

    def close(self) -> None:
        pass


def test_whoever_has_the_last_byte_finds_the_digest() -> None:
    with served.offered(_EndsLate()) as offer:
        with urllib.request.urlopen(offer.url) as answer:
            answer.read()
        assert offer.digest == hashlib.sha256(bytes(MIB)).hexdigest()


def test_other_paths_and_other_users_get_nothing(origin: origins.Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.offered(origin) as offer:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(offer.url.rpartition("/")[0] + "/")
        for user in (os.geteuid() + 1, None):
            monkeypatch.setattr(served, "user_of_connection", lambda *_, user=user: user)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(offer.url)


def test_the_kernel_says_whose_a_connection_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        ports = client.getsockname()[1], server.getsockname()[1]
        assert served.user_of_connection(*ports) == os.geteuid()
        assert served.user_of_connection(ports[0], 1) is None


def test_a_disk_that_cannot_be_read_breaks_off_and_is_remembered(origin: origins.Origin, tmp_path: Path) -> None:
    with served.offered(origin) as offer:
        (tmp_path / "disk").unlink()
        with pytest.raises(UnusableImage, match="broke off|cut short"):
            list(sources.from_url(offer.url, "", {}, {}).blocks())
        assert isinstance(offer.failure, UnusableImage)
        assert "No such file" in str(offer.failure)
