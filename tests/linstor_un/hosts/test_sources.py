"""Where images come from: http by the driver itself, everything through an installation's downloader.sh."""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from linstor_un import hiding
from linstor_un.errors import UnusableImage
from linstor_un.hosts import sources
from linstor_un.opennebula import decoding
from tests.conftest import CHECKOUT, World
from tests.linstor_un.actions.datastore.material import (
    MIB,
    add_datastore,
    as_qemu_reads_it,
    cp,
    disk,
    holds,
    in_form,
    noise,
    nothing_left,
    refused,
    source,
    stat,
    succeeded,
)
from tests.linstor_un.hosts.web import Web, serving

MakeWorld = Callable[..., World]
# As OpenNebula's own: the options of all releases, the URL's bytes on stdout, decompressed unless told not to.
DOWNLOADER = r"""#!/bin/bash
printf '%s\n' "$@" >DIRECTORY/arguments
printf %s "$DRV_ACTION" >DIRECTORY/drv_action
options=$(getopt -o m:s:l:c:no -l md5:,sha1:,limit:,max-size:,convert:,nodecomp,noretry -- "$@") || exit 255
eval set -- "$options"
decompressor="gunzip -cf"
while [ "$1" != -- ]; do
    case $1 in
    -n | --nodecomp) decompressor=cat; shift ;;
    -o | --noretry) shift ;;
    *) shift 2 ;;
    esac
done
name=${2##*/}
case $name in
endless) head -c 67108864 /dev/zero | cat; touch DIRECTORY/read-to-the-end; exit ;;
silent | stalled) [ "$name" = silent ] || head -c 100000 DIRECTORY/stalled; sleep 60 ;;
late) sleep 2.5 ;;
talkative) head -c 300000 /dev/zero | tr '\0' x >&2 ;;
half) head -c 100000 DIRECTORY/whole; echo "curl: (56) Recv failure: Connection reset by peer" >&2; exit 255 ;;
esac
if ! [ -r "DIRECTORY/$name" ]; then
    echo "curl: (22) The requested URL returned error: 404" >&2
    echo "Error copying" >&2
    exit 255
fi
$decompressor <"DIRECTORY/$name"
"""


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@dataclass(frozen=True)
class Installation:
    """The drivers in a remotes folder that has a downloader.sh; what that brings lies in `offered`."""

    world: World
    remotes: Path
    offered: Path

    def offer(self, name: str, content: bytes) -> None:
        (self.offered / name).write_bytes(content)

    @property
    def arguments(self) -> list[str]:
        return (self.offered / "arguments").read_text().splitlines()


@pytest.fixture
def installation(world: World, tmp_path: Path) -> Installation:
    return install(world, tmp_path)


def install(world: World, tmp_path: Path) -> Installation:
    """Put a world's drivers into a remotes folder."""
    remotes, offered = tmp_path / "remotes", tmp_path / "offered"
    offered.mkdir()
    for folder in ("datastore", "tm"):
        shutil.copytree(CHECKOUT / folder, remotes / folder)
    (remotes / "lib").symlink_to(CHECKOUT / "lib")
    downloader = remotes / "datastore" / "downloader.sh"
    downloader.write_text(DOWNLOADER.replace("DIRECTORY", str(offered)))
    downloader.chmod(0o755)
    world.cloud.scripts.remotes = remotes
    return Installation(world, remotes, offered)


def test_a_backup_of_a_whole_device_comes_back_into_a_volume_whose_device_is_as_long(
    installation: Installation,
) -> None:
    world = installation.world
    # In the box, as with LVM, the device of a volume of 4 MiB has nearly 8.
    for identifier, length in enumerate((6 * MIB, 9 * MIB + 512)):
        content = disk(1, length)
        installation.offer("whole", in_form(Path(world.file("disk", content)), "qcow2").read_bytes())
        succeeded(cp(world, "rsync://100//0:abc/whole", 4, identifier), f"{source(identifier)} raw\n")
        holds(world, f"one-image-{identifier}", content)


