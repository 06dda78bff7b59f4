"""What Python says of its imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.figures import Module
from bench.imports import parse, without

SAID = """\
import time: self [us] | cumulative | imported package
import time:       150 |        150 |     _io
import time:        20 |         20 |     marshal
import time:       300 |        470 |   zipimport
import time:        10 |        480 | site
WARN: tm/ln: said besides
import time:        50 |         50 |   zipimport
import time:       100 |        150 | linstor_un.driver
"""


def test_each_module_has_its_own_time_and_its_importer() -> None:
    assert parse(SAID) == {
        "_io": Module(0.15, "zipimport"),
        "marshal": Module(0.02, "zipimport"),
        "zipimport": Module(0.35, "linstor_un.driver"),
        "site": Module(0.01, ""),
        "linstor_un.driver": Module(0.1, ""),
    }


def test_what_is_said_besides_stays() -> None:
    assert without(SAID) == "WARN: tm/ln: said besides\n"


def test_a_real_interpreter(tmp_path: Path) -> None:
    (tmp_path / "outer.py").write_text("import inner\n")
    (tmp_path / "inner.py").write_text("import leaf\n")
    (tmp_path / "leaf.py").touch()
    command = [sys.executable, "-X", "importtime", "-c", "import outer"]
    found = parse(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr)
    assert [found[name].importer for name in ("outer", "inner", "leaf")] == ["", "outer", "inner"]
    assert found["inner"].milliseconds > 0
