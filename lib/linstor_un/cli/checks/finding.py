"""What a check has found: how bad it is, what it is, what to do, and where that is explained."""

from __future__ import annotations

from typing import NamedTuple

from linstor_un.errors import DriverError

ERROR, WARNING = "error", "warning"


class Finding(NamedTuple):
    """One fault; `code` is its name and its heading in docs/check.md."""

    severity: str
    code: str
    what: str
    remedy: str

    @property
    def documentation(self) -> str:
        """Return where it is explained."""
        return f"docs/check.md#{self.code}"


def error(code: str, what: str, remedy: str) -> Finding:
    """Return a finding because of which something fails."""
    return Finding(ERROR, code, what, remedy)


def warning(code: str, what: str, remedy: str) -> Finding:
    """Return a finding because of which something may fail one day, or is worse than it could be."""
    return Finding(WARNING, code, what, remedy)


def of_failure(code: str, failure: DriverError) -> Finding:
    """Return an error of the driver's own, whose sentence ends with its remedy: behind the last colon or semicolon."""
    sentence, depth, end = str(failure), 0, 0
    for place, character in enumerate(sentence):
        depth += (character == "(") - (character == ")")
        if depth == 0 and sentence[place : place + 2] in (": ", "; "):
            end = place
    return error(code, sentence[:end] or sentence, sentence[end + 2 :] if end else "")
