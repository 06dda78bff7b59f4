"""The command itself: what every verb has, what starts it, and how it fails."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from linstor_un import __version__
from linstor_un.cli.output import DRY_RUN
from linstor_un.cli.verbs import VERBS, command
from tests.conftest import CHECKOUT
from tests.linstor_un.cli.clouds import NODES, Estate
from tests.linstor_un.cli.planted import D0, DEAD, make
from tests.linstor_un.cli.trees import SCRIPT, script

VERB_MODULES = {name: importlib.import_module(f"linstor_un.cli.{name}") for name in VERBS}
# Modules of the room that are no verb.
OTHERS = {"__init__", "__main__", "completion", "holding", "inventory", "output", "rehearsal", "verbs"}


def commands() -> dict[str, click.Command]:
    """The verbs, and those of a verb that has some of its own, as they are typed."""
    found: dict[str, click.Command] = {}
    for verb, module in VERB_MODULES.items():
        own = module.command
        below = own.commands if isinstance(own, click.Group) else {}
        found.update({f"{verb} {name}": item for name, item in below.items()} or {verb: own})
    return found


COMMANDS = commands()


def parameters(verb: str) -> dict[str, click.Parameter]:
    return {parameter.name or "": parameter for parameter in COMMANDS[verb].params}


def test_verb_module_and_test_have_one_name() -> None:
    modules = {path.stem for path in (CHECKOUT / "lib/linstor_un/cli").glob("*.py")}
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert set(VERBS) == modules - OTHERS
    assert set(VERBS) | {"completion", "inventory", "output", "verbs"} == tests


@pytest.mark.parametrize("verb", dict.fromkeys([*VERBS, *COMMANDS]))
def test_every_verb_explains_itself_with_examples(verb: str) -> None:
    *above, own = verb.split()
    result = CliRunner().invoke(command, [*above, own, "--help"])
    assert result.exit_code == 0
    assert re.search(rf"^  Examples:\n    linstor-un {verb}", result.output, re.MULTILINE)
    assert f"\n  {own} " in CliRunner().invoke(command, [*above, "--help"]).output


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_prints_for_people_and_for_programs(verb: str) -> None:
    assert {"as_json", "as_csv", "quiet"} <= set(parameters(verb))
    result = CliRunner().invoke(command, [*verb.split(), "--json", "--csv", *arguments_of(verb)])
    assert (result.exit_code, "exclude each other" in result.output) == (2, True)


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_letter_means_the_same_to_every_verb(verb: str) -> None:
    letters = {"-h": "help", "-j": "as_json", "-q": "quiet", "-n": "dry_run", "-y": "yes", "-N": "number"}
    for parameter in parameters(verb).values():
        for letter in (option for option in parameter.opts if re.fullmatch("-.", option)):
            assert letters[letter] == parameter.name


def arguments_of(verb: str) -> list[str]:
    """Return words for the arguments and options that a verb cannot do without."""
    words = []
    for parameter in parameters(verb).values():
        if parameter.required:
            words += [parameter.opts[0]] if isinstance(parameter, click.Option) else []
            words.append("-" if isinstance(parameter.type, click.File) else "1")
    return words


def test_the_exit_codes_are_documented_and_true(tmp_path: Path) -> None:
    said = script("--help").stdout
    assert [int(code) for code in re.findall(r"^    (\d)  \w", said, re.MULTILINE)] == [0, 1, 2, 3]
    assert script("--version").stdout == f"linstor-un, version {__version__}\n"
    unknown = script("frobnicate")
    assert (unknown.returncode, "No such command 'frobnicate'" in unknown.stderr) == (2, True)
    failed = script("install", "--root", str(tmp_path))
    assert (failed.returncode, failed.stdout, failed.stderr[:7]) == (1, "", "Error: ")


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(VERB_MODULES["map"].inventories, "read", stop)
    result = CliRunner().invoke(command, ["map"])
    assert (result.exit_code, result.output.strip()) == (
        1,
        "Error: Interrupted: run it again, and what was begun goes on",
    )


@pytest.mark.usefixtures("estate")
@pytest.mark.parametrize(
    "line", ["status", "status volumes --json", "map", "map --html /dev/full", "evacuate node2 --dry-run"]
)
def test_what_cannot_be_written_is_a_sentence_and_whoever_reads_no_further_hears_nothing(line: str) -> None:
    words = [sys.executable, str(SCRIPT), *line.split()]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[1:]) == (1, [])
    assert done.stderr.startswith("Error: The system refused an operation ([Errno 28] No space left on device")
    reader, writer = os.pipe()
    os.close(reader)
    closed = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert closed.stderr == "" or "/dev/full" in line


def test_help_loads_no_verb_and_nothing_of_linstor() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(SCRIPT), "--help"], capture_output=True, text=True, check=True
    )
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in names and "linstor_un.cli.verbs" in names
    assert not names & {"linstor", "lxml", *(f"linstor_un.cli.{verb}" for verb in VERBS)}


def test_the_shell_completes_verbs_and_options() -> None:
    is_old = not hasattr(click.Command, "shell_complete")
    word, kind = ("complete_bash", "") if is_old else ("bash_complete", "plain,")
    asked = {"_LINSTOR_UN_COMPLETE": word, "COMP_CWORD": "1", "COMP_WORDS": "linstor-un up"}
    assert script(**asked).stdout == f"{kind}upgrade\n"
    asked.update(COMP_CWORD="2", COMP_WORDS="linstor-un upgrade --dr")
    assert script(**asked).stdout == f"{kind}--dry-run\n"


def test_the_module_is_the_command_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "linstor_un.cli", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")},
        check=True,
    )
    assert done.stdout == f"linstor-un, version {__version__}\n"


def test_without_click_it_is_said_how_to_get_it() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), "install"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: The Python package click is missing for {sys.executable}: install it with ")


@pytest.mark.parametrize("package", ["lxml", "linstor"])
@pytest.mark.usefixtures("estate")
def test_without_what_the_driver_needs_it_is_said_how_to_get_it(tmp_path: Path, package: str) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError({package!r}, name={package!r})")
    name = {"linstor": "python-linstor"}.get(package, package)
    done = script("status", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: The Python package {name} is missing for {sys.executable}")
    assert len(done.stderr.splitlines()) == 1
    asked = {"_LINSTOR_UN_COMPLETE": "bash_complete", "COMP_CWORD": "2", "COMP_WORDS": "linstor-un replay "}
    completed = script(PYTHONPATH=str(tmp_path), **asked)
    assert (completed.returncode, completed.stderr) == (0, "")


def test_a_package_has_the_command_and_the_configuration() -> None:
    code = (
        "import json, setuptools; from distutils.core import run_setup;"
        "found = run_setup('setup.py', stop_after='init');"
        "print(json.dumps([found.data_files, found.entry_points['console_scripts']]))"
    )
    asked = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert json.loads(asked.stdout.splitlines()[-1]) == [
        [["share/linstor_un", ["etc/linstor_un.conf"]]],
        ["linstor-un = linstor_un.cli.__main__:main"],
    ]


@pytest.mark.parametrize(
    ("line", "would"),
    [
        (f"place {D0} --add node4", f"put a replica of {D0} on node4"),
        (f"place {D0} --remove node1", f"make {D0} on node1 diskless"),
        (f"replicas {D0} 3", f"place 1 replica more of {D0}"),
        (f"replicas {D0} 1", f"take the replica of {D0} off node2"),
        ("evacuate node2", f"{D0}"),
        ("audit --repair", "delete volume one-image-78"),
        ("datastore create new --pool data", "STORAGE_POOL"),
        ("adopt image one-other --datastore 101 --name other", "/dev/drbd/by-res/one-other/0"),
    ],
)
def test_a_dry_run_says_what_would_be_done_and_at_last_that_nothing_was(estate: Estate, line: str, would: str) -> None:
    make("one-image-78", IMAGE_ID="78", INCOMPLETE=DEAD, MADE_BY=DEAD)(estate)
    estate.volume("one-other", 0)
    estate.sandbox.cluster.touch()
    before = estate.sandbox.snapshot_of_state()
    result = CliRunner().invoke(command, [*line.split(), "--dry-run"])
    *shown, last = result.output.splitlines()
    assert (last, any(would in item for item in shown)) == (DRY_RUN, True), result.output
    assert estate.sandbox.snapshot_of_state() == before


def lines_to_type(*verbs: str) -> list[str]:
    """The lines of the README, and of the pages that operators begin with, that call these verbs."""
    pages = (
        "README.md",
        "docs/index.md",
        "docs/datastores.md",
        "docs/operations.md",
        "docs/upgrade.md",
        "docs/move.md",
    )
    text = "\n".join((CHECKOUT / page).read_text(encoding="utf-8") for page in pages)
    found = re.findall(
        rf"^(?: {{4}}| {{8}})(linstor-un (?:{'|'.join(verbs)})\b[^#\n]*?) *(?:#.*)?$", text, re.MULTILINE
    )
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(
    "line", lines_to_type("status", "map", "audit", "place", "replicas", "evacuate", "datastore", "actions")
)
def test_what_the_documentation_types_works(
    estate: Estate, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = line.removeprefix("linstor-un ")
    verb = next(verb for verb in COMMANDS if f"{typed} ".startswith(f"{verb} "))
    # Nobody is there to be asked.
    words = [*typed.split(), *(["--yes"] if "yes" in parameters(verb) else [])]
    estate.cloud.hosts[:] = estate.cloud.hosts[:1]

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    if "--watch" in line:
        monkeypatch.setattr("time.sleep", stop)
    try:
        result = CliRunner().invoke(command, words, catch_exceptions=False)
    finally:
        estate.cloud.hosts[:] = NODES
    # The links of this estate's VMs are not laid out, which --hosts finds; Ctrl-C is how --watch ends.
    assert result.exit_code == (3 if "--hosts" in line else 0), result.output
