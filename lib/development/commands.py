"""The commands: each runs programs of .venv in the checkout."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from development.environment import CHECKOUT, PYTHON, SHELLCHECK


@dataclass(frozen=True)
class Command:
    """A word after ./dev and what it does."""

    name: str
    meaning: str
    run: Callable[[list[str]], int]


def demo(arguments: list[str]) -> int:
    """Run the demonstration in place of this process, so that signals reach it."""
    return _become("-m", "linstor_sandbox.demo", *arguments)


def test(arguments: list[str]) -> int:
    """Run pytest on three processes: the smallest machine has two cores, and the tests wait for half of their time."""
    # Entry scripts must find the library by themselves.
    os.environ.pop("PYTHONPATH", None)
    return _become("-m", "pytest", *([] if _chooses_processes(arguments) else ["-n", "3"]), *arguments)


def interpreters(arguments: list[str]) -> int:
    """Run the tests with every other Python that is here."""
    return _become("-m", "development.interpreters", *arguments)


def lint(_arguments: list[str]) -> int:
    """Run every check, also after one has failed."""
    codes = [_run(*check) for check in _checks()]
    return max(codes)


def sandbox(arguments: list[str]) -> int:
    """Run a sandbox in the foreground."""
    return _become("-m", "linstor_sandbox", *arguments)


def faults(arguments: list[str]) -> int:
    """Run every action with every fault at every step."""
    return _become("-m", "tests.faults", *arguments)


def matrix(arguments: list[str]) -> int:
    """Play the main flows with each release of OpenNebula and LINSTOR, and on all layers."""
    return _become("-m", "tests.matrix", *arguments)


def crowd(arguments: list[str]) -> int:
    """Let many users act at once."""
    return _become("-m", "tests.crowd", *arguments)


def coverage(arguments: list[str]) -> int:
    """Say which lines and branches of the driver the tests reach."""
    return _become("-m", "tests.coverage", *arguments)


def mutation(arguments: list[str]) -> int:
    """Put defects into the driver, to see whether the tests find them."""
    return _become("-m", "tests.mutation", *arguments)


def bench(arguments: list[str]) -> int:
    """Measure what the driver costs."""
    return _become("-m", "bench", *arguments)


def packages(arguments: list[str]) -> int:
    """Build what is installed from."""
    return _become("-m", "development.packaging", *arguments)


def docs(arguments: list[str]) -> int:
    """Build the documentation's site; a link that leads nowhere is an error, which --quiet would hide."""
    return _become("-m", "mkdocs", *(arguments or ["build", "--strict"]))


def conformance(arguments: list[str]) -> int:
    """Compare the sandbox with the recorded exchanges of a real controller."""
    return _become("-m", "linstor_sandbox.conformance", *arguments)


COMMANDS = {
    command.name: command
    for command in (
        Command("demo", "the driver at work on a sandbox, from onedatastore create to deletion", demo),
        Command("test", "the tests; arguments go to pytest", test),
        Command("interpreters", "the tests with every other Python that is here; arguments go to pytest", interpreters),
        Command("faults", "everything that can go wrong, at every step of every action", faults),
        Command("matrix", "the main flows with every release of OpenNebula and LINSTOR, and on all layers", matrix),
        Command("crowd", "many users and operators at once, and whether what exists is what should", crowd),
        Command("coverage", "which lines and branches of the driver the tests reach, and why not the others", coverage),
        Command("mutation", "which small defects in what must not fail the tests find", mutation),
        Command("bench", "what the driver costs, and what has become worse since another run", bench),
        Command("lint", "style and types", lint),
        Command("docs", "the documentation as a site, into build/site; arguments go to mkdocs", docs),
        Command("packages", "wheel, sdist, deb and rpm, into build/packages", packages),
        Command("conformance", "the sandbox's answers beside those of a real LINSTOR", conformance),
        Command("sandbox", "a LINSTOR in a box, in the foreground, for a linstor client or curl", sandbox),
    )
}


def usage() -> str:
    """One line for each command."""
    lines = [f"  ./dev {command.name:<13}{command.meaning}" for command in COMMANDS.values()]
    return "\n".join(["usage: ./dev COMMAND [arguments]", *lines])


def _chooses_processes(arguments: Sequence[str]) -> bool:
    return any(argument.startswith(("-n", "--numprocesses", "--dist", "--pdb")) for argument in arguments)


def _checks() -> list[list[str]]:
    modules = [["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "lib", "bench"]]
    return [[str(PYTHON), "-m", *check] for check in modules] + [[str(SHELLCHECK), *_shell_scripts()]]


def _shell_scripts() -> list[str]:
    """Every file of the checkout that begins with a shell's #! line."""
    skipped = {".git", ".venv", "build", "dist"}
    found = []
    for folder, folders, files in os.walk(CHECKOUT):
        folders[:] = sorted(name for name in folders if name not in skipped and not name.endswith("cache__"))
        found += [Path(folder, name) for name in sorted(files) if _is_shell(Path(folder, name))]
    return [str(path.relative_to(CHECKOUT)) for path in found]


def _is_shell(path: Path) -> bool:
    with path.open("rb") as script:
        first = script.readline(100)
    return first.startswith(b"#!") and first.rstrip().endswith((b"/sh", b"/bash", b" sh", b" bash"))


def _run(*command: str) -> int:
    return subprocess.run(command, cwd=CHECKOUT, check=False).returncode


def _become(*arguments: str) -> int:
    os.chdir(CHECKOUT)
    os.execv(PYTHON, [str(PYTHON), *arguments])
