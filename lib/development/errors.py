"""Why ./dev cannot go on."""

from __future__ import annotations


class NotPossible(RuntimeError):
    """Something that ./dev needs cannot be had; the text says what, why, and what to do."""
