"""check: on a healthy front-end it says so; each of many faults is named, with its remedy, and no other."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.opennebula import Cloud
from linstor_un.cli.installation.oned_conf import TM_MAD_CONF
from linstor_un.cli.installation.oned_syntax import attributes
from linstor_un.cli.verbs import command
from tests.conftest import CHECKOUT
from tests.linstor_un.cli.faults import FAULTS, Fault, Place, datastores, mixed, offline
from tests.linstor_un.cli.trees import Tree

NODES = ("node1", "node2")
# One is enough for all that can be wrong with hosts, and costs half.
HOSTS = ("node2",)
PROGRAMS = ("genisoimage", "gzip", "bzip2", "xz", "zstd", "sh")
SYSTEM = 'NAME="system" TYPE="SYSTEM_DS" STORAGE_POOL="data" AUTO_PLACE="2" TM_MAD="linstor_un"'
IMAGES = (
    'NAME="images" TYPE="IMAGE_DS" STORAGE_POOL="data" AUTO_PLACE="2" DISK_TYPE="BLOCK" BRIDGE_LIST="node1" '
    'DS_MAD="linstor_un" TM_MAD="linstor_un"'
)
POOLS = (Pool("data", "LVM_THIN", 20480), Pool("thick", "LVM", 20480))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Return a front-end that was installed by `install`, and on which nothing is wrong."""
    folder = tmp_path_factory.mktemp("check")
    tree = Tree(folder / "one", packages=True)
    tree.done("install", "--yes")
    programs, locks = folder / "programs", folder / "locks"
    programs.mkdir()
    locks.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to("/bin/true")
    (programs / "openssl").symlink_to(shutil.which("openssl") or "/nowhere")
    stanza = {pair.name: pair.value for pair in attributes(TM_MAD_CONF)[0].pairs}
    with pytest.MonkeyPatch.context() as patch, Sandbox(folder / "sandbox", nodes=NODES, pools=POOLS) as sandbox:
        (programs / "ssh").symlink_to(sandbox.root / "bin/ssh")
        sandbox.cluster.props["DrbdOptions/Resource/on-no-quorum"] = "suspend-io"
        tree.configuration.write_text(
            f'LOCK_DIR="{locks}"\nLS_CONTROLLERS="{sandbox.uri}"\nCONNECT_TIMEOUT="1"\nSSH_CONNECT_TIMEOUT="1"\n'
        )
        with Cloud(
            tree.remotes,
            folder / "oned",
            hosts=HOSTS,
            environment={**os.environ, **sandbox.environment()},
            tm_mad_conf=stanza,
            configuration=tree.oned_conf.read_text(),
        ) as cloud:
            system, images = (cloud.create_datastore(template) for template in (SYSTEM, IMAGES))
            cloud.create_datablock(images, 8)
            cloud.monitor(system)
            cloud.monitor(images)
            patch.setenv("HOME", str(cloud.var))
            patch.setenv("PATH", str(programs))
            for name in ("ONE_AUTH", "ONE_XMLRPC", "ONE_LOCATION", "LS_CONTROLLERS"):
                patch.delenv(name, raising=False)
            yield Place(tree, sandbox, cloud, system, images, programs, folder)
        assert sandbox.exceptions == [], "the sandbox itself has failed"


def findings(place: Place) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(command, ["check", "--json", "--root", str(place.tree.folder)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def healthy(place: Place) -> bool:
    return findings(place) == (0, [])


def test_on_a_healthy_front_end_nothing_is_found(place: Place) -> None:
    before = (place.tree.content(), place.sandbox.snapshot_of_state())
    said = place.tree.done("check")
    assert said == "Nothing is wrong: OpenNebula 7.4.0, LINSTOR 1.33.3, 1 host, 2 datastores.\n"
    assert place.tree.done("check", "--quiet") == ""
    assert healthy(place)
    assert (place.tree.content(), place.sandbox.snapshot_of_state()) == before


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.title for fault in FAULTS])
def test_a_fault_is_named_and_no_other(place: Place, fault: Fault) -> None:
    with fault.plant(place):
        status, found = findings(place)
    assert [(finding["code"], finding["what"]) for finding in found] == [
        (fault.code, found[0]["what"] if found else "")
    ]
    assert fault.says in found[0]["what"]
    assert found[0]["remedy"]
    assert status == (3 if found[0]["severity"] == "error" else 0)


