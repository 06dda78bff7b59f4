"""The stand-in oned without captures: releases, transfer scripts, XML-RPC, templates."""

from __future__ import annotations

import base64
import xmlrpc.client
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from linstor_sandbox.opennebula import Cloud, ImageState, Refused, Release
from linstor_sandbox.opennebula.registry import SESSION
from linstor_sandbox.opennebula.templates import parse, single, vectors
from tests.linstor_sandbox.opennebula.captured import StubDriver, write_script


def connect(uri: str) -> Any:
    """A client whose answers are not typed: they are whatever the server says."""
    return xmlrpc.client.ServerProxy(uri)


@pytest.mark.parametrize(
    ("release", "stdin_option", "form"),
    [
        ("5.12", False, "argv"),
        ("6.6", False, "argv"),
        ("6.6", True, "dash"),
        ("6.8", False, "stdin"),
        ("7.4", False, "stdin"),
    ],
)
def test_action_data_in_the_form_of_the_release(release: str, stdin_option: bool, form: str) -> None:
    expected = {"argv": (["QUJD", "7"], ""), "dash": (["-", "7"], "QUJD"), "stdin": (["7"], "QUJD")}
    assert Release.parse(release, stdin_option).action_arguments("QUJD", 7) == expected[form]


def test_a_word_is_no_release() -> None:
    with pytest.raises(ValueError, match="'newest' is not a release of OpenNebula"):
        Release.parse("newest")


NO_MARKS = "ERROR: rm: x\nINFO: y\nreason\n"
MARKS = "ERROR MESSAGE --8<------\nreason\nERROR MESSAGE ------>8--\n"


@pytest.mark.parametrize(
    ("release", "stderr", "shown"),
    [
        ("5.12", MARKS, "reason"),
        ("6.0.2", MARKS, "reason"),
        ("6.0.2", NO_MARKS, "-"),
        ("6.0.3", MARKS, "ERROR MESSAGE --8<------ reason ERROR MESSAGE ------>8--"),
        ("6.0.3", NO_MARKS, "ERROR: rm: x INFO: y reason"),
        ("6.10", "reason\n", "reason"),
        ("6.10", "", "-"),
        ("7.0", NO_MARKS, "reason"),
        ("7.4", "one\nWARN: 7 of it\ntwo\n", "onetwo"),
        ("7.4", "WARN: mv: of it\n", "-"),
    ],
)
def test_what_of_stderr_is_shown_as_the_reason(release: str, stderr: str, shown: str) -> None:
    assert Release.parse(release).reason(stderr) == shown


def test_what_a_release_does_not_have_is_refused(driver: StubDriver, tmp_path: Path) -> None:
    with Cloud(driver.remotes, tmp_path / "var", release="5.12") as cloud:
        template = 'NAME="s" TYPE="SYSTEM_DS" TM_MAD="linstor_un"'
        with pytest.raises(Refused, match=r"Invalid DISK_TYPE for a System Datastore\."):
            cloud.create_datastore(f'{template} DISK_TYPE="BLOCK"')
        system = cloud.create_datastore(template)
        vm = cloud.create_vm("DISK=[TYPE=fs,SIZE=4,FORMAT=qcow2]", system)
        assert vm.disk(0).attributes["FORMAT"] == "qcow2", "whatever its user asks for"
        with pytest.raises(Refused, match="one.vm.backup not found"):
            cloud.backup(vm, system)
        assert connect(cloud.rpc.uri).one.system.version(SESSION)[1] == "5.12.0"


def test_a_self_contained_one_has_its_datastores_below_its_folder(driver: StubDriver, tmp_path: Path) -> None:
    with Cloud(driver.remotes, tmp_path / "var", one_location="/srv/one") as cloud:
        assert cloud.scripts.environment["ONE_LOCATION"] == "/srv/one"
        found = cloud.create_datastore('NAME="s" TYPE="SYSTEM_DS" TM_MAD="linstor_un"')
        assert found.base_path == "/srv/one/var//datastores/100"


