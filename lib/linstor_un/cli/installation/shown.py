"""A plan as the operator sees it before it is done: the folders with counts, the configuration line by line."""

from __future__ import annotations

import difflib
from collections import Counter

from linstor_un.cli.installation.changes import DIRECTORY, FILE, Change
from linstor_un.cli.installation.plan import Plan, edited_files
from linstor_un.cli.installation.tree import Tree
from linstor_un.cli.output import Report

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def show(report: Report, plan: Plan) -> None:
    """Print what a plan would change; for programs one row for each path."""
    if not report.is_for_people:
        rows = [(plan.tree.here(change.path), change.what, _diff(plan.tree, change)) for change in plan.changes]
        report.rows(("path", "change", "diff"), rows)
        return
    counts = Counter((_place(plan.tree, change), change.what) for change in plan.changes if not _is_folder(change))
    places = list(dict.fromkeys(place for place, _ in counts))
    if places and not report.is_quiet:
        kinds = ("new", "changed", "removed")
        report.rows(("place", *kinds), [(place, *(counts[place, kind] for kind in kinds)) for place in places])
    for change in plan.changes:
        for line in _diff(plan.tree, change).splitlines():
            report.say(line, _COLOURS.get(line[:1]), bold=line.startswith(("+++", "---")))
    for note in plan.notes:
        report.say(note, "yellow")


def _place(tree: Tree, change: Change) -> str:
    """Return the folder below which a change is counted, or the path itself outside of the remotes folder."""
    inside = change.path[len(tree.remotes) + 1 :] if change.path.startswith(f"{tree.remotes}/") else ""
    folders = inside.split("/")[:2]
    return tree.here(f"{tree.remotes}/{'/'.join(folders)}" if inside else change.path)


def _is_folder(change: Change) -> bool:
    return any(content is not None and content.kind == DIRECTORY for content in (change.before, change.after))


def _diff(tree: Tree, change: Change) -> str:
    """Return what changes in a configuration file, empty for all others."""
    is_text = change.path in (*edited_files(tree), tree.configuration)
    if not is_text or change.before is None or change.before.kind != FILE or change.after is None:
        return ""
    before, after = (
        content.data.decode("utf-8", "replace").splitlines(keepends=True) for content in (change.before, change.after)
    )
    path = tree.here(change.path)
    lines = difflib.unified_diff(before, after, path, path, n=2)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
