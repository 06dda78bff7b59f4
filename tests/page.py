"""What commands write into the pages of docs/."""

from __future__ import annotations

from pathlib import Path


def put(page: Path, command: str, text: str) -> None:
    """Put text between the marks of a command that the page has, in the place of what it wrote there before."""
    begin, end = f"<!-- written by {command} --table -->", f"<!-- end of {command} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no place for {command}: put the lines {begin} and {end} into it")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
