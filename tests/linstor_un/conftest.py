"""How the property tests run: the same examples every time, and no example fails for a slow machine."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")