def test_a_system_datastore_of_another_driver_will_do(place: Place) -> None:
    with mixed(place):
        assert healthy(place)
        with datastores("images")(place):
            assert healthy(place)


def test_every_fault_was_taken_back(place: Place) -> None:
    assert healthy(place)


def codes() -> set[str]:
    """Return the names of all findings, as they stand in the checks."""
    found = set()
    for path in (CHECKOUT / "lib/linstor_un/cli/checks").glob("*.py"):
        found |= set(
            re.findall(r'\b(?:error|warning|of_failure|_enough)\(\s*(?:wanted, \w+, )?"([a-z-]+)"', path.read_text())
        )
    return found


def test_every_finding_has_been_seen_and_is_explained() -> None:
    text = (CHECKOUT / "docs" / "check.md").read_text()
    explained = re.findall(r"^### ([a-z-]+)$", text, re.MULTILINE)
    assert sorted(explained) == sorted(set(explained))
    planted = {fault.code for fault in FAULTS}
    # Two names are made of the stanza's.
    named = codes() | {"tm-mad-conf", "ds-mad-conf", "too-few-nodes", "checkpoint-replicas"}
    assert planted == named
    assert set(explained) == named


def test_what_is_found_can_be_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with offline(place):
        result = place.tree.run("check")
    assert result.exit_code == 3
    assert result.output.startswith(
        "error: Node node2 is OFFLINE: its replicas fall behind, and no VM can start there.\n"
    )
    assert (
        "\n  Start linstor-satellite on node2, and see `linstor node list`.\n  docs/check.md#node-offline\n"
        in result.output
    )
    assert result.output.endswith("1 error and 0 warnings: OpenNebula 7.4.0, LINSTOR 1.33.3, 1 host, 2 datastores.\n")
    with offline(place):
        rows = list(csv.reader(io.StringIO(place.tree.run("check", "--csv").stdout)))
    assert rows[0] == ["severity", "code", "what", "remedy", "documentation"]
    assert rows[1][:2] == ["error", "node-offline"] and len(rows) == 2


def test_what_depends_on_a_fault_is_not_looked_at_and_said(place: Place) -> None:
    (place.cloud.var / ".one/one_auth").rename(place.folder / "auth")
    configuration = place.tree.configuration.read_text()
    try:
        place.tree.configuration.write_text(re.sub("LS_CONTROLLERS.*\n", "", configuration))
        result = place.tree.run("check")
    finally:
        place.tree.configuration.write_text(configuration)
        (place.folder / "auth").rename(place.cloud.var / ".one/one_auth")
    assert "The credentials for oned cannot be read" in result.output
    assert "LINSTOR and hosts were not looked at" in result.output


def test_the_installed_command_checks_itself(place: Place) -> None:
    done = subprocess.run(
        [str(place.tree.commands / "linstor-un"), "check", "--root", str(place.tree.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout[:17], done.stderr) == (0, "Nothing is wrong:", "")


def test_a_bare_opennebula_is_told_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_XMLRPC", "http://127.0.0.1:1/RPC2")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".one").mkdir()
    (tmp_path / ".one/one_auth").write_text("oneadmin:x")
    monkeypatch.setenv("ONE_LOCATION", "")
    result = Tree(tmp_path / "one").run("check", "--json")
    found = [finding["code"] for finding in json.loads(result.stdout)]
    assert (found[0], "datastore-location" in found) == ("not-installed", False)
