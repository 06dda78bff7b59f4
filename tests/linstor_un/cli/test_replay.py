"""replay: an action's call is read from logs, shown without secrets, and rehearsed without changing anything."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from linstor_un import recording
from linstor_un.cli.output import DRY_RUN
from linstor_un.cli.verbs import command
from tests.linstor_un.bench import SECRETS, SYSDIR, TOKEN, Bench, bench, document
from tests.linstor_un.cli.trees import Tree
from tests.linstor_un.test_house import IMAGE_CALLS, TRANSFER_CALLS

HEAD = "Nov 22 21:00:01 onefe linstor_un[4711]: INFO: "
# What an action writes to the system log, where a file stands for that.
WITNESS = """
import sys
def note(event, arguments):
    if event == "syslog.syslog":
        with open({log!r}, "a", encoding="utf-8") as file:
            print("Nov 22 21:00:01 onefe linstor_un[4711]:", arguments[1], file=file)
sys.addaudithook(note)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Return a cluster with images and VMs, oned, and the front-end's files."""
    folder = tmp_path_factory.mktemp("replay")
    Tree(folder / "one")
    with pytest.MonkeyPatch.context() as patch, bench(folder) as made:
        made.image("plain.raw", b"x" * 4096)
        made.cloud.poweroff(made.machine)
        made.machine.place("node2", 1, made.system)
        environment = made.cloud.scripts.environment
        for name in ("HOME", "PATH", "LINSTOR_UN_CONF", "LS_CONTROLLERS"):
            patch.setenv(name, environment[name])
        for name in ("ONE_AUTH", "ONE_XMLRPC", "ONE_LOCATION"):
            patch.delenv(name, raising=False)
        yield made


def logged(kind: str, verb: str, arguments: list[str], standard_input: bytes = b"") -> str:
    lines = recording.lines(arguments, standard_input)
    return "".join(f"{HEAD}{kind}/{verb}: {line}\n" for line in lines)


def replay(text: str, *options: str) -> Result:
    return CliRunner().invoke(command, ["replay", *options, "-"], input=text)


def rehearse(place: Bench, text: str) -> list[tuple[str, str]]:
    """Return the steps of the last call in a log, which must have changed nothing."""
    before = place.state()
    result = replay(text, "--dry-run", "--json", "--root", str(place.folder / "one"))
    assert result.exit_code == 0, result.output
    assert place.state() == before
    return [(step["kind"], step["what"]) for step in json.loads(result.stdout)]


def image_call(place: Bench, verb: str, **changes: str) -> str:
    xml = document({**IMAGE_CALLS[verb], **changes}, image_xml="" if verb == "monitor" else None)
    filled = place.filled(xml.decode()).replace(TOKEN, "").encode()
    return logged("datastore", verb, ["101" if verb == "monitor" else "7"], base64.b64encode(filled))


