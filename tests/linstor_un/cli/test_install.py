"""install: everything is put in place by one command that shows first what it does, or nothing is."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable

import pytest

from linstor_un.cli.installation import interpreter, mixed_modes, oned_conf
from linstor_un.cli.output import DRY_RUN
from linstor_un.settings import read_configuration
from tests.conftest import CHECKOUT
from tests.linstor_un.cli.trees import NAMES, Tree, script

_NOBODY = 65534
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return a self-contained OpenNebula of the newest release."""
    return Tree(tmp_path / "one")


def expected_scripts() -> set[str]:
    folders = ("datastore/linstor_un", "tm/linstor_un", "vmm/kvm")
    return {str(path.relative_to(CHECKOUT)) for folder in folders for path in (CHECKOUT / folder).iterdir()}


@pytest.mark.parametrize("release", NAMES)
def test_a_bare_tree_of_a_release_gets_what_is_needed_once_and_loses_it_again(release: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "one", release, packages=release in NAMES[:1])
    before, text = tree.content(), tree.oned_conf.read_text()
    # Without --python it is the one that runs the command.
    said = script("install", "--yes", "--root", str(tree.folder)).stdout
    assert f"OpenNebula {release}" in said
    after = tree.content()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {str(path.relative_to(tree.folder)) for path in (tree.oned_conf, tree.vmm_execrc)}
    assert tree.oned_conf.read_text() == oned_conf.edited(text, oned_conf.needed(text))
    shown = difflib.unified_diff(text.splitlines(), tree.oned_conf.read_text().splitlines(), n=0, lineterm="")
    assert [line for line in list(shown)[2:] if line[0] in "+-" and line not in said.splitlines()] == []
    for name in (*expected_scripts(), "linstor-un"):
        path = tree.remotes / name
        first, rest = path.read_text().split("\n", 1)
        assert first == f"#!{sys.executable}"
        assert rest == (CHECKOUT / name).read_text().split("\n", 1)[1]
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert "nothing to do" in tree.done("install", "--yes", "--python", sys.executable)
    assert tree.content() == after
    tree.done("uninstall", "--yes")
    assert tree.content() == before


@pytest.mark.parametrize("release", NAMES)
def test_mixed_mode_is_added_once_also_to_what_is_installed_and_goes_to_the_byte(release: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "one", release)
    before = tree.content()
    tree.done("install", "--yes")
    plain = tree.content()
    said = tree.done("install", "--mixed", "ssh,ceph", "--dry-run")
    assert '+    LN_TARGET_SSH = "NONE", CLONE_TARGET_SSH = "SELF", DISK_TYPE_SSH = "BLOCK"' in said
    assert "`onedatastore update`" in said and tree.content() == plain
    assert "oned reads its configuration anew" in tree.done("install", "--mixed", "ssh,ceph", "--yes")
    assert mixed_modes.named(tree.oned_conf.read_text()) == ["ssh", "ceph"]
    after = tree.content()
    for words in (["--mixed", "ceph,ssh"], []):
        assert "nothing to do" in tree.done("install", *words, "--yes")
    tree.done("upgrade", "--yes")
    assert tree.content() == after
    tree.done("uninstall", "--yes")
    assert tree.content() == before


def test_mixed_mode_goes_also_from_what_was_edited_since(tree: Tree) -> None:
    before = tree.oned_conf.read_text()
    tree.done("install", "--mixed", "ssh,shared,local,ceph", "--yes")
    tree.oned_conf.write_text(tree.oned_conf.read_text() + "# of the operator's own\n")
    tree.done("uninstall", "--yes")
    assert tree.oned_conf.read_text() == before + "# of the operator's own\n"


def test_mixed_mode_of_what_nobody_knows_changes_nothing(tree: Tree) -> None:
    before = tree.content()
    result = tree.run("install", "--mixed", "nfs", "--yes")
    assert result.exit_code == 1 and "--mixed does not know nfs" in result.output
    assert tree.content() == before


def test_the_installed_scripts_run_by_themselves_with_their_bytecode(tree: Tree) -> None:
    tree.done("install", "--yes")
    library = tree.remotes / "lib/linstor_un"
    sources = {str(path.relative_to(library)) for path in library.rglob("*.py")}
    own = CHECKOUT / "lib/linstor_un"
    assert sources == {str(path.relative_to(own)) for path in own.rglob("*.py")}
    tag = sys.implementation.cache_tag
    compiled = set(library.rglob(f"__pycache__/*.{tag}.pyc"))
    assert len(compiled) == len(sources)
    stamps = {path: path.stat().st_mtime_ns for path in compiled}
    # As a copy of the folder has other times, which must not matter.
    for path in library.rglob("*.py"):
        os.utime(path, (1, 1))
    done = subprocess.run(
        [str(tree.remotes / "tm/linstor_un/mv"), "x"], capture_output=True, text=True, env={"PATH": "/bin"}, check=False
    )
    assert done.returncode == 1
    assert "The action takes 4 arguments" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in compiled} == stamps