def test_old_releases_have_fstype_and_give_data_in_argv(driver: StubDriver, tmp_path: Path) -> None:
    stub = (driver.remotes / "datastore" / "linstor_un" / "mkfs").read_text(encoding="utf-8")
    write_script(driver.remotes / "datastore" / "linstor_un" / "mkfs", stub.replace("$1", "$2"))
    with Cloud(driver.remotes, tmp_path / "var", release="5.12") as cloud:
        images = cloud.create_datastore('NAME=i TYPE=IMAGE_DS DS_MAD=linstor_un TM_MAD=linstor_un DISK_TYPE="BLOCK"')
        image = cloud.create_datablock(images, 8, "ext4")
    call = cloud.calls[0]
    document = base64.b64decode(call.argv[0]).decode()
    assert call.argv[1:] == ["0"]
    assert call.stdin == ""
    assert "<FSTYPE><![CDATA[ext4]]></FSTYPE>" in document
    assert "<FORMAT>" not in document and "<MODTIME>" not in document
    assert image.source == "/dev/drbd/by-res/one-image-0/0"


def test_a_suffixed_verb_falls_back_to_the_plain_one(cloud: Cloud, driver: StubDriver) -> None:
    assert cloud.scripts.transfer_line("CLONE.ssh linstor_un a b 1 2").succeeded
    missing = cloud.scripts.transfer_line("RESCUE.ssh linstor_un a b 1 2")
    assert not missing.succeeded
    assert missing.stderr.endswith("rescue' exists")
    write_script(driver.remotes / "tm" / "linstor_un" / "clone.ssh", "#!/bin/sh\nexit 3\n")
    assert cloud.scripts.transfer_line("CLONE.ssh linstor_un a b 1 2").exit_code == 3


def test_a_transfer_line_is_split_at_blanks_and_nowhere_else(cloud: Cloud) -> None:
    call = cloud.scripts.transfer_line("LN linstor_un fe:/p;touch$IFS/tmp/x  'h:/d 1 2")
    assert call.argv == ["fe:/p;touch$IFS/tmp/x", "'h:/d", "1", "2"]


def test_scripts_have_the_environment_of_oned(cloud: Cloud, driver: StubDriver) -> None:
    write_script(driver.remotes / "tm" / "linstor_un" / "resize", "#!/bin/sh\nenv; pwd\n")
    printed = cloud.scripts.transfer_line("RESIZE linstor_un h:/d 1 2 3").stdout.splitlines()
    assert f"HOME={cloud.var}" in printed
    assert printed[-1] == str(cloud.var)
    assert not [line for line in printed if line.startswith(("DRV_ACTION", "ONE_LOCATION", "ONE_AUTH"))]
    assert (cloud.var / ".one" / "one_auth").read_text(encoding="utf-8").strip() == SESSION


def test_xmlrpc_answers_in_the_shape_of_oned(cloud: Cloud) -> None:
    oned = connect((cloud.var / ".one" / "one_endpoint").read_text(encoding="utf-8").strip())
    vm = cloud.create_vm("DISK=[TYPE=swap,SIZE=4]", cloud.datastore(101))
    assert oned.one.vm.info(SESSION, vm.identifier) == [True, vm.xml(), 0]
    succeeded, message, code = oned.one.vm.info(SESSION, 99)[:3]
    assert (succeeded, message, code) == (False, "[one.vm.info] Error getting virtual machine [99].", 0x400)
    assert oned.one.datastore.info("someone:else", 100)[0] is False
    assert "<NAME>kvm2</NAME>" in str(oned.one.hostpool.info(SESSION))


def test_multicall_carries_several_answers_in_one_request(cloud: Cloud) -> None:
    oned = connect(cloud.rpc.uri)
    calls = [
        {"methodName": "one.datastore.info", "params": [SESSION, 100, True]},
        {"methodName": "one.nothing", "params": [SESSION]},
    ]
    found, unknown = oned.system.multicall(calls)
    assert found[0][0] is True
    assert "faultCode" in unknown
    assert cloud.rpc.http_requests == 1
    cloud.rpc.multicall_allowed = False
    with pytest.raises(xmlrpc.client.Fault, match="multicall"):
        oned.system.multicall(calls)