def test_no_backup_makes_a_volume_that_is_longer_than_rounding_explains(
    installation: Installation, tmp_path: Path
) -> None:
    # Whoever has a backup could have a volume of any length for a small SIZE, which is all that quotas count.
    world, long = installation.world, str(tmp_path / "long")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", long, "1G"], check=True)
    installation.offer("long", Path(long).read_bytes())
    succeeded(cp(world, "rsync://100//0:abc/long", 4), f"{source(7)} raw\n")
    assert world.sandbox.device_size("one-image-7") < 300 * MIB
    subprocess.run(["qemu-io", "-c", "write -P 7 900M 64k", long], check=True, stdout=subprocess.DEVNULL)
    installation.offer("long", Path(long).read_bytes())
    before = world.sandbox.snapshot_of_state()
    refused(cp(world, "rsync://100//0:abc/long", 4, 8), "has data up to")
    assert world.sandbox.snapshot_of_state() == before


@pytest.mark.parametrize("manner", ["whole", "moved", "chunked"])
def test_an_image_comes_over_http(manner: str, world: World, web: Web) -> None:
    content = disk(1, 5 * MIB + 99)
    web.files["disk.raw"] = content
    web.files["disk.gz"] = gzip.compress(content)
    qcow2 = in_form(Path(world.file("disk", content)), "qcow2")
    web.files["disk.qcow2"] = qcow2.read_bytes()
    expected = {"disk.raw": content, "disk.gz": content, "disk.qcow2": as_qemu_reads_it(qcow2, "qcow2")}
    for identifier, name in enumerate(expected):
        url = web.url(manner, name)
        succeeded(stat(world, url), "6\n")
        succeeded(cp(world, url, 6, identifier), f"{source(identifier)} raw\n")
        holds(world, f"one-image-{identifier}", expected[name])


def test_an_image_over_http_is_asked_for_once(world: World, web: Web) -> None:
    web.files["disk"] = noise(1, MIB)
    succeeded(cp(world, web.url("whole", "disk"), 1), f"{source(7)} raw\n")
    assert web.requests == ["/whole/disk"]


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize(("manner", "reason"), [("half", "is cut short"), ("broken", "broke off (IncompleteRead")])
def test_what_is_cut_short_over_http_leaves_nothing(
    form: str, manner: str, reason: str, world: World, web: Web
) -> None:
    # Longer than what is read before the volume is made.
    web.files["disk"] = in_form(Path(world.file("disk", noise(1, 12 * MIB))), form).read_bytes()
    refused(cp(world, web.url(manner, "disk"), 12), f"Image {web.url(manner, 'disk')} {reason}", "fetch it again")
    nothing_left(world)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("manner", ["silent", "stall"])
def test_a_server_that_says_nothing_more_is_given_up(
    manner: str, packed: bool, make_world: MakeWorld, web: Web
) -> None:
    world = make_world(configuration='SOURCE_TIMEOUT="1"\n')
    content = noise(1, 12 * MIB)
    web.files["disk"] = gzip.compress(content) if packed else content
    call = cp(world, web.url(manner, "disk"), 12)
    refused(call, f"Image {web.url(manner, 'disk')} has sent nothing for 1 s", "raise SOURCE_TIMEOUT")
    nothing_left(world)


@pytest.mark.parametrize("name", ["silent", "stalled"])
def test_a_downloader_that_says_nothing_more_is_given_up(name: str, make_world: MakeWorld, tmp_path: Path) -> None:
    installation = install(make_world(configuration='SOURCE_TIMEOUT="1"\n'), tmp_path)
    installation.offer(name, noise(1, MIB))
    for call in (stat(installation.world, f"s3://bucket/{name}"), cp(installation.world, f"s3://bucket/{name}", 1)):
        refused(call, f"Image s3://bucket/{name} has sent nothing for 1 s", "raise SOURCE_TIMEOUT")
    nothing_left(installation.world)