def test_the_command_is_found_and_is_the_installed_one(tree: Tree) -> None:
    tree.done("install", "--yes", "--python", sys.executable)
    done = subprocess.run(
        [str(tree.commands / "linstor-un"), "install"],
        capture_output=True,
        text=True,
        env={"PATH": "/bin", "ONE_LOCATION": str(tree.folder)},
        check=True,
    )
    assert "nothing to do" in done.stdout


def test_the_installed_command_mends_what_has_gone(tree: Tree) -> None:
    tree.done("install", "--yes", "--python", sys.executable)
    before = without_bytecode(tree)
    (tree.remotes / "tm/linstor_un/mv").unlink()
    (tree.remotes / "datastore/linstor_un/cp").write_text("")
    (tree.remotes / "tm/linstor_un/clone.mine").write_text("of the operator's own")
    command = [str(tree.commands / "linstor-un"), "install", "--yes"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": "/bin", "ONE_LOCATION": str(tree.folder)}, check=True
    )
    assert "is yours" not in done.stdout
    (tree.remotes / "tm/linstor_un/clone.mine").unlink()
    assert without_bytecode(tree) == before


def test_another_command_of_that_name_is_left_alone(tree: Tree) -> None:
    (tree.commands / "linstor-un").write_text("mine")
    assert "is another command and stays as it is" in tree.done("install", "--yes")
    assert (tree.commands / "linstor-un").read_text() == "mine"
    tree.done("uninstall", "--yes")
    assert (tree.commands / "linstor-un").read_text() == "mine"


def test_the_way_by_hand_leads_to_the_same(tree: Tree) -> None:
    text = (CHECKOUT / "README.md").read_text().partition("### By hand")[2]
    block = re.search(r"^1\. The files:\n\n((?: {7}\S.*\n)+)", text, re.MULTILINE)
    assert block
    lines = [line.strip() for line in block.group(1).splitlines() if "chown" not in line]
    commands = "\n".join(lines).replace("/var/lib/one/remotes", str(tree.remotes))
    subprocess.run(["sh", "-euc", commands], cwd=CHECKOUT, check=True)
    left = json.loads(tree.done("install", "--dry-run", "--json"))
    # But for the interpreter, which by hand is any, and what the chapter says of the configuration after that.
    scripts = {str(tree.remotes / name) for name in (*expected_scripts(), "linstor-un")}
    configuration = {str(tree.oned_conf), str(tree.vmm_execrc), str(tree.commands / "linstor-un")}
    assert {change["path"] for change in left} == scripts | configuration


def test_a_dry_run_shows_it_and_does_nothing(tree: Tree) -> None:
    before = tree.content()
    said = tree.done("install", "--dry-run")
    assert '+    ARGUMENTS = "-t 15 -d dummy,' in said
    assert said.splitlines()[-1] == DRY_RUN
    assert tree.content() == before
    changes = json.loads(tree.done("install", "--dry-run", "--json"))
    by_path = {change["path"]: change for change in changes}
    assert by_path[str(tree.oned_conf)]["change"] == "changed"
    assert "+TM_MAD_CONF = [" in by_path[str(tree.oned_conf)]["diff"]
    assert by_path[str(tree.remotes / "tm/linstor_un/mv")] == {
        "path": str(tree.remotes / "tm/linstor_un/mv"),
        "change": "new",
        "diff": "",
    }
    assert tree.content() == before


def test_nothing_is_done_without_consent(tree: Tree) -> None:
    before = tree.content()
    result = tree.run("install")
    assert result.exit_code == 2
    assert "say --yes" in result.output
    assert tree.content() == before


def test_what_was_there_can_be_read_by_its_owner_only(tree: Tree) -> None:
    tree.done("install", "--yes")
    originals = tree.var / "linstor_un/original"
    assert stat.S_IMODE(originals.stat().st_mode) == 0o700
    assert stat.S_IMODE(tree.oned_conf.stat().st_mode) == 0o640
    kept = list(originals.rglob("oned.conf"))
    assert len(kept) == 1 and b"linstor_un" not in kept[0].read_bytes()


def test_an_edited_configuration_is_kept_whatever_happens(tree: Tree) -> None:
    tree.done("install", "--yes")
    edited = tree.configuration.read_text() + 'CLONE_MODE="snapshot"\n'
    tree.configuration.write_text(edited)
    tree.done("install", "--yes")
    assert tree.configuration.read_text() == edited
    assert "is yours and stays" in tree.done("uninstall", "--yes")
    assert tree.configuration.read_text() == edited
    tree.done("install", "--yes")
    assert read_configuration(str(tree.configuration)) == {"CLONE_MODE": "snapshot"}


