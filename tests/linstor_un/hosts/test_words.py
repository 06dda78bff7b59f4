"""Whatever a value is, it reaches a host's programs as one word, and nothing runs that would not run without it."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple

import pytest

from linstor_un.errors import CommandFailed
from linstor_un.hosts import (
    backup_files,
    changes,
    copies,
    devices,
    directories,
    filesystems,
    inspection,
    origins,
    virsh,
)
from linstor_un.hosts.runner import Feed, Host, Step
from linstor_un.settings import Settings
from tests.conftest import CHECKOUT
from tests.linstor_un.hosts.recorder import CANARY, Recorder

HOSTILE = (
    f"$({CANARY})`{CANARY}`",
    f"'; {CANARY}; '\"; {CANARY}; \"",
    f"-rf --help %s{{a,b}}~ *?[a] #x \\ \\n\\c $HOME ${{IFS}}{CANARY}",
    f"x&{CANARY}&&{CANARY}|{CANARY}>{CANARY}<y",
)
PLAIN = ("first", "second", "third", "fourth")
# As ssh does: all words behind the host, joined by blanks, are the remote shell's to read.
SSH = '#!/bin/sh\nwhile [ "$1" != node1 ]; do shift; done\nshift\nexec sh -c "$*"\n'


class Stage(NamedTuple):
    """A host, and values in the places where users' texts could get to."""

    host: Host
    root: Path
    words: tuple[str, ...]

    @property
    def directory(self) -> str:
        """A VM's directory; it and what is in it are there."""
        path = self.root / self.words[0] / "100" / "7"
        (path / self.words[2]).mkdir(parents=True, exist_ok=True)
        return str(path)

    @property
    def other_directory(self) -> str:
        """A path for a directory that is not there."""
        return str(self.root / self.words[3] / "101" / "7")

    @property
    def device(self) -> str:
        """A file that the recorder's lsblk takes for a device."""
        path = self.root / f"dev {self.words[1]}"
        path.touch()
        return str(path)

    @property
    def link(self) -> str:
        """Where the device is a VM's disk; it is linked."""
        path = Path(self.directory) / f"disk.{self.words[3]}"
        if not path.is_symlink():
            path.symlink_to(self.device)
        return str(path)


def fill(feed: Feed, verdict: str = "") -> None:
    """Give a script its data."""
    with feed:
        feed.send(b"data")
        feed.end()
        if verdict:
            feed.line()
            feed.say(verdict)
        feed.finish()


def hold(stage: Stage) -> None:
    """Hold a VM and let it go."""
    with virsh.held(stage.host, stage.words[0], lambda: None):
        pass


def stock(stage: Stage) -> None:
    """Start a stock action, which is put where this test may put it."""
    folder = stage.root / "vmm" / "kvm"
    folder.mkdir(parents=True)
    (folder / "save").symlink_to(shutil.which(CANARY) or "")
    step = Step(virsh._STOCK.replace("/var/tmp/one", str(stage.root)), ("save", *stage.words, "last"))
    fill(stage.host.feed("Saving", step))


def restore(stage: Stage) -> None:
    """Restore a VM; the path of its checkpoint has been checked for what sed would understand."""
    virsh.restore(stage.host, stage.words[0], stage.device, str(stage.root / "100" / "7" / "checkpoint"))


def staged(stage: Stage) -> Host:
    """The host with a staging directory of that name."""
    directory = str(stage.root / stage.words[2])
    return stage.host._replace(settings=stage.host.settings._replace(staging_directory=directory))


def target(stage: Stage) -> backup_files.Target:
    """A disk's file of a backup."""
    return backup_files.Target(stage.device, 1, f"{stage.directory}/disk.{stage.words[0]}")


def refused(sentence: str, act: Callable[[], object]) -> None:
    """What says nothing is not taken for a list of nothing; all was asked by then."""
    with pytest.raises(CommandFailed, match=sentence):
        act()


