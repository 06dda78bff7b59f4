"""`./dev interpreters`: the tests with every other Python that is here, each in an environment of its own."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from xml.etree import ElementTree

from development.environment import CHECKOUT, VENV

MINORS = range(9, 15)
# What asks neither LINSTOR nor hosts and takes seconds, and one action over TLS.
SAMPLE = (
    "tests/linstor_un/test_locks.py",
    "tests/linstor_un/test_naming.py",
    "tests/linstor_un/test_settings.py",
    "tests/linstor_un/test_undo.py",
    "tests/linstor_un/cluster/test_codes.py",
    "tests/linstor_un/cluster/test_connection.py::test_certificates_that_openssl_makes_by_itself_do_with_every_python",
    "tests/linstor_un/hosts/test_words.py",
    "tests/linstor_un/opennebula",
)
NOT_SET_UP = 3


@dataclass(frozen=True)
class Interpreter:
    """A Python and the release that it says it is."""

    release: str
    path: str

    @property
    def minor(self) -> int:
        """What is behind 3. in the release."""
        return int(self.release.split(".")[1])


@dataclass(frozen=True)
class Result:
    """What came of the tests with one interpreter; without numbers they did not begin."""

    release: str
    code: int
    numbers: Optional[tuple[int, int, int]]

    @property
    def not_set_up(self) -> bool:
        """Whether ./dev itself has given up: that is its code where pytest did not get as far as a report."""
        return self.code == 1 and self.numbers is None

    def __str__(self) -> str:
        if self.numbers:
            return f"| {self.release} | {' | '.join(map(str, self.numbers))} |"
        why = "its environment could not be set up, for the reason above" if self.not_set_up else f"pytest: {self.code}"
        return f"| {self.release} | none: {why} | | |"


def main(arguments: list[str]) -> int:
    """Run the tests with each; 1 when any fail, NOT_SET_UP when there is nothing worse than one that did not begin."""
    options, for_pytest = _options(arguments)
    interpreters = options.python or list(others())
    if options.one and interpreters:
        interpreters = [random.Random(options.one).choice(interpreters)]
    if not interpreters:
        first, last = MINORS[0], MINORS[-1]
        print(f"There is no Python from 3.{first} to 3.{last} here, on PATH or in pyenv, but that of ./dev test.")
        return 0
    if options.sample:
        # More processes would take longer to start than these tests run.
        for_pytest = ["-n", "0", *SAMPLE, *for_pytest]
    results = [tried(interpreter, for_pytest) for interpreter in interpreters]
    print("\n".join(["", "| Python | passed | failed | skipped |", "|---|---:|---:|---:|", *map(str, results)]))
    if any(result.code and not result.not_set_up for result in results):
        return 1
    return NOT_SET_UP if any(result.not_set_up for result in results) else 0


def others() -> Iterator[Interpreter]:
    """One Python of each minor release, but none of that which runs this."""
    for minor in MINORS:
        found = (_asked(path) for path in _candidates(minor))
        interpreter = next((python for python in found if python and python.minor == minor), None)
        if interpreter and minor != sys.version_info[1]:
            yield interpreter


def tried(interpreter: Interpreter, for_pytest: Sequence[str]) -> Result:
    """Run the tests in an environment that is kept for the next time."""
    venv = VENV / "interpreters" / interpreter.release
    report = venv / "report.xml"
    report.unlink(missing_ok=True)
    print(f"\nPython {interpreter.release}, {interpreter.path}", flush=True)
    environment = {**os.environ, "LINSTOR_UN_PYTHON": interpreter.path, "LINSTOR_UN_VENV": str(venv)}
    command = [str(CHECKOUT / "dev"), "test", f"--junitxml={report}", *for_pytest]
    code = subprocess.run(command, env=environment, check=False).returncode
    return Result(interpreter.release, code, _numbers(report) if report.exists() else None)


def _numbers(report: Path) -> tuple[int, int, int]:
    """How many tests passed, failed and were skipped."""
    suite = next(ElementTree.parse(report).iter("testsuite"))
    failed = int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
    skipped = int(suite.get("skipped", "0"))
    return int(suite.get("tests", "0")) - failed - skipped, failed, skipped


def _candidates(minor: int) -> Iterator[str]:
    on_path = shutil.which(f"python3.{minor}")
    if on_path:
        yield on_path
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from map(str, sorted(versions.glob(f"3.{minor}.*/bin/python3")))


def _asked(path: str) -> Optional[Interpreter]:
    """What a Python says of itself: what pyenv puts on PATH is none where that release is not chosen."""
    probe = "import sys; print(sys.version.split()[0], sys.executable)"
    try:
        done = subprocess.run([path, "-I", "-c", probe], capture_output=True, text=True, check=False)
    except OSError:
        return None
    release, _, executable = done.stdout.strip().partition(" ")
    return Interpreter(release, executable) if done.returncode == 0 and executable else None


def _named(path: str) -> Interpreter:
    interpreter = _asked(path)
    if interpreter is None or not interpreter.release.startswith("3.") or interpreter.minor < MINORS[0]:
        raise argparse.ArgumentTypeError(f"{path} is no Python from 3.{MINORS[0]} on that runs here")
    return interpreter


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    # Without abbreviations: what is not one of these in full is meant for pytest.
    parser = argparse.ArgumentParser(
        prog="./dev interpreters",
        description=__doc__,
        epilog="other arguments go to pytest",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--python", type=_named, action="append", metavar="PROGRAM", help="only with this one; may be repeated"
    )
    parser.add_argument("--one", metavar="SEED", help="only with one of them, another one for another SEED")
    parser.add_argument("--sample", action="store_true", help="only the tests that take seconds")
    return parser.parse_known_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