def test_a_configuration_that_no_action_would_take_is_refused_first(tree: Tree) -> None:
    tree.configuration.parent.mkdir(parents=True)
    tree.configuration.write_text('CLONE_MOOD="copy"\n')
    before = tree.content()
    result = tree.run("install", "--yes")
    assert result.exit_code == 1
    assert "did you mean CLONE_MODE?" in result.output
    assert tree.content() == before


def test_a_configuration_that_is_a_link_is_edited_where_it_lies(tree: Tree) -> None:
    real = tree.folder / "managed.conf"
    tree.oned_conf.rename(real)
    tree.oned_conf.symlink_to(real)
    before = tree.content()
    assert '+    NAME = "linstor_un", LN_TARGET' in tree.done("install", "--dry-run")
    tree.done("install", "--yes")
    assert tree.oned_conf.is_symlink() and "linstor_un" in real.read_text()
    tree.done("uninstall", "--yes")
    assert tree.content() == before


def test_an_override_of_the_admins_is_kept_and_said(tree: Tree) -> None:
    text = tree.oned_conf.read_text().replace("-t 15 -r 0 kvm -p", "-t 15 -r 0 kvm -p -l save=my_save")
    tree.oned_conf.write_text(text)
    assert "VM_MAD kvm has my_save of its own for save" in tree.done("install", "--yes")
    assert "-l save=my_save,restore=restore_linstor_un" in tree.oned_conf.read_text()


def test_only_what_reads_its_configuration_anew_has_to_be_restarted(tree: Tree) -> None:
    assert "one stop && one start" in tree.done("install", "--yes")
    (tree.remotes / "tm/linstor_un/mv").unlink()
    assert "Nothing has to be restarted" in tree.done("install", "--yes")
    assert (
        Tree(tree.folder / "packages", packages=True).done("install", "--yes").count("systemctl restart opennebula")
        == 1
    )


@pytest.fixture(scope="module")
def total(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Return how many files an installation replaces."""
    count = 0
    replace = os.replace

    def counted(*paths: Any) -> None:
        nonlocal count
        count += 1
        replace(*paths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", counted)
        Tree(tmp_path_factory.mktemp("total") / "one").done("install", "--yes")
    assert count > 100
    return count


def failing_at(number: int, fail: Callable[[], object]) -> Callable[..., None]:
    """Return an os.replace whose call of this number fails."""
    calls, replace = [0], os.replace

    def replace_or_fail(*paths: Any) -> None:
        calls[0] += 1
        if calls[0] == number:
            fail()
        replace(*paths)

    return replace_or_fail


def refuse() -> None:
    raise OSError(30, "Read-only file system", "somewhere")


def test_what_cannot_be_written_leaves_nothing_half_done(
    tree: Tree, total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree.content()
    for number in (1, total // 2, total):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", failing_at(number, refuse))
            result = tree.run("install", "--yes")
        assert result.exit_code == 1, number
        assert "somewhere cannot be changed (Read-only file system)" in result.output
        assert tree.content() == before, number


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_fork(task: Callable[[], object]) -> int:
    """Return the wait status of a fork of this process that does the task."""
    process = os.fork()
    if not process:
        try:
            task()
        finally:
            os._exit(77)
    return os.waitpid(process, 0)[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_as_good_as_never_having_begun(tree: Tree, number: signal.Signals) -> None:
    before = tree.content()

    def install() -> None:
        os.replace = failing_at(90, lambda: signal.raise_signal(number))
        os._exit(tree.run("install", "--yes").exit_code)

    assert os.waitstatus_to_exitcode(in_fork(install)) == 1
    assert tree.content() == before


def test_what_was_killed_is_taken_up_or_taken_back(tree: Tree, total: int, tmp_path: Path) -> None:
    before = tree.content()

    def killed(at: int, *arguments: str) -> None:
        def task() -> None:
            os.replace = failing_at(at, die)
            tree.run(*arguments)

        assert os.WTERMSIG(in_fork(task)) == signal.SIGKILL, at

    # With the record of what was there just made, in the middle, before the last of all.
    for at in (4, total):
        killed(at, "install", "--yes")
        tree.done("uninstall", "--yes")
        assert tree.content() == before, at
    killed(total // 2, "install", "--yes")
    tree.done("install", "--yes")
    expected = Tree(tmp_path / "expected")
    expected.done("install", "--yes")
    assert without_bytecode(tree) == without_bytecode(expected)
    killed(2, "uninstall", "--yes")
    tree.done("uninstall", "--yes")
    assert tree.content() == before


def without_bytecode(tree: Tree) -> dict[str, tuple[int, bytes]]:
    """Return what an installation consists of, without what differs from one to the next."""
    left_out = ("__pycache__", "var/linstor_un")
    return {name: found for name, found in tree.content().items() if not any(part in name for part in left_out)}


def without_override() -> None:
    """Let root be stopped by a file's rights as everybody else is."""
    import ctypes

    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)