def test_a_server_of_backups_may_take_its_time_before_the_first_byte(make_world: MakeWorld, tmp_path: Path) -> None:
    installation = install(make_world(configuration='SOURCE_TIMEOUT="1"\n'), tmp_path)
    installation.offer("late", noise(1, MIB))
    succeeded(cp(installation.world, "rsync://100//0:abc,1:def/late", 1), f"{source(7)} raw\n")


def test_an_image_over_http_has_its_checksum_and_its_limits(world: World, web: Web) -> None:
    content = noise(1, MIB + 1)
    web.files["disk"] = content
    url = web.url("whole", "disk")
    refused(cp(world, url, 1), "does not fit into 1 MiB", "at least 2 MiB")
    refused(cp(world, url, 2, attributes={"MD5": "0" * 32}), "has MD5", "should have " + "0" * 32)
    nothing_left(world)
    succeeded(cp(world, url, 2, attributes={"SHA1": hashlib.sha1(content).hexdigest()}), f"{source(7)} raw\n")


def test_a_server_that_has_no_image_is_named(world: World, web: Web) -> None:
    cases = {
        web.url("status", "404"): "HTTP Error 404",
        web.url("status", "403"): "HTTP Error 403",
        web.url("status", "500"): "HTTP Error 500",
        web.url("circle", "disk"): "infinite loop",
        web.url("elsewhere", "disk"): "cannot be fetched",
        "http://127.0.0.1:1/disk": "Connection refused",
        "http://127.0.0.1:port/disk": "its host or port is not valid",
        "http://name.invalid/disk": "cannot be fetched",
    }
    for url, reason in cases.items():
        for call in (stat(world, url), cp(world, url, 1)):
            refused(call, f"Image {url} cannot be fetched", reason, "correct PATH")
    nothing_left(world)


@pytest.mark.parametrize("length", ["word", "-5", "1_0", "9" * 5000, ""])
def test_a_length_that_is_no_number_is_none(web: Web, length: str) -> None:
    web.files["disk"] = b"disk"
    image = sources.from_url(web.url(f"lengthy/{length}", "disk"), "", {}, {})
    assert (image.size_bytes, b"".join(image.blocks())) == (None, b"disk")
    image.close()


def test_what_only_the_downloader_can_fetch_needs_one(world: World) -> None:
    for url in ("s3://bucket/disk", "rbd://user@host/disk", "rsync://104//0:6a7238/disk"):
        for call in (stat(world, url), cp(world, url, 1)):
            refused(call, f"Image {hiding.url(url)} needs OpenNebula's downloader.sh for {url.partition(':')[0]}://")
    nothing_left(world)


def test_the_downloader_brings_every_kind_of_url(installation: Installation) -> None:
    urls = [
        "http://images.example.org/disk",
        "https://images.example.org/pool/disk?signature=a%2Fb&expires=$5;x=(1)'",
        "s3://bucket/folder/disk",
        "ssh://oneadmin@backup:/srv/images/disk",
        "rbd://user@host/one/one-0/disk",
        "rsync://104//0:6a7238/var/lib/one/datastores/0/10/backup/disk",
        "restic://100/1/0:25f4b298,1:6968545c//var/lib/one/datastores/0/0/backup/disk",
        "docker://ubuntu:22.04?size=2048&filesystem=ext4&format=raw/disk",
        "lxd://images.example.org/ubuntu/disk",
    ]
    content = disk(1, 2 * MIB + 1)
    for identifier, url in enumerate(urls):
        installation.offer(url.rpartition("/")[2], gzip.compress(content))
        call = cp(installation.world, url, 3, identifier)
        succeeded(call, f"{source(identifier)} raw\n")
        holds(installation.world, f"one-image-{identifier}", content)
        assert installation.arguments == ["--nodecomp", url, "-"]
        # What the downloader takes the market's credentials from: the action's XML as oned sent it.
        assert (installation.offered / "drv_action").read_text() == call.stdin
        assert base64.b64decode(call.stdin).startswith(b"<DS_DRIVER_ACTION_DATA>")


