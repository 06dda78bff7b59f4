"""What the site adds to the page on troubles: under each kind of failure all sentences of the driver that are of it.

A hook of mkdocs. The sentences are read from the source, so that none can be missing.
"""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path
from typing import Any

_DRIVER = Path(__file__).resolve().parents[1] / "linstor_un"
_PAGE = "trouble.md"
_ENTRY = re.compile(r"^### .*\((\w+)\)$", re.MULTILINE)
_HEADING = re.compile(r"^###? ", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Return the text of a page, with the sentences where it is the one on troubles."""
    if page.file.src_uri != _PAGE:
        return markdown
    said = of_kinds()
    for entry in reversed(list(_ENTRY.finditer(markdown))):
        following = _HEADING.search(markdown, entry.end())
        end = following.start() if following else len(markdown)
        markdown = f"{markdown[:end].rstrip()}\n\n{_shown(said.get(entry.group(1), []))}\n\n{markdown[end:]}"
    return markdown


def of_kinds() -> dict[str, list[str]]:
    """Return the sentences by the class that they are raised with, with `…` for what differs from one to another."""
    kinds = [item.name for item in _parsed(_DRIVER / "errors.py").body if isinstance(item, ast.ClassDef)]
    found: dict[str, set[str]] = {kind: set() for kind in kinds}
    calls = [item for path in _DRIVER.rglob("*.py") for item in ast.walk(_parsed(path)) if isinstance(item, ast.Call)]
    for call in calls:
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        if name in found and call.args:
            found[name] |= _sentences(call.args[0])
    return {kind: sorted(sentences) for kind, sentences in found.items()}


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _sentences(argument: ast.expr) -> set[str]:
    """Return what an argument can be; nothing where it is made elsewhere."""
    if isinstance(argument, ast.IfExp):
        return _sentences(argument.body) | _sentences(argument.orelse)
    text = _text(argument)
    return {text} if re.search(r"\w{2}", text) else set()


def _text(part: ast.expr) -> str:
    if isinstance(part, ast.JoinedStr):
        return "".join(_text(value) for value in part.values)
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "…"


def _shown(sentences: list[str]) -> str:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<details><summary>All sentences of this kind</summary><ul>{items}</ul></details>" if items else ""
