"""The command as it is typed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.cluster import sandbox
from bench.figures import Results, Row, read
from bench.rest import Rest
from tests.conftest import CHECKOUT

MARK = "<!-- written by ./dev bench --table -->"


def test_a_part_its_file_its_page_and_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, kept, page = tmp_path / "old.json", tmp_path / "bench.json", tmp_path / "page.md"
    Results({}, {"startup": [Row("tm/clone", {"ssh": [0], "cpu_ms": [100_000]})]}).write(old)
    page.write_text(f"# Performance\n\n{MARK}\n\nwhat was there\n")
    command = ["startup", "--runs", "1", "--json", str(kept), "--table", str(page), "--against", str(old)]
    assert main(command) == 1
    shown = capsys.readouterr().out
    assert "Start-up by package" in shown
    assert "worse: startup: tm/clone: ssh connections: 0 → 1\n1 became worse.\n" in shown
    assert page.read_text().startswith(f"# Performance\n\n{MARK}\n\n`./dev bench startup --runs 1")
    assert "\n| tm/clone | " in page.read_text() and "what was there" not in page.read_text()
    row = read(kept).row("startup", "tm/clone")
    assert row.median("requests") > 0 and row.median("cpu_ms") > 0 and "linstor.linstorapi" in row.modules


def test_other_parts_are_kept_with_what_they_were_made_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, page = tmp_path / "bench.json", tmp_path / "page.md"
    page.write_text(MARK)
    made = {name: name for name in ("command", "when", "commit", "python", "lxml", "processors", "runs")}
    crowd = {"seconds": [1.0], "per_minute": [60.0], "share": [20.0], "own_ms": [1.0]}
    before = {"startup": [Row("tm/ln", {"cpu_ms": [1]})], "crowd": [Row("all", crowd)]}
    Results({**made, "python-linstor": "1"}, before).write(kept)
    assert main(["startup", "--runs", "1", "--json", str(kept), "--keep", "--table", str(page)]) == 0
    assert "startup: `./dev bench startup" in capsys.readouterr().out
    found = read(kept)
    assert found.kept["crowd"]["commit"] == "commit" and list(found.kept) == ["crowd"]
    assert found.row("startup", "tm/clone") and found.row("crowd", "all").median("share") == 20
    assert "\n\ncrowd: `command`: when, commit commit" in page.read_text() and "20.0: all" in page.read_text()


def test_a_real_cluster_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = ("node1", "node2", "node3")
    with sandbox(tmp_path, nodes, nodes) as cluster:
        monkeypatch.setenv("PATH", cluster.environment["PATH"])
        rest = Rest(cluster.uri)
        spawned = {
            "resource_definition_name": "one-image-1",
            "volume_sizes": [4096],
            "select_filter": {"place_count": 1},
        }
        rest("POST", "/v1/resource-groups/DfltRscGrp/spawn", spawned)
        before = [rest("GET", f"/v1/{kind}") for kind in ("resource-definitions", "resource-groups")]
        place = ["--controller", cluster.uri, "--nodes", "node3,node2,node1"]
        kept = tmp_path / "bench.json"
        assert main(["clone", "--runs", "1", "--at-once", "2", "--json", str(kept), *place]) == 0
        assert [rest("GET", f"/v1/{kind}") for kind in ("resource-definitions", "resource-groups")] == before
        assert list(tmp_path.glob("sandbox/hosts/*/var/lib/one/datastores/*")) == []
        assert "2 clone calls at once" in capsys.readouterr().out
        spawned["resource_definition_name"] = "bench-image-1"
        rest("POST", "/v1/resource-groups/DfltRscGrp/spawn", spawned)
        assert main(["clone", *place]) == 2
        assert "remove what begins with bench- first" in capsys.readouterr().err
        assert "bench-image-1" in [item["name"] for item in rest("GET", "/v1/resource-definitions")]


def test_what_is_interrupted_removes_what_it_has_made(tmp_path: Path) -> None:
    with sandbox(tmp_path) as cluster:
        command = [sys.executable, "-m", "bench", "startup", "--json", str(tmp_path / "kept.json")]
        command += ["--controller", cluster.uri, "--nodes", "node1,node2,node3"]
        environment = {**cluster.environment, "PYTHONPATH": f"{CHECKOUT / 'lib'}"}
        rest = Rest(cluster.uri)
        with subprocess.Popen(command, env=environment, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as running:
            while not rest("GET", "/v1/resource-definitions"):
                assert running.poll() is None
                time.sleep(0.02)
            running.terminate()
            assert running.communicate()[1].endswith("./dev bench: interrupted\n")
        assert running.returncode == 130
        assert rest("GET", "/v1/resource-definitions") == []
        assert not (tmp_path / "kept.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--controller", "linstor+ssl://c", "--nodes", "a,b,c"], "are encrypted and cannot be counted"),
        (["--controller", "http://127.0.0.1:1", "--nodes", "a,b,c"], "no LINSTOR answers at http://127.0.0.1:1"),
        (["--controller", "http://127.0.0.1:1", "--nodes", "a,b"], "--nodes names fewer than three"),
        (["--against", "/no/such/file"], "No such file"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["startup", *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["everything"], "there is no part everything: use startup, actions, data, clone, monitor, crowd"),
        (["--controller", "http://c"], "--controller and --nodes go together"),
        (["--controller", "http://c", "--nodes", "a,b,c", "--volumes", "5"], "--volumes needs a sandbox"),
        (["--driver", "/tmp"], "name a checkout or a remotes folder"),
        (["--runs", "0"], "counts and sizes are at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert says in capsys.readouterr().err
