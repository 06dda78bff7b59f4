"""The shell completes what LINSTOR and oned have now, and nothing, in silence, where these do not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from click.shell_completion import get_completion_class

from linstor_un.cli import completion
from linstor_un.cli.completion import Found
from linstor_un.cli.verbs import command
from tests.linstor_un.cli.clouds import NODES
from tests.linstor_un.cli.planted import D0
from tests.linstor_un.cli.trees import script


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a busy machine answer in time."""
    monkeypatch.setattr(completion, "_PATIENCE_SECONDS", 60)


def asked(line: str, shell: str) -> dict[str, str]:
    """What the shell says when Tab is pressed at the end of a line."""
    *words, last = line.split(" ")
    if shell == "fish":
        return {"COMP_WORDS": " ".join(words), "COMP_CWORD": last}
    return {"COMP_WORDS": line, "COMP_CWORD": str(len(words))}


def completed(monkeypatch: pytest.MonkeyPatch, line: str, shell: str = "bash") -> list[str]:
    """What the shell is told then."""
    for name, value in asked(line, shell).items():
        monkeypatch.setenv(name, value)
    of_shell = get_completion_class(shell)
    assert of_shell is not None
    return of_shell(command, {}, "linstor-un", "_LINSTOR_UN_COMPLETE").complete().splitlines()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("place one-vm-1", ["one-vm-1-disk-0", "one-vm-1-disk-1"]),
        ("place vm-1", ["vm-1-disk-0", "vm-1-disk-1"]),
        ("replicas image-", ["image-0", "image-1", "image-2"]),
        ("audit --delete one-vm-3-c", ["one-vm-3-checkpoint"]),
        (f"place {D0} --add node", list(NODES)),
        (f"place {D0} --add node4 --pool d", ["data"]),
        ("evacuate node1 --target node4", ["node4"]),
        ("status --vm 3", ["3"]),
        ("map --image ", ["0", "1", "2"]),
        ("status --datastore ", ["100", "101"]),
        ("move image-", ["image-0", "image-1", "image-2"]),
        ("move --vm vm-2", ["vm-2"]),
        ("move --to ", ["linstor-images"]),
        ("adopt datastore ", ["101"]),
        ("adopt image x --datastore 1", ["101"]),
        ("datastore create x --resource-group one-", ["one-data-x2-seeded"]),
    ],
)
@pytest.mark.usefixtures("estate", "patience")
def test_what_is_there_is_completed(monkeypatch: pytest.MonkeyPatch, line: str, words: list[str]) -> None:
    assert completed(monkeypatch, f"linstor-un {line}") == [f"plain,{word}" for word in words]


@pytest.mark.usefixtures("estate", "patience")
def test_each_shell_is_told_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(monkeypatch, "linstor-un evacuate node4", "zsh") == ["plain", "node4", "ONLINE"]
    assert completed(monkeypatch, "linstor-un evacuate node4", "fish") == ["plain,node4\tONLINE"]


@pytest.mark.usefixtures("estate")
@pytest.mark.parametrize("name", ["ONE_XMLRPC", "LS_CONTROLLERS"])
def test_where_nobody_answers_nothing_is_completed_and_nothing_said(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (1, silent.getsockname()[1]):
            environment = {"_LINSTOR_UN_COMPLETE": "bash_complete", name: f"http://127.0.0.1:{port}"}
            done = script(**environment, **asked("linstor-un evacuate no", "bash"))
            assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_what_never_ends_is_left_alone() -> None:
    over = threading.Event()

    def wait() -> Iterator[Found]:
        over.wait()
        yield "late", ""

    try:
        assert completion.Word(wait).shell_complete(None, None, "") == []  # type: ignore[arg-type]
    finally:
        over.set()
