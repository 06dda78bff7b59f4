"""Disks of other storages are read whole, or it is said why they are not, and no file is read that they name."""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from linstor_un.errors import CommandFailed, MissingDependency, UnusableImage
from linstor_un.hosts import origins
from linstor_un.hosts.devices import WAIT_FOR_DEVICE
from linstor_un.hosts.runner import Host
from linstor_un.settings import Settings
from tests.linstor_un.hosts.hosts_in_a_box import say_size
from tests.linstor_un.scenes import content

HERE = Host("onefe", Settings(), is_frontend=True)


def qcow2(raw: Path, *options: str) -> Path:
    """The same disk as a qcow2 file."""
    path = raw.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", *options, raw, path], check=True)
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(content(1)[:-512])
    return path


@pytest.mark.parametrize("options", [(), ("-c",), ("-o", "compat=0.10"), ("-o", "cluster_size=2M")])
def test_a_qcow2_file_is_read_as_the_disk_in_it(raw: Path, options: tuple[str, ...]) -> None:
    origin = origins.of_file(str(qcow2(raw, *options)), "qcow2")
    assert origin.size_bytes == raw.stat().st_size
    assert origins.digest(origin) == hashlib.sha256(raw.read_bytes()).hexdigest()


def test_a_raw_file_is_its_own_bytes_whatever_they_look_like(raw: Path) -> None:
    path = qcow2(raw)
    assert origins.digest(origins.of_file(str(path), "raw")) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_no_other_file_is_read(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "child.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", path], check=True)
    with pytest.raises(UnusableImage, match="has a backing file: flatten it"):
        origins.of_file(str(path), "qcow2")
    # Put in after it was looked at.
    assert origins.digest(origins.Qcow2File(str(path), raw.stat().st_size)) != origins.digest(
        origins.of_file(str(raw), "raw")
    )


def test_what_cannot_be_read_is_said(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = qcow2(raw)
    origin = origins.of_file(str(path), "qcow2")
    with pytest.raises(UnusableImage, match="became longer or shorter"):
        origins.digest(origins.Qcow2File(str(path), origin.size_bytes + 1))
    with pytest.raises(UnusableImage, match="is raw and OpenNebula says qcow2"):
        origins.of_file(str(raw), "qcow2")
    with pytest.raises(UnusableImage, match="is no file"):
        origins.of_file(str(tmp_path), "raw")
    raw.write_bytes(b"no header any more")
    with pytest.raises(UnusableImage, match="cannot be read by qemu-nbd"):
        origins.digest(origins.Qcow2File(str(raw), 1))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UnusableImage, match="cannot be read at|became"):
        origins.digest(origins.Qcow2File(str(path), origin.size_bytes + 1))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="qemu-nbd is missing on the front-end"):
        origin.open()


def test_a_reader_that_is_given_up_leaves_no_process(raw: Path) -> None:
    for origin in (origins.of_file(str(qcow2(raw)), "qcow2"), origins.of_device(HERE, str(raw))):
        with closing(origin.open()) as reader:
            assert reader.read(512) == raw.read_bytes()[:512]
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_a_host_says_why_it_has_nothing_to_read(raw: Path, tmp_path: Path) -> None:
    origin = origins.of_device(HERE, str(raw))
    assert origins.digest(origin) == hashlib.sha256(raw.read_bytes()).hexdigest()
    raw.unlink()
    with pytest.raises(CommandFailed, match="Reading .* failed: .*No such file"):
        origins.digest(origin)
    with pytest.raises(CommandFailed, match="Looking at .* failed"):
        origins.of_device(HERE, str(raw))


def test_a_device_is_compared_with_somebody_watching_and_says_why_it_cannot_be_read(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file is read here, for which nobody would wait.
    script = "wait_for_device() { :; }\n" + origins._DIGEST.removeprefix(WAIT_FOR_DEVICE)
    monkeypatch.setattr(origins, "_DIGEST", script)
    seen: list[int] = []
    digest = hashlib.sha256(raw.read_bytes()[:4096]).hexdigest()
    assert origins.digest_of_device(HERE, str(raw), 4096, seen.append) == digest
    assert seen == [4096]
    with pytest.raises(CommandFailed, match="Comparing .* failed: dd: .*Is a directory; correct that and retry"):
        origins.digest_of_device(HERE, str(tmp_path), 4096)


def test_a_ceph_that_says_nothing_of_the_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rbd").write_text("#!/bin/sh\necho '{}'\n")
    (tmp_path / "rbd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(CommandFailed, match="The size of pool/one-1 is not known"):
        origins.of_rbd(HERE, "pool/one-1", ())


def test_the_last_words_of_dd_do_not_stand_around_the_digest(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    say_size(monkeypatch, programs, raw.stat().st_size)
    (programs / "dd").write_text(
        '#!/bin/sh\n/bin/dd "$@" status=none\nexec >&-\nprintf "512 bytes copied" >&2\nsleep 0.3\necho ", 1 s" >&2\n'
    )
    (programs / "dd").chmod(0o755)
    size = raw.stat().st_size
    assert origins.digest_of_device(HERE, str(raw), size) == hashlib.sha256(raw.read_bytes()).hexdigest()