def test_the_downloader_and_what_it_starts_do_not_see_the_token(installation: Installation) -> None:
    world = installation.world
    world.images.attributes["LS_TOKEN"] = "a-word-]]>-that-is-secret"
    installation.offer("disk", b"disk")
    call = cp(world, "s3://bucket/disk", 1)
    succeeded(call, f"{source(7)} raw\n")
    seen = (installation.offered / "drv_action").read_text()
    assert "that-is-secret" in call.action_data
    assert "that-is-secret" not in base64.b64decode(seen).decode()
    action = decoding.parse(base64.b64decode(seen), "DS_DRIVER_ACTION_DATA")
    assert action.findtext("IMAGE/PATH") == "s3://bucket/disk"
    assert action.findtext("DATASTORE/TEMPLATE/STORAGE_POOL") == "data"


def test_oned_makes_an_image_of_what_the_downloader_brings(installation: Installation) -> None:
    world = installation.world
    content = disk(1, 3 * MIB - 5)
    installation.offer("disk", in_form(Path(world.file("raw", content)), "qcow2").read_bytes())
    image = world.cloud.create_image(world.images, "rsync://104//0:6a7238/disk")
    assert (image.size, image.format) == (3, "raw")
    holds(world, "one-image-0", content)


def test_no_decompress_and_limits_hold_for_the_downloader_too(installation: Installation) -> None:
    world = installation.world
    datastore = add_datastore(
        world, "as-is", 'STORAGE_POOL="data" REPLICA_COUNT="1" NO_DECOMPRESS="yes" LIMIT_TRANSFER_BW="1m"'
    )
    package = gzip.compress(noise(1, MIB))
    installation.offer("disk", package)
    right = {"MD5": hashlib.md5(package).hexdigest()}
    call = cp(world, "s3://bucket/disk", 2, datastore=datastore, attributes=right)
    succeeded(call, f"{source(7)} raw\n")
    holds(world, "one-image-7", package)
    assert call.seconds >= len(package) / MIB
    refused(cp(world, "s3://bucket/disk", 2, 8, datastore, {"SHA1": "0" * 40}), "has SHA1")


def test_what_the_downloader_cannot_fetch_is_told_in_its_words(installation: Installation) -> None:
    world = installation.world
    installation.offer("whole", noise(1, 200_000))
    for name, reason in {"absent": "error: 404 Error copying", "half": "Connection reset by peer"}.items():
        for url in (f"s3://bucket/{name}", f"rbd://host/{name}"):
            for call in (stat(world, url), cp(world, url, 1)):
                refused(call, f"Image {url} cannot be fetched", reason)
    nothing_left(world)


def test_nobody_reads_opennebulas_own_files_with_oneadmins_key(installation: Installation) -> None:
    for url in ("ssh://localhost:/var/lib/one/.one/one_auth", "ssh://node1:.one/one_auth"):
        for call in (stat(installation.world, url), cp(installation.world, url, 1)):
            refused(call, f"Image path {url} is not allowed")
    assert list(installation.offered.iterdir()) == []


def test_a_downloader_with_much_to_say_does_not_stop(installation: Installation) -> None:
    installation.offer("talkative", noise(1, MIB))
    succeeded(cp(installation.world, "s3://bucket/talkative", 1), f"{source(7)} raw\n")
    holds(installation.world, "one-image-7", noise(1, MIB))


def test_a_download_ends_with_everything_it_started_when_the_image_does_not_fit(installation: Installation) -> None:
    refused(cp(installation.world, "s3://bucket/endless", 8), "does not fit into 8 MiB")
    nothing_left(installation.world)
    assert not (installation.offered / "read-to-the-end").exists()