def test_a_folder_that_is_not_writable_is_named_and_nothing_done(tree: Tree) -> None:
    folder = tree.etc / "vmm_exec"
    folder.chmod(0o555)
    before = tree.content()
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "linstor-un"), "install", "--yes", "--root", str(tree.folder)],
        capture_output=True,
        text=True,
        preexec_fn=without_override,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {tree.vmm_execrc} cannot be changed, as {folder} is not writable")
    assert tree.content() == before


def python(folder: Path, answer: str) -> Path:
    """Return a program that is asked as an interpreter is."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return path


def found(version: str, **missing: str) -> str:
    packages = {"python-linstor": "1.29.1", "lxml": "6.0", "click": "8.0", **missing}
    numbers = [int(number) for number in version.split(".")]
    return f"echo '{json.dumps({'version': numbers, 'tag': 'cpython-x', 'packages': packages})}'"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (found("3.8.1"), "is Python 3.8.1: name one of 3.9 or newer with --python"),
        (found("3.9.1", lxml=""), "lxml missing for "),
        (found("3.9.1", lxml="", click=""), "-m pip install lxml click` or from"),
        ("echo no such thing >&2; exit 1", "(no such thing): name another interpreter"),
    ],
)
def test_an_interpreter_without_what_the_driver_needs_is_refused(
    tree: Tree, answer: str, says: str, tmp_path: Path
) -> None:
    before = tree.content()
    result = tree.run("install", "--yes", "--python", str(python(tmp_path, answer)))
    assert result.exit_code == 1
    assert says in result.output
    assert tree.content() == before


@pytest.mark.parametrize("name", ["with blank", "x" * 130])
def test_an_interpreter_that_no_first_line_can_name_is_refused(tree: Tree, name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    path = python(tmp_path / name, found("3.11.0"))
    assert "cannot stand in a script's first line" in tree.run("install", "--yes", "--python", str(path)).output


def test_the_interpreter_that_has_the_packages_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The checkout's is the second in the row, as when the command was started by another.
    monkeypatch.setattr(sys, "executable", str(python(tmp_path, found("3.9.1", lxml=""))))
    own = CHECKOUT / ".venv/bin/python3"
    monkeypatch.setenv("PATH", f"{own.parent}{os.pathsep}{os.environ['PATH']}")
    expected = shutil.which("python3")
    assert interpreter.choose("", interpreter.owner(str(tmp_path))).path == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_what_root_installs_belongs_to_whom_its_folder_belongs(tree: Tree) -> None:
    for path in (tree.var, *tree.var.rglob("*")):
        os.chown(path, _NOBODY, _NOBODY)
    os.chown(tree.oned_conf, 0, _NOBODY)
    with tempfile.TemporaryDirectory() as name:
        # For the driver's user, who is the one to run it.
        Path(name).chmod(0o777)
        tree.done("install", "--yes", "--python", str(python(Path(name), f"id -u >{name}/user; {found('3.11.0')}")))
        assert (Path(name) / "user").read_text() == f"{_NOBODY}\n"
    installed = {path.stat().st_uid for path in tree.remotes.rglob("*")}
    assert installed == {_NOBODY}
    assert (tree.oned_conf.stat().st_uid, tree.oned_conf.stat().st_gid) == (0, _NOBODY)
    assert (tree.commands / "linstor-un").lstat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another")
def test_root_goes_on_as_the_owner_of_the_folder(tmp_path: Path) -> None:
    def become() -> None:
        interpreter.User(_NOBODY, _NOBODY).become()
        os._exit(3 if (os.getuid(), os.getgid(), os.environ["USER"]) == (_NOBODY, _NOBODY, "nobody") else 4)

    assert os.waitstatus_to_exitcode(in_fork(become)) == 3


@pytest.mark.parametrize(
    ("version", "says"), [("5.10.5", "OpenNebula 5.10.5 is too old for linstor_un"), ("5.12.0", ""), ("8.0.0", "")]
)
def test_a_release_that_is_too_old_is_refused(tree: Tree, version: str, says: str) -> None:
    (tree.remotes / "VERSION").write_text(version)
    result = tree.run("install", "--dry-run")
    assert (result.exit_code, says in result.output) == (1 if says else 0, True)


def test_where_there_is_no_opennebula_it_is_said_where_it_was_looked_for(tmp_path: Path) -> None:
    done = script("install", "--root", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: There is no OpenNebula front-end here: {tmp_path}/etc/oned.conf or {tmp_path}/etc/one/oned.conf with "
        "its remotes folder is missing; install OpenNebula first, or name its folder with --root or ONE_LOCATION\n"
    )
