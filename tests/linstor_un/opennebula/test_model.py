"""OpenNebula's objects as its XML describes them, release by release."""

from __future__ import annotations

from typing import Optional
from xml.sax.saxutils import escape

import pytest
from lxml import etree

from linstor_un.errors import InvalidInput
from linstor_un.opennebula import model


def element(name: str, **texts: Optional[str]) -> str:
    """Return an element with these children."""
    children = "".join(f"<{key}>{escape(text)}</{key}>" for key, text in texts.items() if text is not None)
    return f"<{name}>{children}</{name}>"


def image(template: str = "", **texts: Optional[str]) -> model.Image:
    """Return the image of an action."""
    content = element("IMAGE", **{"ID": "7", **texts}).replace("</IMAGE>", f"<TEMPLATE>{template}</TEMPLATE></IMAGE>")
    return model.action_image(etree.fromstring(f"<DS_DRIVER_ACTION_DATA>{content}</DS_DRIVER_ACTION_DATA>"))


def disk(**texts: Optional[str]) -> model.Disk:
    """Return the one disk of a VM."""
    content = element("DISK", **{"DISK_ID": "0", **texts})
    vm = model.virtual_machine(etree.fromstring(f"<VM><ID>1</ID><TEMPLATE>{content}</TEMPLATE></VM>"))
    assert len(vm.disks) == 1
    return vm.disks[0]


def test_an_image_is_read() -> None:
    read = image(
        "<MD5>D41D8CD98F</MD5><SHA1> DA39 </SHA1>",
        PATH=" /var/tmp/a b.raw\n",
        SOURCE="/dev/drbd/by-res/one-image-7/0",
        SIZE="64",
        FORMAT="raw",
        FS="ext4",
        REGTIME="1700000000",
    )
    assert read == model.Image(
        image_id=7,
        path="/var/tmp/a b.raw",
        source="/dev/drbd/by-res/one-image-7/0",
        size_mib=64,
        file_system="ext4",
        is_save_as=False,
        checksums={"MD5": "d41d8cd98f", "SHA1": "da39"},
        registered=1700000000,
    )


def test_an_image_has_little_that_it_must_have() -> None:
    read = image()
    assert (read.image_id, read.size_mib, read.path, read.source, read.file_system) == (7, 0, "", "", "")
    assert (read.is_save_as, read.checksums, read.registered) == (False, {}, 0)


@pytest.mark.parametrize(
    ("texts", "file_system", "is_save_as"),
    [
        ({"FORMAT": "raw", "FS": "ext4"}, "ext4", False),
        ({"FORMAT": "raw", "FS": ""}, "", False),
        ({"FORMAT": "save_as", "FS": ""}, "", True),
        ({"FSTYPE": "ext3"}, "ext3", False),
        ({"FSTYPE": "raw"}, "", False),
        ({"FSTYPE": "save_as"}, "", True),
        ({"FORMAT": "", "FS": "", "FSTYPE": ""}, "", False),
    ],
)
def test_the_file_system_stands_where_the_release_puts_it(
    texts: dict[str, str], file_system: str, is_save_as: bool
) -> None:
    read = image(**texts)
    assert (read.file_system, read.is_save_as) == (file_system, is_save_as)