def test_nothing_in_a_url_reaches_a_shell(installation: Installation) -> None:
    urls = [
        "ssh://-oProxyCommand=touch:/disk",
        "ssh://host -oProxyCommand=id:/disk",
        "ssh://host&id:/disk",
        "ssh://$(id):/disk",
        "ssh://host:/disk;id",
        "ssh://host:/`id`",
        "lxd://host/$(id)",
        'docker://a"b',
        "s3://bucket/a b",
        "rbd://host/a'b",
        "restic://-r/disk",
        "http://host/a b",
        'http://host/"a"',
        "http://host/a`id`",
    ]
    world = installation.world
    for url in urls:
        refused(cp(world, url, 1), "is no plain ")
        refused(stat(world, url), "is no plain ")
    assert list(installation.offered.iterdir()) == []
    nothing_left(world)


class _Given:
    """A reader of given bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, size: int) -> bytes:
        block, self.content = self.content[:size], self.content[size:]
        return block

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("limit", "seconds"), [("500k", 16), ("1m", 7.8125), ("1G", 8000 / 2**20), ("100", 81920)])
def test_bytes_come_no_faster_than_the_limit(limit: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda length: now.__setitem__(0, now[0] + length))
    image = sources.ImageSource("disk", _Given(bytes(8000 * 1024)), None, {}, sources.bandwidth(limit), True)
    for _ in image.blocks():
        pass
    assert now[0] - 1000 == pytest.approx(seconds)


def test_the_length_that_was_promised_must_come() -> None:
    image = sources.ImageSource("disk", _Given(bytes(1000)), 1001, {}, 0, True)
    with pytest.raises(UnusableImage, match="disk is cut short: 1000 bytes came of 1001"):
        list(image.blocks())


@pytest.mark.parametrize("knows_holes", [True, False])
def test_holes_of_a_file_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows_holes: bool) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for position in (0, 15 * MIB + 3, 50 * MIB):
            file.seek(position)
            file.write(os.urandom(5000))
        file.truncate(70 * MIB + 7)
    was_read = []

    def pread(descriptor: int, size: int, position: int) -> bytes:
        block = bytearray(size)
        was_read.append(os.preadv(descriptor, [block], position))
        return bytes(block[: was_read[-1]])

    def lseek(descriptor: int, position: int, how: int) -> int:
        raise OSError(errno.EINVAL, "no holes here")

    expected = path.read_bytes()
    monkeypatch.setattr(os, "pread", pread)
    if not knows_holes:
        monkeypatch.setattr(os, "lseek", lseek)
    with closing(sources.from_file("disk", os.open(path, os.O_RDONLY), {})) as image:
        assert b"".join(image.blocks()) == expected
    assert sum(was_read) < 17 * MIB if knows_holes else sum(was_read) == len(expected)


def ahead_of(image: sources.ImageSource) -> list[int]:
    """Return where the data ends that comes for sure, as it is known behind each block; -1 where it is not."""
    ends, sent = [], 0
    for block in image.blocks():
        sent += len(block)
        ends.append(sent + image.sure_bytes if image.sure_bytes else -1)
    return ends


def test_it_is_known_how_much_comes_before_the_next_hole(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(os.urandom(10 * MIB))
        file.truncate(20 * MIB)
    with closing(sources.from_file("disk", os.open(path, os.O_RDONLY), {})) as image:
        ends = ahead_of(image)
    assert set(ends) == {10 * MIB, -1} and ends.index(-1) > 1


def test_it_is_known_how_much_comes_where_the_length_is() -> None:
    data = b"x" * (9 * MIB)
    *ends, last = ahead_of(sources.ImageSource("disk", _Given(data), len(data), {}, 0, True))
    assert set(ends) == {len(data)} and last == -1
    assert set(ahead_of(sources.ImageSource("disk", _Given(data), None, {}, 0, True))) == {-1}


def test_of_what_is_unpacked_the_length_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "packed.gz"
    path.write_bytes(gzip.compress(bytes(9 * MIB)))
    with closing(sources.from_file("disk", os.open(path, os.O_RDONLY), {})) as image:
        assert set(ahead_of(image)) == {-1}
