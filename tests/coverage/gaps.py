"""What no test has reached, by names that stay the same when lines move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import CHECKOUT


@dataclass(frozen=True)
class Gap:
    """Lines that follow each other, by the first of them, or a branch, `line -> next line`, without indentation."""

    module: str
    function: str
    line: str

    def __str__(self) -> str:
        return f"{self.module}, {self.function or 'module'}: {self.line}"


def gaps(report: Mapping[str, Any]) -> Iterator[Gap]:
    """The gaps of the JSON report of coverage."""
    for path, file in report["files"].items():
        lines = (CHECKOUT / path).read_text(encoding="utf-8").splitlines()
        module = str(Path(path)).removeprefix("lib/linstor_un/")
        for function, found in file["functions"].items():
            for line in _in_function(found, lines):
                yield Gap(module, function, line)


def _in_function(found: Mapping[str, Any], lines: Sequence[str]) -> Iterator[str]:
    missing, executed = found["missing_lines"], found["executed_lines"]
    for number, line in enumerate(missing):
        if not number or any(missing[number - 1] < other < line for other in executed):
            yield lines[line - 1].strip()
    for start, end in found["missing_branches"]:
        if start not in missing and end not in missing:
            yield f"{lines[start - 1].strip()} -> {lines[end - 1].strip() if end > 0 else 'end'}"