MANNER = backup_files.Manner(1, 2, 1024)
MAKINGS: dict[str, Callable[[Stage], object]] = {
    "link": lambda s: s.host.run("", devices.link(s.host, s.device, f"{s.directory}/disk.{s.words[3]}", 1)),
    "unlink": lambda s: devices.unlink(s.host, s.device, s.link),
    "is_linked": lambda s: devices.is_linked(s.host, s.device, str(Path(s.directory).parents[1])),
    "wait": lambda s: devices.wait(s.host, s.device, 1),
    "write": lambda s: fill(copies.write(s.host, s.device, 1, False), "right"),
    "write_staged": lambda s: fill(copies.write_staged(staged(s), s.device, 1, True, s.words[3])),
    "copy": lambda s: s.host.run("", copies.copy(s.host, s.device, 1, s.device, 1, False)),
    "zero": lambda s: s.host.run("", copies.zero(s.host, s.device, 1)),
    "export": lambda s: copies.export(staged(s), s.device, 1).keep(),
    "make ext4": lambda s: s.host.run("", filesystems.make(s.host, s.device, 1, "ext4")),
    "make swap": lambda s: s.host.run("", filesystems.make(s.host, s.device, 1, "swap")),
    "move": lambda s: directories.move(s.host, str(Path(s.link).parent), s.host, s.other_directory),
    "copy and alias": lambda s: directories.copy(
        s.host, s.directory, s.host, s.other_directory, directories.alias(s.other_directory, f"{s.directory}/a")
    ),
    "move away": lambda s: directories.move(
        s.host, str(Path(s.link).parent), s.host._replace(name="onefe", is_frontend=True), s.other_directory
    ),
    "remove": lambda s: directories.remove(s.host, str(Path(s.link).parent)),
    "remove_unless_shared": lambda s: directories.remove_unless_shared(s.host, s.host, s.directory),
    "write_file": lambda s: directories.write_file(s.host, f"{s.directory}/disk.{s.words[1]}", [b"data"]),
    "save": lambda s: virsh.save(s.host, s.words[0], s.device, 1),
    "state": lambda s: virsh.stop_saving(s.host, s.words[0], s.device),
    "restore": restore,
    "held": hold,
    "stock_action": stock,
    "backup prepare": lambda s: backup_files.prepare(s.host, f"{s.directory}/backup", b"<VM/>"),
    "backup remove": lambda s: backup_files.remove(s.host, f"{s.directory}/backup"),
    "backup full": lambda s: s.host.run("", backup_files.full(s.host, target(s), MANNER)),
    "backup changes": lambda s: backup_files.changes(s.host, target(s), MANNER, lambda _: [(0, 1)]),
    "backup comparison": lambda s: s.host.run("", backup_files.comparison(s.host, target(s), MANNER, (s.device, 1))),
    # The names are of LINSTOR's volumes and snapshots, which have letters, digits, dashes and underscores alone.
    "changes of LVM": lambda s: refused(
        "has not come to its end", lambda: list(changes.of_thin_pool(s.host, "volume_00000", "older", "newer"))
    ),
    "changes of ZFS": lambda s: refused(
        "no whole stream", lambda: list(changes.of_zfs(s.host, *s.words[:2], s.words[3], 1))
    ),
    "inspect for increments": lambda s: inspection.lacks_for_increments(
        s.host, True, ["thin:group/pool", f"zfs:{s.words[2]}"]
    ),
    "file": lambda s: origins.digest(origins.of_device(s.host, s.device)),
    "ceph": lambda s: origins.digest(origins.of_rbd(s.host, s.words[0], ("--id", s.words[1]))),
    "compare": lambda s: origins.digest_of_device(s.host, s.device, 0),
    "inspect": lambda s: inspection.inspect(staged(s), (s.words[0],), s.words[1], True),
}


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """Return the recorder, before all other programs."""
    made = Recorder(tmp_path_factory.mktemp("recorder"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", made.path)
        yield made


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Return a host that is reached through something like ssh."""
    ssh = tmp_path_factory.mktemp("ssh") / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    return Host("node1", Settings(ssh=(str(ssh),), in_use_timeout_seconds=5))


def started(recorder: Recorder, host: Host, root: Path, making: str, words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return what the making starts, with the words as their numbers."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    recorder.taken()
    MAKINGS[making](Stage(host, root, words))
    found = []
    for started_words in recorder.taken():
        line = "\x1f".join(started_words)
        for number, word in sorted(enumerate(words), key=lambda item: -len(item[1])):
            line = line.replace(word, f"<{number}>")
        # Not the same in two runs, and nobody's to choose.
        line = re.sub(r"(linstor_un(-export)?\.)\w{10}|(-p\x1f)\d+", r"\1\3X", line)
        found.append(tuple(line.split("\x1f")))
    return sorted(found)


@pytest.mark.parametrize("making", MAKINGS)
def test_every_value_arrives_as_one_word_and_nothing_else_runs(
    recorder: Recorder, host: Host, tmp_path: Path, making: str
) -> None:
    root = tmp_path / "root"
    usual = started(recorder, host, root, making, PLAIN)
    assert usual
    for turn in range(len(HOSTILE)):
        words = HOSTILE[turn:] + HOSTILE[:turn]
        assert started(recorder, host, root, making, tuple(word.replace("/", "") for word in words)) == usual


def documented() -> set[str]:
    """The programs that docs/security.md lists for hosts."""
    text = (CHECKOUT / "docs" / "security.md").read_text(encoding="utf-8")
    return set(re.findall(r"`([^`]+)`", text.partition("## Programs on hosts\n\n")[2].partition("\n\n")[0]))


def test_what_is_started_on_hosts_is_documented_and_nothing_else_is(
    recorder: Recorder, host: Host, tmp_path: Path
) -> None:
    found = {words[0] for making in MAKINGS for words in started(recorder, host, tmp_path / "root", making, PLAIN)}
    found = {re.sub(r"^mkfs\..*", "mkfs.*", name) for name in found}
    # The stock action has a paragraph of its own; the last ones begin every script, and wait.
    assert found - {"save"} | {"sh", "setsid", "cat", "sleep"} == documented()


STARTING = re.compile(
    r"subprocess\.(Popen|run|call|check_\w+|get\w+)|os\.(system|popen|exec\w+|spawn\w+|posix_spawn\w*)"
)
STARTERS = {
    "hosts/runner.py": ("ssh", "sh", "datastore/<driver>/ls"),
    "hosts/sources.py": ("gzip", "bzip2", "xz", "zstd", "datastore/downloader.sh"),
    "actions/tm/context.py": ("xorriso", "genisoimage", "mkisofs"),
    "actions/migration.py": ("tm/<driver>/premigrate", "postmigrate", "failmigrate"),
    "cli/installation/interpreter.py": ("python3",),
    "hosts/qemu_nbd.py": ("qemu-nbd",),
}


def test_what_is_started_on_the_front_end_is_documented() -> None:
    library = CHECKOUT / "lib" / "linstor_un"
    starters = set()
    for file in library.rglob("*.py"):
        calls = [
            node.func for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ]
        if any(STARTING.fullmatch(ast.unparse(call)) for call in calls):
            starters.add(str(file.relative_to(library)))
    assert starters == set(STARTERS), "what else starts a program has to say which, in docs/security.md"
    text = (CHECKOUT / "docs" / "security.md").read_text(encoding="utf-8").partition("## Programs on the front-end")[2]
    assert set(re.findall(r"`([^`]+)`", text.partition("## Secrets")[0])) == {
        program for programs in STARTERS.values() for program in programs
    } | {"SSH"}
