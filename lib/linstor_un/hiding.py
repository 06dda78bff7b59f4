"""What no message, log line or recording may show: who logs in at a URL and how, and its query, which may be a key."""

from __future__ import annotations

import re

HIDDEN = "(hidden)"
# In a sentence a URL ends at a blank, in XML at the next tag or the end of its CDATA.
_CHARACTER = r"(?!\]\]>)[^\s<]"
# What is a host already has nothing to hide before it, whatever stands behind: an @ may be in a path.
_HOST = r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d*)?/"
_USER = rf"(?a)://(?!{_HOST})(?:(?!\?){_CHARACTER})*@"
_QUERY = rf"(?a)(://(?:(?!\?){_CHARACTER})*\?)(?!\(hidden\))(?:{_CHARACTER})+"


def urls(text: str) -> str:
    """Return the text with what is secret in its URLs hidden."""
    if "://" not in text:
        return text
    return re.sub(_QUERY, rf"\1{HIDDEN}", re.sub(_USER, f"://{HIDDEN}@", text))


def url(text: str) -> str:
    """Return a text that is one URL, blanks and all, with what is secret in it hidden."""
    return urls(text.replace(" ", "\0")).replace("\0", " ")
