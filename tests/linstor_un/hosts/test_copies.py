"""Images on their way to a device: their holes; those that are converted, in a directory that nobody else can put
anything into, and without opening other files.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linstor_un.errors import CommandFailed
from linstor_un.hosts import copies, runner
from linstor_un.hosts.runner import Host
from linstor_un.settings import Settings
from linstor_un.units import MIB
from tests.linstor_un.hosts.hosts_in_a_box import say_size


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a file that the front-end takes for a device, since its lsblk knows any."""
    say_size(monkeypatch, tmp_path / "programs", MIB)
    made = tmp_path / "device"
    made.write_bytes(bytes(MIB))
    return made


HERE = Host("onefe", Settings(), True)
LARGE = 12 * MIB
# What the device had before is seen where nothing was written.
BEFORE = b"o" * LARGE
PIECES = (bytes(MIB), bytes(4 * MIB), b"x" * MIB, bytes(5), b"y", bytes(700) + b"z")


@pytest.mark.parametrize("reads_zero", [True, False])
@given(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_long_holes_are_left_out_wherever_they_are(
    device: Path, monkeypatch: pytest.MonkeyPatch, reads_zero: bool, pieces: list[bytes]
) -> None:
    data = b"".join(pieces)[:LARGE]
    device.write_bytes(bytes(LARGE) if reads_zero else BEFORE)
    say_size(monkeypatch, device.parent / "programs", LARGE)
    monkeypatch.setattr(runner, "_LONG_HOLE_BYTES", 2 * MIB)
    with copies.write(HERE, str(device), LARGE, reads_zero) as feed:
        for start in range(0, len(data), 3 * MIB):
            feed.send(data[start : start + 3 * MIB])
        feed.end()
        assert feed.line() == str(len(data))
        feed.say("right")
        feed.finish()
    assert device.read_bytes() == data + bytes(LARGE - len(data))


def test_an_image_that_breaks_off_behind_a_long_hole_is_not_whole(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_LONG_HOLE_BYTES", MIB // 2)
    with copies.write(HERE, str(device), MIB, True) as feed:
        for block in (b"x" * 512, bytes(MIB), b"y" * 512):
            feed.send(block)
        feed.say("0")
        feed.stdin.close()
        assert feed.line() == ""
        assert feed._process.wait() != 0


@pytest.fixture(params=["qemu-img", "dd"])
def own_sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A lsblk that takes any file for a device, and, for dd, nothing else that could copy."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "lsblk").write_text('#!/bin/sh\nexec stat -c %s "$3"\n')
    (programs / "lsblk").chmod(0o755)
    if request.param == "dd":
        for name in ("sh", "setsid", "stat", "date", "head", "tr", "dd", "cat", "cmp", "blkdiscard"):
            (programs / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}" if request.param == "qemu-img" else str(programs))


def copied(source: Path, device: Path, reads_zero: bool) -> bytes:
    """What a device has to which another was copied."""
    step = copies.copy(HERE, str(source), MIB, str(device), MIB, reads_zero)
    HERE.run("Copying", step)
    return device.read_bytes()


@pytest.mark.usefixtures("own_sizes")
@pytest.mark.parametrize("reads_zero", [True, False])
def test_a_copy_has_all_of_its_source_and_zeroes_behind(tmp_path: Path, reads_zero: bool) -> None:
    source, device = tmp_path / "source", tmp_path / "device"
    # What looks like an image is a disk's own bytes all the same.
    content = b"QFI\xfb".ljust(700_000, b"x") + bytes(2 * MIB) + os.urandom(5120)
    source.write_bytes(content)
    device.write_bytes(bytes(4 * MIB) if reads_zero else b"o" * 4 * MIB)
    assert copied(source, device, reads_zero) == content + bytes(4 * MIB - len(content))


@pytest.mark.usefixtures("own_sizes")
@pytest.mark.parametrize("reads_zero", [True, False])
def test_a_copy_to_a_shorter_device_leaves_out_zeroes_alone(tmp_path: Path, reads_zero: bool) -> None:
    source, device = tmp_path / "source", tmp_path / "device"
    before = bytes(2 * MIB) if reads_zero else b"o" * 2 * MIB
    content = os.urandom(2 * MIB)
    device.write_bytes(before)
    source.write_bytes(content + bytes(MIB - 1) + b"\n")
    with pytest.raises(CommandFailed, match=f"has data up to {3 * MIB} bytes and .* has {2 * MIB}.* a larger SIZE"):
        copied(source, device, reads_zero)
    assert device.read_bytes() == before
    source.write_bytes(content + bytes(MIB))
    assert copied(source, device, reads_zero) == content


def export(device: Path, directory: Path) -> copies.ExportedFile:
    """Export the device into this staging directory of the front-end, and keep the file."""
    file = copies.export(Host("onefe", Settings(staging_directory=str(directory)), True), str(device), MIB)
    file.keep()
    return file


def test_an_exported_file_is_oneadmins_alone(device: Path, tmp_path: Path) -> None:
    made = Path(export(device, tmp_path / "staging" / "below").path)
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_a_directory_for_everybody_needs_the_sticky_bit(device: Path, tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    staging.chmod(0o1777)
    export(device, staging)
    staging.chmod(0o777)
    refuse(device, staging, 1)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused_behind_a_link_too(device: Path, tmp_path: Path) -> None:
    staging, link = tmp_path / "staging", tmp_path / "link"
    staging.mkdir()
    link.symlink_to(staging)
    export(device, link)
    os.chown(staging, 424242, -1)
    refuse(device, link, 1)
    refuse(device, staging, 1)


def refuse(device: Path, staging: Path, files: int) -> None:
    """Check that neither an import nor an export puts anything into the directory."""
    host = Host("onefe", Settings(staging_directory=str(staging)), True)
    with pytest.raises(CommandFailed, match=f"{staging} .*STAGING_DIR"):
        export(device, staging)
    feed = copies.write_staged(host, str(device), MIB, True, "qcow2")
    with pytest.raises(CommandFailed, match=f"{staging} .*STAGING_DIR"):
        feed.finish()
    assert len(list(staging.iterdir())) == files
    assert device.read_bytes() == bytes(MIB)


def import_staged(device: Path, staging: Path, image: Path, form: str) -> None:
    """Bring the image file to the device as if nobody had looked into it before."""
    host = Host("onefe", Settings(staging_directory=str(staging)), True)
    with copies.write_staged(host, str(device), MIB, True, form) as feed:
        feed.send(image.read_bytes())
        feed.end()
        feed.finish()


@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_a_parent_that_an_image_names_is_never_opened(device: Path, tmp_path: Path, form: str) -> None:
    secret, image = tmp_path / "secret", tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", form, secret, "1M"], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", form, "-b", secret, "-F", form, image], check=True)
    # Whoever opened it would complain of another thing.
    secret.unlink()
    with pytest.raises(CommandFailed, match=f"the {form} image names other files: convert it with `qemu-img convert`"):
        import_staged(device, tmp_path / "staging", image, form)
    assert device.read_bytes() == bytes(MIB)


def test_a_file_of_its_own_for_its_data_is_refused_too(device: Path, tmp_path: Path) -> None:
    image, data = tmp_path / "image", tmp_path / "data"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", image, "1M"], check=True)
    data.write_bytes(b"secret".ljust(MIB, b"."))
    with pytest.raises(CommandFailed, match="names other files"):
        import_staged(device, tmp_path / "staging", image, "qcow2")
    assert device.read_bytes() == bytes(MIB)


def test_an_exported_file_that_is_not_kept_goes(device: Path, tmp_path: Path) -> None:
    host = Host("onefe", Settings(staging_directory=str(tmp_path / "staging")), True)
    file = copies.export(host, str(device), MIB)
    assert Path(file.path).stat().st_size
    file.remove()
    assert not Path(file.path).exists()


@pytest.mark.parametrize("by", ["export", "import"])
def test_exported_files_that_nobody_wants_any_more_go_with_a_later_action(
    device: Path, tmp_path: Path, by: str
) -> None:
    staging = tmp_path / "staging"
    real = tmp_path / "behind a link [1]"
    real.mkdir()
    staging.symlink_to(real)
    days = {"forgotten": (3, 3), "read": (3, 1), "written": (1, 3), "open": (3, 3)}
    files = {name: Path(export(device, staging).path) for name in days}
    other = staging / "somebody-else's"
    other.touch()
    now = time.time()
    with files["open"].open("rb"):
        for name, (written, accessed) in days.items():
            os.utime(files[name], (now - accessed * 86400, now - written * 86400))
        os.utime(other, (0, 0))
        if by == "export":
            files["new"] = Path(export(device, staging).path)
        else:
            image = tmp_path / "image"
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
            import_staged(device, staging, image, "qcow2")
    assert set(staging.iterdir()) == {*files.values(), other} - {files["forgotten"]}
