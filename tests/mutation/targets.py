"""The modules that defects are put into, the tests that are about them, and the changes that are no defects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_LIBRARY = Path("lib/linstor_un")


@dataclass(frozen=True)
class Target:
    """A module, or functions of it, with its tests, the quickest first.

    `equivalents` says of mutants, by name, why what they do is not wrong.
    """

    module: str
    tests: Sequence[str]
    functions: Sequence[str] = ()
    equivalents: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The module below the checkout."""
        return _LIBRARY / self.module

    @property
    def shown(self) -> str:
        """What it is called in the table."""
        return f"{self.module}{' (two primaries)' if self.functions else ''}"


_TESTS = "tests/linstor_un"
TARGETS = (
    Target("undo.py", [f"{_TESTS}/test_undo.py"]),
    Target("naming.py", [f"{_TESTS}/test_naming.py"]),
    Target("cluster/placement.py", [f"{_TESTS}/cluster/test_placement.py"]),
    Target("cluster/primaries.py", [f"{_TESTS}/cluster/test_primaries.py"]),
    Target(
        "actions/migration.py",
        [f"{_TESTS}/actions/tm/test_{verb}.py" for verb in ("premigrate", "postmigrate", "failmigrate", "ln")],
        ("offer", "leave", "_known", "_leave_volume", "_is_managed", "_check_shareable"),
        {
            "offer: primaries.allow(action.gateway, resource, known, source, target) -> "
            "primaries.allow(action.gateway, resource, known, target, source)": "a connection has no direction",
        },
    ),
)
