"""The documentation: no link leads nowhere, every page is in the site, and what it lists is what the driver has."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from development import sentences
from linstor_un.settings import ALIASES, ATTRIBUTES, CONFIGURATION_ONLY, OBSOLETE, Settings
from tests.conftest import CHECKOUT

PAGES = sorted((CHECKOUT / "docs").glob("*.md"))


def build(checkout: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed here")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        checkout / "mkdocs.yml",
        "-d",
        site,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_page_is_in_the_site_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    done = build(CHECKOUT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert {page.stem for page in PAGES} < {path.stem for path in (tmp_path / "site").glob("*.html")}
    fetched = re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]*)', (tmp_path / "site/index.html").read_text())
    assert fetched == []


def test_every_sentence_of_the_driver_is_below_its_kind(tmp_path: Path) -> None:
    assert build(CHECKOUT, tmp_path / "site").returncode == 0
    page = html.unescape((tmp_path / "site/trouble.html").read_text())
    entries = {
        found.group(1): found.group(2) for found in re.finditer(r"\((\w+)\)<a.*?</h3>(.*?)(?=<h[23]|$)", page, re.S)
    }
    said = sentences.of_kinds()
    assert len(said["InvalidInput"]) > 50 and "DRBD lets one host write at a time" in " ".join(said["InUse"])
    assert [text for kind, texts in said.items() for text in texts if f"<li>{text}</li>" not in entries[kind]] == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[nowhere](nowhere.md)", "'nowhere.md', but the target is not found"),
        ("[no heading](check.md#nothing)", "does not contain an anchor '#nothing'"),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(text: str, complaint: str, tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "docs", tmp_path / "docs")
    shutil.copy(CHECKOUT / "mkdocs.yml", tmp_path)
    (tmp_path / "lib").symlink_to(CHECKOUT / "lib")
    with (tmp_path / "docs/audit.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{text}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert "docs/trouble.md" in targets
    assert [target for target in targets if not (CHECKOUT / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_item_of_a_list_is_taken_for_the_paragraph_before(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    pairs = zip(lines, lines[1:])
    assert [line for before, line in pairs if re.match(r"\d+\. |- ", line) and before.startswith("    ")] == []


def rows() -> dict[str, list[str]]:
    """Return the further cells of each row of the page on datastores, by every name in the first."""
    found: dict[str, list[str]] = {}
    for line in (CHECKOUT / "docs/datastores.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else [""]
        found.update(dict.fromkeys(re.findall(r"`([A-Z_]+)`", cells[0]), cells[1:]))
    return found


def test_every_attribute_and_setting_has_its_row_and_nothing_else_has() -> None:
    of_opennebula = {"TYPE", "DS_MAD", "TM_MAD", "DISK_TYPE"}
    assert rows().keys() == {*ATTRIBUTES, *ALIASES, *CONFIGURATION_ONLY, *of_opennebula}


@pytest.mark.parametrize("name", [name for name in CONFIGURATION_ONLY if name != "FRONTEND_HOSTNAME"])
def test_a_settings_default_is_what_its_row_says(name: str) -> None:
    default = getattr(Settings(), CONFIGURATION_ONLY[name][0])
    shown = " ".join(default) if isinstance(default, tuple) else str(default)
    # Where it is a folder that is looked for, the page names the first.
    assert rows()[name][0].strip("`") == (shown or "/var/lock/one")


def test_the_page_on_upgrades_names_what_is_ignored() -> None:
    text = (CHECKOUT / "docs/upgrade.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "are ignored" in line)
    assert set(re.findall(r"`([A-Z_]+)`", line)) == set(OBSOLETE)