def test_what_an_action_leaves_in_the_log_shows_its_call_without_secrets(place: Bench, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "sitecustomize.py").write_text(WITNESS.format(log=str(log)))
    xml = place.filled(document({"PATH": "@IMAGES@/plain.raw", "NAME": "<&>"}).decode()).encode()
    done = subprocess.run(
        [str(place.cloud.scripts.remotes / "datastore/linstor_un/stat"), "7"],
        input=base64.b64encode(xml),
        env={**place.cloud.scripts.environment, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    result = CliRunner().invoke(command, ["replay", str(log)])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[:3] == ["1. datastore/stat 7", "   Nov 22 21:00:01", "   <DS_DRIVER_ACTION_DATA>"]
    assert f"    <PATH>{place.images_folder}/plain.raw</PATH>" in "\n".join(lines)
    assert "<LS_TOKEN>(hidden)</LS_TOKEN>" in result.output
    assert not any(secret in result.output or secret in log.read_text() for secret in SECRETS)


def test_calls_between_other_lines_are_all_found(place: Bench) -> None:
    several = logged("datastore", "cp", ["7"], base64.b64encode(noise()))
    assert several.count("\n") > 2
    mixed = []
    for number, line in enumerate(several.splitlines()):
        mixed += [line, f"{HEAD}datastore/cp: made one-image-7", line_of_another(number)]
    text = "\n".join(["-- Boot 1 --", logged("tm", "mv", ["node1:/a b", "", "9"]).strip(), *mixed])
    rows = json.loads(replay(text, "--json").stdout)
    assert [(row["action"], row["arguments"]) for row in rows] == [
        ("tm/mv", "'node1:/a b' '' 9"),
        *[("tm/ln", str(number)) for number in range(several.count("\n") - 1)],
        ("datastore/cp", "7"),
        ("tm/ln", str(several.count("\n") - 1)),
    ]
    assert rows[-2]["xml"].strip() == noise().decode()
    assert json.loads(replay(text, "--json", "--number", "1").stdout) == rows[:1]
    assert json.loads(replay(text, "--json", "--number", "-2").stdout) == rows[-2:-1]


def noise() -> bytes:
    import random

    return b"<VM>" + random.Random(7).randbytes(12000).hex().encode() + b"</VM>"


def line_of_another(number: int) -> str:
    return logged("tm", "ln", [str(number)]).strip().replace("4711", "4712")


def test_a_call_that_the_log_does_not_hold_whole_is_left_out(place: Bench) -> None:
    whole = logged("datastore", "cp", ["7"], base64.b64encode(noise())).splitlines()
    text = "\n".join([*whole[:-1], logged("tm", "ln", ["1"]).strip(), *whole[1:]])
    assert [row["action"] for row in json.loads(replay(text, "--json").stdout)] == ["tm/ln"]


@pytest.mark.parametrize(
    ("line", "action", "arguments"),
    [
        (
            "Sun Nov 22 20:00:00 2026 [Z0][TrM][I]: Command execution failed (exit code: 1): /var/lib/one/remotes/tm/"
            "linstor_un/clone onefe:/dev/drbd/by-res/one-image-17/0 kvm1:/var/lib/one//datastores/101/0/disk.1 0 100",
            "tm/clone",
            "onefe:/dev/drbd/by-res/one-image-17/0 kvm1:/var/lib/one//datastores/101/0/disk.1 0 100",
        ),
        (
            "Sun Nov 22 20:00:00 2026 [Z0][ImM][I]: Command execution fail: /opt/one/var/remotes/datastore/linstor_un/"
            "mkfs " + base64.b64encode(b"<D><LS_TOKEN>x</LS_TOKEN><A>" + b"a" * 100 + b"</A></D>").decode() + " 7",
            "datastore/mkfs",
            "... 7",
        ),
        (
            "Sun Nov 22 20:00:00 2026 [Z0][VMM][I]: Command execution failed (exit code: 255): /var/lib/one/remotes/"
            "vmm/kvm/save_linstor_un 'one-7' '/var/lib/one//datastores/101/7/checkpoint' 'kvm1' 7 kvm1",
            "vmm/save_linstor_un",
            "one-7 /var/lib/one//datastores/101/7/checkpoint kvm1 7 kvm1",
        ),
    ],
)
def test_what_oned_writes_of_a_failure_is_taken_too(line: str, action: str, arguments: str) -> None:
    rows = json.loads(replay(f"{line}\nError executing image transfer script\n", "--json").stdout)
    assert [(row["time"], row["action"], row["arguments"]) for row in rows] == [
        ("Sun Nov 22 20:00:00 2026", action, arguments)
    ]
    assert "mkfs" not in action or "<LS_TOKEN>(hidden)</LS_TOKEN>" in rows[0]["xml"]


@pytest.mark.parametrize("verb", IMAGE_CALLS)
def test_an_image_action_is_rehearsed_as_far_as_what_it_does_is_known(place: Bench, verb: str) -> None:
    steps = rehearse(place, image_call(place, verb))
    # There is no image 7 to be removed.
    last = {"stat": "answers", "monitor": "answers", "rm": "ends"}.get(verb, "changes")
    assert {kind for kind, _ in steps if kind != "reads"} == {last} and steps[-1][0] == last
    if verb == "cp":
        assert steps[-1][1].startswith("Creating one-image-7: POST /v1/resource-groups/one-data-x2-")
    if verb == "rm":
        assert steps[:-1] and all(text.startswith("GET /v1/") for _, text in steps[:-1])


@pytest.mark.parametrize("verb", TRANSFER_CALLS)
def test_a_transfer_action_is_rehearsed_as_far_as_what_it_does_is_known(place: Bench, verb: str) -> None:
    steps = rehearse(place, logged("tm", verb, place.filled(TRANSFER_CALLS[verb]).split()))
    # The disk has the size that is asked for.
    last = "ends" if verb == "resize" else "changes"
    assert {kind for kind, _ in steps if kind != "reads"} == {last} and steps[-1][0] == last
    says = {
        "ln": "Deleting snapshot linstor_un-base of one-image-1: snapshot_delete('one-image-1', 'linstor_un-base')",
        "mkimage": "Creating one-vm-0-disk-2: POST /v1/resource-groups/",
        "context": f"runs a script on node1 with {SYSDIR.replace('//', '/')}/0 ",
    }
    first = next(text for kind, text in steps if kind == last)
    assert first.startswith(says.get(verb, ""))


def test_a_rehearsal_goes_on_behind_changes_until_what_comes_depends_on_them(place: Bench) -> None:
    steps = rehearse(place, logged("tm", "clone", place.filled(TRANSFER_CALLS["clone"]).split()))
    changes = [text for kind, text in steps if kind == "changes"]
    begun = (
        "Creating one-vm-0-disk-0: ",
        "Restoring",
        "Restoring",
        "runs a script on node1 with ",
    )
    assert len(changes) == len(begun)
    assert all(text.startswith(words) for text, words in zip(changes, begun)), changes


def test_an_action_that_would_fail_says_so(place: Bench) -> None:
    steps = rehearse(place, logged("tm", "ln", f"onefe:/dev/sda node1:{SYSDIR}/0/disk.1 0 101".split()))
    assert steps[-1][0] == "fails"
    assert "a VM gets no image but its own" in steps[-1][1]


def test_a_rehearsal_can_be_read(place: Bench) -> None:
    changes = {"ID": "1", "SOURCE": "/dev/drbd/by-res/one-image-1/0"}
    xml = document(changes).replace(TOKEN.encode(), b"")
    text = logged("tm", "ln", ["x"]) + logged("datastore", "rm", ["1"], base64.b64encode(xml))
    result = replay(text, "--dry-run", "--root", str(place.folder / "one"))
    lines = result.output.splitlines()
    assert lines[0] == "datastore/rm 1"
    assert lines[1].startswith("  reads   GET /v1/resource-definitions?resource_definitions=one-image-1&")
    assert lines[-3].startswith("  changes ") and lines[-2].startswith("It stops here")
    assert lines[-1] == DRY_RUN


def test_a_log_without_calls_and_numbers_that_are_not_there_are_refused(place: Bench) -> None:
    result = replay("nothing\n")
    assert (result.exit_code, "give the output of `journalctl -t linstor_un`" in result.output) == (1, True)
    for number in ("0", "2", "-2"):
        result = replay(logged("tm", "ln", ["1"]), "--number", number)
        assert (result.exit_code, "The log holds 1 calls" in result.output) == (2, True)


def test_without_its_xml_an_image_action_cannot_be_rehearsed(place: Bench) -> None:
    result = replay(logged("datastore", "cp", ["7"]), "--dry-run", "--root", str(place.folder / "one"))
    assert result.exit_code == 1
    assert "give the system log, not oned's" in result.output