def test_an_image_that_is_only_looked_at_has_no_id() -> None:
    tree = etree.fromstring("<A><IMAGE><PATH>/x</PATH><SIZE></SIZE></IMAGE></A>")
    assert model.action_image(tree, with_id=False).path == "/x"
    with pytest.raises(InvalidInput, match="<ID> is missing"):
        model.action_image(tree)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"ID": ""}, "<ID> is missing"),
        ({"ID": "-7"}, "<ID> is -7"),
        ({"ID": "x"}, "<ID> is 'x'"),
        ({"SIZE": "-1"}, "<IMAGE/SIZE> is -1 MiB and must be from 1"),
        ({"SIZE": str((1 << 30) + 1)}, r"1 PiB"),
        ({"SIZE": "1.5"}, "<SIZE> is '1.5'"),
        ({"REGTIME": "now"}, "<REGTIME> is 'now'"),
    ],
)
def test_an_image_that_makes_no_sense_is_refused(texts: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        image(**texts)


@pytest.mark.parametrize("name", ["IMAGE", "DATASTORE"])
def test_a_missing_element_is_named(name: str) -> None:
    tree = etree.fromstring("<DS_DRIVER_ACTION_DATA/>")
    with pytest.raises(InvalidInput, match=f"<{name}> is missing"):
        model.action_image(tree) if name == "IMAGE" else model.action_datastore(tree)


def test_a_datastore_is_read_with_its_single_attributes() -> None:
    tree = etree.fromstring(
        "<DATASTORE><ID>100</ID><NAME>a b</NAME><TM_MAD>linstor_un</TM_MAD><TEMPLATE><A> 1 </A><B/><!-- x -->"
        "<C><D>2</D></C><A2><![CDATA[<&>]]></A2></TEMPLATE></DATASTORE>"
    )
    assert model.datastore(tree) == model.Datastore(100, "a b", "linstor_un", {"A": "1", "B": "", "A2": "<&>"})
    assert model.datastore(tree).label == "datastore 100 (a b)"


def test_a_datastore_without_a_template_has_no_attributes() -> None:
    assert model.datastore(etree.fromstring("<DATASTORE><ID>1</ID></DATASTORE>")).attributes == {}


PERSISTENT = {"IMAGE_ID": "1", "CLONE": "NO", "READONLY": "NO", "TYPE": "BLOCK", "SOURCE": "/dev/x"}


@pytest.mark.parametrize(
    ("texts", "is_volatile", "is_image", "is_shared"),
    [
        ({"TYPE": "fs", "SIZE": "16"}, True, False, False),
        ({"TYPE": "swap", "SIZE": "16"}, True, False, False),
        ({"TYPE": "fs", "SAVE": "YES", "CLONE": "NO", "SOURCE": "/etc/passwd"}, True, False, False),
        ({"IMAGE_ID": "1", "CLONE": "YES"}, False, False, False),
        ({"IMAGE_ID": "0", "CLONE": "YES"}, False, False, False),
        ({"IMAGE_ID": "1"}, False, False, False),
        (PERSISTENT, False, True, False),
        ({**PERSISTENT, "TYPE": "CDROM"}, False, True, True),
        ({**PERSISTENT, "TYPE": "BLOCK_CDROM"}, False, True, True),
        ({**PERSISTENT, "READONLY": "YES"}, False, True, True),
        ({**PERSISTENT, "SHAREABLE": "YES"}, False, True, True),
        ({"IMAGE_ID": "1", "CLONE": "YES", "READONLY": "YES"}, False, False, False),
    ],
)
def test_a_disk_is_told_by_whose_volume_it_is(
    texts: dict[str, str], is_volatile: bool, is_image: bool, is_shared: bool
) -> None:
    read = disk(**texts)
    assert (read.is_volatile, read.is_image, read.is_shared) == (is_volatile, is_image, is_shared)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"DISK_ID": None}, "<DISK_ID> is missing"),
        ({"DISK_ID": "-1"}, "<DISK_ID> is -1"),
        ({"SIZE": "-1"}, "<DISK/SIZE> is -1 MiB"),
        ({"ORIGINAL_SIZE": "-1"}, "<DISK/ORIGINAL_SIZE> is -1 MiB"),
        ({"IMAGE_ID": "x"}, "<IMAGE_ID> is 'x'"),
    ],
)
def test_a_disk_that_makes_no_sense_is_refused(texts: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        disk(**texts)


def test_a_vm_is_read_with_its_disks_and_its_history() -> None:
    vm = model.virtual_machine(
        etree.fromstring(
            "<VM><ID>12</ID><STATE>3</STATE><LCM_STATE>8</LCM_STATE><TEMPLATE><MEMORY>64</MEMORY>"
            "<DISK><DISK_ID>2</DISK_ID></DISK><DISK><DISK_ID>0</DISK_ID></DISK><CONTEXT><DISK_ID>1</DISK_ID></CONTEXT>"
            "</TEMPLATE><HISTORY_RECORDS><HISTORY><HOSTNAME>node1</HOSTNAME><DS_ID>100</DS_ID></HISTORY>"
            "<HISTORY><HOSTNAME>node2</HOSTNAME><DS_ID>101</DS_ID></HISTORY></HISTORY_RECORDS></VM>"
        )
    )
    assert (vm.vm_id, vm.state, vm.lifecycle_state, vm.hostnames) == (12, 3, 8, ("node1", "node2"))
    assert [found.disk_id for found in vm.disks] == [2, 0]
    found = vm.disk(0)
    assert found is not None and found.disk_id == 0
    assert vm.disk(1) is None, "the context is no disk with a volume"


def test_a_vm_that_never_ran_has_no_history() -> None:
    vm = model.virtual_machine(etree.fromstring("<VM><ID>12</ID><HISTORY_RECORDS/></VM>"))
    assert (vm.hostnames, vm.disks, vm.state, vm.lifecycle_state) == ((), (), 0, 0)
