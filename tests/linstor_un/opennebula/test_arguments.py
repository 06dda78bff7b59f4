"""The arguments of transfer actions: what is taken is exactly what it says, all else is refused."""

from __future__ import annotations

import posixpath
import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from linstor_un.errors import InvalidInput
from linstor_un.opennebula import arguments

HOSTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)
IDS = st.integers(0, 10**10 - 1)
FOLDER = st.text(st.sampled_from(string.ascii_letters + string.digits + "_.+@-"), min_size=1)
FOLDERS = st.lists(FOLDER.filter(lambda name: set(name) != {"."}), max_size=4)
SLASHES = st.sampled_from(["/", "//", "/./"])


@given(HOSTS, FOLDERS, IDS, IDS, st.integers(0, 999_999), SLASHES)
def test_a_disks_place_is_read_whatever_the_location(
    host: str, folders: list[str], datastore: int, vm_id: int, disk_id: int, slash: str
) -> None:
    path = slash + slash.join([*folders, str(datastore), str(vm_id), f"disk.{disk_id}"])
    place = arguments.disk_place(f"{host}:{path}", vm_id)
    assert (place.host, place.datastore_id, place.vm_id, place.disk_id) == (host, datastore, vm_id, disk_id)
    assert place.path == posixpath.join("/", *folders, str(datastore), str(vm_id), f"disk.{disk_id}")
    assert place.path == f"{place.directory}/disk.{disk_id}"


@given(HOSTS, FOLDERS, IDS, IDS)
def test_a_directorys_place_is_read_and_is_no_disk(host: str, folders: list[str], datastore: int, vm_id: int) -> None:
    argument = f"{host}:{posixpath.join('/', *folders, str(datastore), str(vm_id))}"
    place = arguments.place(argument, vm_id)
    assert not place.is_disk
    assert place.path == place.directory
    with pytest.raises(InvalidInput, match="must end in disk"):
        arguments.disk_place(argument, vm_id)


@given(st.text())
def test_whatever_is_taken_for_a_place_is_safe(argument: str) -> None:
    try:
        place = arguments.place(argument, 7)
    except InvalidInput:
        return
    assert_safe(place)


@given(
    st.from_regex(
        r"[A-Za-z0-9.:$;`|&'\"-]{0,9}:[/A-Za-z0-9.$;`|&\n-]{0,12}/[0-9]{1,3}/7(/disk\.[0-9])?", fullmatch=True
    )
)
def test_what_looks_like_a_place_and_is_taken_is_safe(argument: str) -> None:
    try:
        place = arguments.place(argument, 7)
    except InvalidInput:
        return
    assert_safe(place)


def assert_safe(place: arguments.Place) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", place.host)
    assert re.fullmatch(r"(/[A-Za-z0-9_.+@-]+)+", place.path)
    assert ".." not in place.path.split("/")
    assert place.directory.endswith(f"/{place.datastore_id}/7") or place.directory.split("/")[-1].lstrip("0") == "7"
    assert place.path.startswith(place.directory)


@given(IDS, IDS)
def test_another_vms_path_is_refused(mine: int, other: int) -> None:
    assume(mine != other)
    with pytest.raises(InvalidInput, match=f"is not a path of VM {mine}"):
        arguments.place(f"node1:/var/lib/one/datastores/100/{other}/disk.0", mine)


@pytest.mark.parametrize(
    "argument",
    [
        "node1",
        "node1:",
        ":/var/lib/one/datastores/100/7",
        "node1:100/7",
        "node1:/100/../100/7",
        "node1:/a/100/7/..",
        "node1:/a/100/7/disk.0/../disk.1",
        "node1:/7",
        "node1:/a/100/7/disk.",
        "node1:/a/100/7/disk.-1",
        "node1:/a/100/7/disk.1234567",
        "node1:/a/100/7/disk.0/x",
        "node1:/a/100/7/deployment.0",
        "node1:/a/100/7/disk.0\n",
        "node1:/a b/100/7/disk.0",
        "node1:/\u00e9/100/7/disk.0",
        "node1:/a/\u0661\u0660/7",
        "-oProxyCommand=x:/a/100/7",
        "one@node1:/a/100/7",
        "[::1]:/a/100/7",
        "node1:/" + "1" * 5000 + "/7",
        "node1:/100/" + "7" * 5000,
    ],
)
def test_what_is_no_place_is_refused(argument: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        arguments.place(argument, 7)
    assert len(str(refusal.value)) < 400


@given(st.text(max_size=30))
def test_an_id_is_digits_and_nothing_else(text: str) -> None:
    if re.fullmatch("[0-9]{1,10}", text):
        assert arguments.identifier(text, "VMID") == int(text)
    else:
        with pytest.raises(InvalidInput, match="^VMID is .* must be a number$"):
            arguments.identifier(text, "VMID")


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("1024", 1024), (str(1 << 30), 1 << 30), ("007", 7)])
def test_a_size_is_a_number_of_mib(text: str, size: int) -> None:
    assert arguments.size_mib(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1G", " 1", "1\n", "\u0661", str((1 << 30) + 1), str(1 << 63)])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="must be a number of MiB from 1 to 1073741824"):
        arguments.size_mib(text)


@pytest.mark.parametrize(
    ("argument", "source"),
    [
        ("onefe:/dev/drbd/by-res/one-image-16/0", "/dev/drbd/by-res/one-image-16/0"),
        ("one.example.org:/dev/vg/one-image-16_00000", "/dev/vg/one-image-16_00000"),
        ("/dev/drbd/by-res/one-image-16/0", "/dev/drbd/by-res/one-image-16/0"),
        ("OpenNebula-Image-3", "OpenNebula-Image-3"),
        ("onefe:OpenNebula-Image-3", "OpenNebula-Image-3"),
        ("onefe:/dev/a:b", "/dev/a:b"),
        ("/dev/a:b", "/dev/a:b"),
    ],
)
def test_a_source_comes_with_the_front_ends_name_or_bare(argument: str, source: str) -> None:
    assert arguments.source(argument) == source


def test_the_number_of_arguments_is_part_of_the_contract() -> None:
    arguments.expect(("a", "b"), "HOST:PATH", "VMID")
    with pytest.raises(InvalidInput, match=r"takes 2 arguments \(HOST:PATH VMID\) and got 3 \(a b c\)"):
        arguments.expect(("a", "b", "c"), "HOST:PATH", "VMID")
    with pytest.raises(InvalidInput) as refusal:
        arguments.expect(("x" * 5000,), "HOST:PATH", "VMID")
    assert len(str(refusal.value)) < 400
