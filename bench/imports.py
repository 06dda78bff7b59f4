"""Start-up by module: what Python says with -X importtime, or PYTHONPROFILEIMPORTTIME in the environment."""

from __future__ import annotations

import re

from bench.figures import Module

_LINE = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \| ( *)(\S+)")


def parse(text: str) -> dict[str, Module]:
    """Every module that was imported, with its own time and its importer, which is empty for the program itself.

    A module is named after those that it imports, and two blanks less deep than they.
    """
    found: dict[str, Module] = {}
    waiting: list[tuple[int, str]] = []
    for own, _, blanks, name in _LINE.findall(text):
        depth = len(blanks) // 2
        while waiting and waiting[-1][0] > depth:
            imported = waiting.pop()[1]
            found[imported] = Module(found[imported].milliseconds, name)
        earlier = found.get(name, Module(0.0, ""))
        found[name] = Module(earlier.milliseconds + int(own) / 1000, earlier.importer)
        waiting.append((depth, name))
    return found


def without(text: str) -> str:
    """What a program said besides."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("import time:"))