def test_secret_attributes_need_decrypt(driver: StubDriver, tmp_path: Path) -> None:
    with Cloud(driver.remotes, tmp_path / "var", encrypted=frozenset({"LS_TOKEN"})) as cloud:
        datastore = cloud.create_datastore('NAME=i DS_MAD=linstor_un TM_MAD=linstor_un LS_TOKEN="hush"')
        oned = connect(cloud.rpc.uri)
        assert "hush" in str(oned.one.datastore.info(SESSION, datastore.identifier, True))
        assert "hush" not in str(oned.one.datastore.info(SESSION, datastore.identifier))


def test_parallel_instantiation_numbers_every_vm(cloud: Cloud) -> None:
    image = cloud.create_datablock(cloud.datastore(100), 8)
    template = f"DISK=[IMAGE_ID={image.identifier}]"
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(cloud.instantiate, template, "kvm1", cloud.datastore(101)) for _ in range(8)]
        machines = [run.result() for run in runs]
    assert sorted(vm.identifier for vm in machines) == list(range(8))
    assert sorted(image.vms) == list(range(8))


def test_templates_have_quotes_vectors_and_repeated_names() -> None:
    text = '# a comment\nNAME="a \\"b\\"" DISK=[A=1,B="x ]"]\nDISK = [ C = 3 ] CPU=0.1'
    assert single(parse(text)) == {"NAME": 'a "b"', "CPU": "0.1"}
    assert vectors(parse(text), "DISK") == [{"A": "1", "B": "x ]"}, {"C": "3"}]


@pytest.mark.parametrize("text", ["NAME", "DISK=[A=1", "=3"])
def test_a_broken_template_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="cannot parse the template"):
        parse(text)


def test_the_two_datastores_of_the_article_get_what_oned_copies(cloud: Cloud) -> None:
    system = cloud.create_datastore(
        'NAME="linstor-system" TYPE="SYSTEM_DS" STORAGE_POOL="data" AUTO_PLACE="2" CLONE_MODE="snapshot" '
        'CHECKPOINT_AUTO_PLACE="1" BRIDGE_LIST="node1 node2 node3" TM_MAD="linstor_un"'
    )
    assert system.attributes["SHARED"] == "YES"
    assert system.attributes["AUTO_PLACE"] == "2"
    assert "LN_TARGET" not in system.attributes
    with pytest.raises(Refused, match="already taken"):
        cloud.create_datastore('NAME="linstor-system" TYPE="SYSTEM_DS" TM_MAD="linstor_un"')


def test_an_image_is_not_deleted_while_it_is_cloned_nor_used_while_it_is_deleted(
    cloud: Cloud, driver: StubDriver
) -> None:
    image = cloud.create_datablock(cloud.datastores[0], 8)
    image.begin_cloning()
    with pytest.raises(Refused, match="its state is CLONE"):
        cloud.delete_image(image)
    with pytest.raises(Refused, match="its state is CLONE"):
        cloud.create_vm(f"DISK=[TYPE=swap,SIZE=4] DISK=[IMAGE_ID={image.identifier}]", cloud.datastores[1])
    assert cloud.machines == [], "a VM that is refused does not exist"
    image.end_cloning()
    image.become(ImageState.DELETE)
    with pytest.raises(Refused, match="Cannot clone image in state: DELETE"):
        cloud.clone_image(image)


def test_a_refused_vm_gives_back_the_images_that_it_had_taken(cloud: Cloud, driver: StubDriver) -> None:
    free, taken = (cloud.create_datablock(cloud.datastores[0], 8, persistent=True) for _ in range(2))
    cloud.use_image(taken, 99)
    with pytest.raises(Refused):
        cloud.create_vm(f"DISK=[IMAGE_ID={free.identifier}] DISK=[IMAGE_ID={taken.identifier}]", cloud.datastores[1])
    assert free.state == ImageState.READY
