"""Which other Pythons are found, and what is told of the tests with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from development import environment, interpreters
from development.interpreters import MINORS, NOT_SET_UP, SAMPLE, main

OWN = sys.version_info[1]
FIRST, SECOND = [minor for minor in MINORS if minor != OWN][:2]
REPORT = '<testsuites><testsuite tests="9" failures="{failed}" errors="0" skipped="3"/></testsuites>'


def python(path: Path, minor: int) -> Path:
    """A program that says that it is a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "3.{minor}.7 $0"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty PATH, pyenv's folder, and a checkout whose ./dev test tells its arguments and environment."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(interpreters, "CHECKOUT", tmp_path)
    monkeypatch.setattr(interpreters, "VENV", tmp_path / ".venv")
    dev(tmp_path, 0, failed=0)
    return tmp_path / "pyenv/versions"


def dev(checkout: Path, code: int, failed: int | None) -> None:
    """Let ./dev end with a code, after a report if it says how many tests failed."""
    report = f"""/bin/mkdir -p "$LINSTOR_UN_VENV"\necho '{REPORT.format(failed=failed)}' >"${{2#--junitxml=}}"\n"""
    text = (
        f'#!/bin/sh\necho "$LINSTOR_UN_PYTHON $*" >>"${{0%/*}}/told"\n{"" if failed is None else report}exit {code}\n'
    )
    (checkout / "dev").write_text(text, encoding="utf-8")
    (checkout / "dev").chmod(0o755)


def test_path_goes_before_pyenv_and_what_does_not_run_is_none(tmp_path: Path, versions: Path) -> None:
    on_path = python(tmp_path / f"bin/python3.{FIRST}", FIRST)
    python(versions / f"3.{FIRST}.9/bin/python3", FIRST)
    shim = python(tmp_path / f"bin/python3.{SECOND}", SECOND)
    shim.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    in_pyenv = python(versions / f"3.{SECOND}.9/bin/python3", SECOND)
    assert [found.path for found in interpreters.others()] == [str(on_path), str(in_pyenv)]


def test_its_own_release_and_those_that_are_not_supported_are_not_taken(versions: Path) -> None:
    for minor in (MINORS[0] - 1, OWN, MINORS[-1] + 1):
        python(versions / f"3.{minor}.9/bin/python3", minor)
    assert list(interpreters.others()) == []


def test_where_there_is_no_other_it_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--sample"]) == 0
    assert (
        capfd.readouterr().out
        == "There is no Python from 3.9 to 3.14 here, on PATH or in pyenv, but that of ./dev test.\n"
    )


def test_each_has_its_row_and_its_environment_and_other_arguments_go_to_pytest(
    tmp_path: Path, versions: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [python(versions / f"3.{minor}.9/bin/python3", minor) for minor in (FIRST, SECOND)]
    assert main(["-n", "2", "-k", "a or b"]) == 0
    reports = [tmp_path / f".venv/interpreters/3.{minor}.7/report.xml" for minor in (FIRST, SECOND)]
    expected = [f"{path} test --junitxml={report} -n 2 -k a or b" for path, report in zip(paths, reports)]
    assert (tmp_path / "told").read_text(encoding="utf-8").splitlines() == expected
    rows = [f"| 3.{minor}.7 | 6 | 0 | 3 |" for minor in (FIRST, SECOND)]
    assert capfd.readouterr().out.splitlines()[-2:] == rows


def test_the_sample_is_run_with_those_that_are_named(tmp_path: Path, versions: Path) -> None:
    python(versions / f"3.{FIRST}.9/bin/python3", FIRST)
    named = python(tmp_path / "elsewhere/python", OWN)
    assert main(["--python", str(named), "--sample"]) == 0
    (told,) = (tmp_path / "told").read_text(encoding="utf-8").splitlines()
    assert told.startswith(f"{named} test --junitxml=")
    assert told.endswith(f" -n 0 {' '.join(SAMPLE)}")


@pytest.mark.parametrize("minor", [None, MINORS[0] - 1])
def test_what_is_named_has_to_be_a_python_that_is_supported(
    minor: int | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "python" if minor is None else python(tmp_path / "python", minor)
    with pytest.raises(SystemExit):
        main(["--python", str(program)])
    assert f"{program} is no Python from 3.9 on that runs here" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("dev_code", "failed", "code", "row"),
    [
        (1, 2, 1, "4 | 2 | 3 |"),
        # ./dev has said why; an earlier run's report is not taken for this one's.
        (1, None, NOT_SET_UP, "none: its environment could not be set up, for the reason above | | |"),
        # A conftest.py that does not even load.
        (4, None, 1, "none: pytest: 4 | | |"),
    ],
)
def test_what_fails_is_told_apart(
    dev_code: int,
    failed: int | None,
    code: int,
    row: str,
    tmp_path: Path,
    versions: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    python(versions / f"3.{FIRST}.9/bin/python3", FIRST)
    assert main([]) == 0
    dev(tmp_path, dev_code, failed)
    assert main([]) == code
    assert capfd.readouterr().out.splitlines()[-1] == f"| 3.{FIRST}.7 | {row}"


def test_what_the_sample_names_exists() -> None:
    for file, _, test in (path.partition("::") for path in SAMPLE):
        found = environment.CHECKOUT / file
        assert found.exists()
        assert not test or f"def {test}(" in found.read_text(encoding="utf-8")


def test_an_environment_that_is_named_is_no_matter_of_what_runs_in_it(tmp_path: Path) -> None:
    probe = "import os; from development import environment; print(environment.PYTHON, 'LINSTOR_UN_VENV' in os.environ)"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "LINSTOR_UN_VENV": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{tmp_path}/bin/python False\n"


def test_one_of_them_is_the_same_for_the_same_seed_and_another_for_others(tmp_path: Path, versions: Path) -> None:
    paths = [str(python(versions / f"3.{minor}.9/bin/python3", minor)) for minor in (FIRST, SECOND)]
    for seed in ("a", "a", *map(str, range(10))):
        assert main(["--one", seed]) == 0
    told = [line.split()[0] for line in (tmp_path / "told").read_text(encoding="utf-8").splitlines()]
    assert len(told) == 12 and told[0] == told[1] and set(told) == set(paths)
