"""What became worse from one file of results to another, each named: which row, which figure, from what to what.

Counts are exact. Everything else differs from run to run, so that it counts only where the medians differ by more than
the figure's own margin, and by more than the runs before and the runs now differ among themselves.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping

from bench.figures import FIGURES, Figure, Module, Results, Row

# What python-linstor and Python load differs between their releases, and so does what they cost.
_SAME = ("python", "python-linstor")


def regressions(old: Results, new: Results) -> list[str]:
    """A line for each figure that became worse."""
    comparable = all(old.made.get(key) == new.made.get(key) for key in _SAME)
    found = []
    for part, rows in new.parts.items():
        before = {row.name: row for row in old.parts.get(part, [])}
        for row in rows:
            if row.name in before:
                found += [f"{part}: {row.name}: {line}" for line in _worse(before[row.name], row, comparable)]
    return found


def remarks(old: Results, new: Results) -> list[str]:
    """What is to be known about the comparison itself."""
    found = [f"{key} was {old.made.get(key)} and is {new.made.get(key)}" for key in sorted({*old.made, *new.made})
             if key not in ("when", "commit", "command") and old.made.get(key) != new.made.get(key)]  # fmt: skip
    for part, rows in new.parts.items():
        before, now = {row.name for row in old.parts.get(part, [])}, {row.name for row in rows}
        if part not in old.parts:
            found.append(f"{part}: was not measured")
            continue
        found += [f"{part}: {name}: was not measured" for name in sorted(now - before)]
        found += [f"{part}: {name}: is not measured any more" for name in sorted(before - now)]
    return found


def _worse(old: Row, new: Row, same_packages: bool) -> Iterator[str]:
    for name, figure in FIGURES.items():
        if name in old.figures and name in new.figures and _is_worse(figure, old.figures[name], new.figures[name]):
            yield f"{figure.meaning}: {old.shown(name)} → {new.shown(name)}{_unit(figure)}{_which(name, old, new)}"
    if same_packages and old.modules and new.modules:
        yield from _imports(old.modules, new.modules)


def _unit(figure: Figure) -> str:
    return f" {figure.unit}" if figure.unit else ""


def _is_worse(figure: Figure, old: list[float], new: list[float]) -> bool:
    if not figure.judged:
        return False
    before, after = statistics.median(old), statistics.median(new)
    if figure.exact:
        return after > before
    change = before - after if figure.falls else after - before
    spread = max(old) - min(old) + max(new) - min(new)
    return change > max(figure.least * abs(before), figure.at_least, spread)


def _which(name: str, old: Row, new: Row) -> str:
    """Which requests there are more of."""
    if name != "requests":
        return ""
    more = {line: count - old.requests.get(line, 0) for line, count in new.requests.items()}
    named = [f"{count:g} more {line}" for line, count in more.items() if count > 0]
    return f" ({', '.join(named)})" if named else ""


def _imports(old: Mapping[str, Module], new: Mapping[str, Module]) -> Iterator[str]:
    """The new modules that no other new one has brought with it, with what they cost altogether."""
    added = {name: module for name, module in new.items() if name not in old}
    for name, module in added.items():
        if module.importer not in added:
            brought = [other for other in added if _brought_by(other, name, added)]
            cost = sum(added[other].milliseconds for other in brought)
            more = f" and {len(brought) - 1} more" if len(brought) > 1 else ""
            yield f"imports: {name}{more}, for {module.importer or 'the program itself'}, {cost:.1f} ms"


def _brought_by(module: str, root: str, added: Mapping[str, Module]) -> bool:
    seen: set[str] = set()
    # A package may import a module that has imported it.
    while module in added and module not in seen:
        if module == root:
            return True
        seen.add(module)
        module = added[module].importer
    return False
