"""Each kind of regression, planted into a copy of the driver, is found and named by comparing real runs."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench import comparison
from bench.cluster import Cluster, sandbox
from bench.figures import Results
from bench.scripts import rows
from bench.world import world
from tests.conftest import CHECKOUT

ACTION = "datastore/monitor"
RUNS = 3
LISTING = (
    "import http.client, os; connection = http.client.HTTPConnection(os.environ['LS_CONTROLLERS'][len('http://'):]); "
    "connection.request('GET', '/v1/view/resources'); connection.getresponse().read()"
)
# What is planted, and what must be said of it.
PLANTS = {
    "import time; time.sleep(0.7)": "waiting for neither CPU nor LINSTOR nor ssh: ",
    "import sqlite3": "imports: sqlite3 and ",
    'import subprocess; subprocess.run(["ssh", "node1", "true"], check=True)': "ssh connections: 0 → 1",
    LISTING: "1 more GET /v1/view/resources)",
}


def measured(cluster: Cluster, folder: Path, plant: str) -> Results:
    """Measure a copy of the driver with a line planted into the action."""
    remotes = folder / "remotes"
    for name in ("datastore", "tm", "vmm", "lib/linstor_un"):
        shutil.copytree(CHECKOUT / name, remotes / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (remotes / "lib/linstor_un/actions/datastore/monitor.py").open("a") as module:
        module.write(f"\n\n_run = run\n\n\ndef run(call: Call) -> None:\n    {plant}\n    _run(call)\n")
    with world(cluster, folder, remotes) as made:
        for run in range(RUNS + 1):
            made.scripts.importing = run == 0
            made.cloud.monitor(made.images)
        return Results({}, {"actions": rows(made.scripts.samples)})


def is_counted(line: str) -> bool:
    """Whether the machine's speed has no part in it."""
    return any(word in line for word in ("LINSTOR requests", "ssh connections", "requests to oned", "imports:"))


def test_each_regression_is_named_and_none_where_there_is_none(tmp_path: Path) -> None:
    with sandbox(tmp_path) as cluster:
        found = {}
        for number, plant in enumerate(("pass", "pass ", *PLANTS)):
            (tmp_path / str(number)).mkdir()
            found[plant] = measured(cluster, tmp_path / str(number), plant)
    before = found["pass"]
    row = before.row("actions", ACTION)
    assert row.median("requests") > 0 and row.modules and len(row.figures["cpu_ms"]) == RUNS
    assert [line for line in comparison.regressions(before, found["pass "]) if is_counted(line)] == []
    for plant, named in PLANTS.items():
        lines = comparison.regressions(before, found[plant])
        assert [line for line in lines if line.startswith(f"actions: {ACTION}: ") and named in line], (plant, lines)
