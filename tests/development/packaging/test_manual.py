"""The man pages: one for each verb, with all that --help says, in roff that no reader complains about."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from click.testing import CliRunner

from development.packaging import manual
from linstor_un.cli.verbs import VERBS, command

PAGES = manual.pages(0)


def plain(page: str) -> str:
    """Return a page's words without roff's."""
    for before, after in (("\\-", "-"), ("\\fB", ""), ("\\fR", ""), ("\\&", ""), ("\\e", "\\")):
        page = page.replace(before, after)
    return page


def test_every_verb_has_its_page_and_those_of_a_verb_too() -> None:
    assert {f"linstor-un-{verb}.1" for verb in VERBS} < set(PAGES)
    assert {"linstor-un.1", "linstor-un-datastore-create.1", "linstor-un-adopt-image.1"} < set(PAGES)
    for verb in VERBS:
        assert f"linstor-un-{verb}(1)" in plain(PAGES["linstor-un.1"])


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_says_what_help_says(name: str) -> None:
    words = name[: -len(".1")].split("-")[2:]
    wide = {"terminal_width": 500, "max_content_width": 500}
    told = CliRunner().invoke(command, [*words, "--help"], prog_name="linstor-un", **wide).output
    # click breaks lines behind a hyphen.
    told = re.sub(r"(?<=\w-)\n +", "", told)
    page = plain(PAGES[name]).split()
    headings = {"Usage:", "Options:", "Commands:", "Examples:", "Exit", "codes:"}
    left_out = {*headings, *VERBS, "create", "datastore", "image"}
    missing = [word for word in told.split() if word not in page and word not in left_out]
    assert missing == []
    assert "EXAMPLES" in page or name in ("linstor-un-datastore.1", "linstor-un-adopt.1")


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_is_clean_roff(name: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not here")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-wall"], input=PAGES[name], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "\b" not in PAGES[name]


def test_a_line_that_begins_as_roff_does_is_text() -> None:
    assert manual._escaped(".bashrc \\ -x") == "\\&.bashrc \\e \\-x"
