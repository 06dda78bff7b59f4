"""Modules that are put off: loaded when they are used, however they were imported, and then as if at once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT


def run(code: str, path: Path) -> str:
    """Run code in a Python of its own that finds the driver and what is below `path`; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom linstor_un import late\n" + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT / 'lib'}{os.pathsep}{path}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """Return a folder with modules that say when they are loaded."""
    package = tmp_path / "outer" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "alone.py").write_text("print('alone', end=' ')\nvalue = 1\nother = 2\n")
    (tmp_path / "outer" / "__init__.py").write_text("print('outer', end=' ')\nfrom .leaf import value\nown = 3\n")
    (tmp_path / "outer" / "leaf.py").write_text("print('leaf', end=' ')\nvalue = 4\n")
    (package / "__init__.py").write_text("print('inner', end=' ')\n")
    (package / "deep.py").write_text("print('deep', end=' ')\nvalue = 5\n")
    return tmp_path


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("import alone\nprint('used')\nprint(alone.value)", "used\nalone 1"),
        ("import alone\nprint(alone.value, alone.other)", "alone 1 2"),
        ("from alone import value\nprint(value)", "alone 1"),
        ("import alone as other\nother.value\nother.value = 9\nfrom alone import value\nprint(value)", "alone 9"),
        ("import alone\nalone.value\nimport importlib\nprint(importlib.import_module('alone') is alone)", "alone True"),
        ("import alone\nprint(hasattr(alone, 'nothing'), alone.__spec__.name)", "alone False alone"),
    ],
)
def test_a_module_is_loaded_when_it_is_used(modules: Path, code: str, printed: str) -> None:
    assert run(f"late.put_off('alone')\n{code}", modules) == printed


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("import outer.leaf\nprint(outer.leaf.value)", "leaf 4"),
        ("from outer.leaf import value\nprint(value)", "leaf 4"),
        ("from outer import leaf\nprint(leaf.value)", "outer leaf 4"),
        ("import outer.leaf\nprint(outer.own, outer.leaf.value, outer.value)", "leaf outer 3 4 4"),
        ("from outer import own\nprint(own)", "outer leaf 3"),
    ],
)
def test_the_modules_of_a_package_are_had_without_what_the_package_imports(
    modules: Path, code: str, printed: str
) -> None:
    assert run(f"late.put_off('outer')\n{code}", modules) == printed


@pytest.mark.parametrize(
    "code",
    [
        "import outer.inner.deep\nprint('used')\nprint(outer.inner.deep.value)",
        "import outer.inner.deep as deep\nprint('used')\nprint(deep.value)",
        "from outer.inner import deep\nprint('used')\nprint(deep.value)",
    ],
)
def test_a_module_of_a_package_is_put_off_with_the_package(modules: Path, code: str) -> None:
    assert run(f"late.put_off('outer.inner.deep')\n{code}", modules) == "used\ndeep 5"


def test_what_is_loaded_already_stays_as_it_is(modules: Path) -> None:
    assert run("import alone\nlate.put_off('alone')\nprint(alone is sys.modules['alone'])", modules) == "alone True"


@pytest.mark.parametrize(
    "code", ["import nowhere\nnowhere.value", "from nowhere import value", "import nowhere.leaf", "import alone.leaf"]
)
def test_what_is_not_there_is_missed_as_ever(modules: Path, code: str) -> None:
    attempt = f"try:\n    {code.splitlines()[0]}\n    {code.splitlines()[-1]}\n"
    attempt += "except ModuleNotFoundError as error:\n    print(error.name.partition('.')[0])"
    assert run(f"late.put_off('nowhere', 'alone')\n{attempt}", modules) == code.split()[1].partition(".")[0]
