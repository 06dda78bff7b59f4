"""docs/trouble.md has an entry for every kind of failure, and for no other."""

from __future__ import annotations

import inspect
import re

from linstor_un import errors
from tests.conftest import CHECKOUT

PAGE = (CHECKOUT / "docs" / "trouble.md").read_text(encoding="utf-8")


def test_every_kind_of_failure_has_its_entry() -> None:
    kinds = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if kind is not errors.DriverError}
    assert set(re.findall(r"^### .*\((\w+)\)$", PAGE, re.MULTILINE)) == kinds


def test_every_entry_says_something() -> None:
    entries = re.split(r"^###? .*$", PAGE, flags=re.MULTILINE)[1:]
    assert all(len(entry.split()) > 8 for entry in entries if entry.strip())
