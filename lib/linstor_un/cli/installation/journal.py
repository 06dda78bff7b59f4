"""What was there before the driver: kept in OpenNebula's var folder, so that `uninstall` can put it back to the byte.

Written before the first change, so that an interrupted run is known to the next one. What was there can be read by its
owner only, since oned.conf holds passwords.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from linstor_un.cli.installation.changes import FILE, LINK, Change, Content, put
from linstor_un.cli.installation.tree import Tree
from linstor_un.errors import NotInstalled

_FORMAT = 1
_ABSENT = "absent"


class Entry(NamedTuple):
    """A path that was changed: what was there before, without its bytes, and the digests of it and of what came."""

    original: Optional[Content]
    original_digest: str
    installed: tuple[str, ...]


class Journal:
    """The record of one installation: its paths in the order in which they were changed.

    `version` and `python` are the installed ones; `is_complete` tells whether the last run came to its end.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.folder = tree.here(f"{tree.var}/linstor_un")
        self.entries: dict[str, Entry] = {}
        self.version = ""
        self.python = ""
        self.is_complete = False

    @property
    def exists(self) -> bool:
        """Tell whether an installation has begun here."""
        return os.path.exists(self._index)

    @property
    def _index(self) -> str:
        return os.path.join(self.folder, "installed.json")

    def _kept(self, path: str) -> str:
        return os.path.join(self.folder, "original", path.lstrip("/"))

    def is_ours(self, path: str, content: Optional[Content]) -> bool:
        """Tell whether this content of a path is what the driver has put there."""
        return path in self.entries and digest(content) in self.entries[path].installed

    def is_changed_since(self, path: str, content: Optional[Content]) -> bool:
        """Tell whether somebody else has changed a path since the driver did."""
        return not self.is_ours(path, content) and digest(content) != self.entries[path].original_digest

    def original(self, path: str) -> Optional[Content]:
        """Return what was at a path before the driver; raises OSError."""
        found = self.entries[path].original
        if found is None or found.kind != FILE:
            return found
        with open(self._kept(path), "rb") as file:
            return found._replace(data=file.read())

    def begin(self, changes: Sequence[Change]) -> None:
        """Remember what is there now at each path that was not changed before; raises OSError."""
        for change in changes:
            known = self.entries.get(change.path)
            if known is None and change.before is not None and change.before.kind == FILE:
                self._keep(change.path, change.before)
            first = known or Entry(change.before, digest(change.before), ())
            self.entries[change.path] = first._replace(installed=(*first.installed, digest(change.after)))
        self.is_complete = False
        self._write()

    def finish(self, version: str, python: str) -> None:
        """Remember that everything was done; raises OSError."""
        last = {path: entry._replace(installed=entry.installed[-1:]) for path, entry in self.entries.items()}
        self.entries, self.version, self.python, self.is_complete = last, version, python, True
        self._write()

    def remove(self) -> None:
        """Forget everything: nothing of the driver is left."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def restore(self) -> None:
        """Write this journal as it was read, for an undo; raises OSError."""
        if self.entries:
            self._write()
        else:
            self.remove()

    def _keep(self, path: str, content: Content) -> None:
        kept = self._kept(path)
        os.makedirs(os.path.join(self.folder, "original"), mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        put(kept, content._replace(owner=None))

    def _write(self) -> None:
        document = {
            "format": _FORMAT,
            "version": self.version,
            "python": self.python,
            "is_complete": self.is_complete,
            "paths": {path: _to_json(entry) for path, entry in self.entries.items()},
        }
        os.makedirs(self.folder, exist_ok=True)
        put(self._index, Content(FILE, json.dumps(document, indent=1).encode() + b"\n"))

    def read(self) -> Journal:
        """Return this journal with what has been written, nothing where there is none; raises NotInstalled."""
        try:
            with open(self._index, encoding="utf-8") as file:
                document = json.load(file)
            if document["format"] != _FORMAT:
                raise ValueError("it has another format")
            others = [path for path in document["paths"] if not self._tree.holds(path)]
            if others:
                raise ValueError(f"it names {others[0][:200]}, which no installation changes")
            self.entries = {path: _from_json(entry) for path, entry in document["paths"].items()}
            self.version, self.python = document["version"], document["python"]
            self.is_complete = document["is_complete"]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError) as failure:
            raise NotInstalled(
                f"{self._index} cannot be read ({failure}): use the linstor-un that has written it; what was there "
                f"before the driver is below {self.folder}/original"
            ) from None
        return self


def _to_json(entry: Entry) -> dict[str, Any]:
    original = entry.original._asdict() if entry.original else None
    if original:
        del original["data"]
    return {"original": original, "original_digest": entry.original_digest, "installed": entry.installed}


def _from_json(entry: dict[str, Any]) -> Entry:
    original = entry["original"]
    if original:
        original = Content(**{**original, "owner": tuple(original["owner"])})
    return Entry(original or None, entry["original_digest"], tuple(entry["installed"]))


def digest(content: Optional[Content]) -> str:
    """Return what tells contents apart: nothing, a folder, a link's target, a file's bytes."""
    if content is None:
        return _ABSENT
    if content.kind == FILE:
        return hashlib.sha256(content.data).hexdigest()
    return f"{content.kind}:{content.target}" if content.kind == LINK else content.kind
