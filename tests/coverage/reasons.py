"""Why no test reaches a line or a branch of the driver."""

from __future__ import annotations

from tests.coverage.gaps import Gap

REASONS: dict[Gap, str] = {}
