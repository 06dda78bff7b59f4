"""map: every volume in every place that it has, readable in a terminal, and in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from linstor_un.cli import map as map_verb
from tests.linstor_un.cli.clouds import NODES, Estate
from tests.linstor_un.cli.planted import D0, open_volume, outdated

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(map_verb.command, list(arguments), catch_exceptions=False)


def html(*arguments: str) -> str:
    return run("--html", "-", *arguments).output


def data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    loaded: dict[str, Any] = json.loads(found.group(1))
    return loaded


def test_in_the_terminal(estate: Estate) -> None:
    open_volume(estate, D0, "node1")
    outdated(estate, "one-vm-2-disk-0", 1)
    estate.sandbox.cluster.touch()
    text = run().output
    [first] = re.findall(r"^node1  ONLINE\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    lines = first.splitlines()
    assert re.fullmatch(r"  data LVM_THIN \[-{20}\] 0% of 1024.0 GiB", lines[0])
    assert lines[1] == "  VM 0 (vm-0)"
    assert lines[2:4] == [
        "    o  one-image-1  0.06 GiB  up to date  ■ node2 ■ node3",
        f"    ■* {D0}  0.06 GiB  up to date  ■ node2 · node3",
    ]
    assert "  without a VM here" in lines
    assert "□ one-vm-2-disk-0" in text.replace("□  ", "□ ")
    assert text.splitlines()[-1].startswith("■ replica")


def test_a_vm_whose_volume_is_not_there_is_seen(estate: Estate) -> None:
    estate.cloud.machines[0].place("node4", 3, estate.system)
    assert re.search(rf"^       {D0} .*  not here!$", run().output, re.MULTILINE)


def test_only_what_is_asked_for(estate: Estate) -> None:
    drawn = json.loads(run("--json", "--vm", "1").output)
    assert {volume["name"] for volume in drawn["volumes"]} == {"one-vm-1-disk-0", "one-vm-1-disk-1"}
    assert [box["name"] for box in drawn["boxes"]] == ["node1", "node2", "node3"]
    assert "one-vm-1-disk-0,disk 0 of VM 1 (vm-1),node2,replica,False,True" in run("--csv").output


def test_the_page_needs_nothing_else_and_has_it_all(estate: Estate) -> None:
    page = html()
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|fetch\(", page)
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}, "a name, not an address"
    drawn = data(page)
    state = estate.sandbox.snapshot_of_state()["resource_definitions"]
    assert {volume["name"]: {spot["node"] for spot in volume["spots"]} for volume in drawn["volumes"]} == {
        name: set(item["resources"]) for name, item in state.items()
    }


def test_names_that_users_give_are_no_markup(estate: Estate) -> None:
    name = '</script><img src="x" onerror="alert(1)">'
    estate.cloud.machines[0].name = name
    page = html()
    assert "<img" not in page and "</script><" not in page.split('id="data">')[1].split("</script>\n")[0]
    assert data(page)["boxes"][0]["guests"] == [{"vm_id": 0, "name": name}]


@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
def test_in_a_browser(estate: Estate, tmp_path: Path) -> None:
    estate.cloud.machines[0].name = "<b>web</b>"
    body = rendered(tmp_path, html(), D0)
    assert len(re.findall(r'<button class="cell ', body)) == sum(
        len(item["resources"]) for item in estate.sandbox.snapshot_of_state()["resource_definitions"].values()
    )
    assert "0 &lt;b&gt;web&lt;/b&gt;" in body
    # Begun with that volume: its three places and its VM are marked, and the VM is linked to each place.
    assert len(re.findall(r'<button class="[^"]*\bhot\b', body)) == 4
    assert len(re.findall(r'<path d="[^"]*" class="hot"', body)) == 3
    assert "9 of 9 volumes on 4 nodes, 3 VMs" in body and ">1 VM<" in body
    assert f"{D0}: disk 0 of VM 0" in body


@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
def test_a_thousand_volumes_in_a_browser(cloud: Estate, tmp_path: Path) -> None:
    cloud.clear()
    base = cloud.image()
    for number in range(999):
        cloud.machine(NODES[number % 4], base)
    body = rendered(tmp_path, html(), "one-vm-77-disk-0")
    assert "1000 of 1000 volumes on 4 nodes, 999 VMs" in body
    assert len(re.findall("<path ", body)) == 3, "only what is pointed at is linked"
    assert len(re.findall(r'<button class="guest', body)) == 999


def rendered(folder: Path, page: str, name: str) -> str:
    """The page's body as the browser has it after its scripts have run."""
    (folder / "map.html").write_text(page, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"]
    command += [f"--user-data-dir={folder / 'browser'}", "--dump-dom", f"file://{folder}/map.html#{name}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return shown.stdout.partition("<body>")[2]
