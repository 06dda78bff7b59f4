from __future__ import annotations

from pathlib import Path

import pytest

from linstor_sandbox.conformance import __main__ as conformance
from linstor_sandbox.conformance.recordings import FOLDER, Exchange
from linstor_sandbox.conformance.scenes import Scene
from linstor_sandbox.conformance.stage import both, cluster

CREATE = Exchange(
    1, "a definition", "POST", "/v1/resource-definitions", "", {"resource_definition": {"name": "rd"}}, 201, []
)
MISSING = Exchange(2, "not there", "GET", "/v1/resource-definitions/nosuch", "", None, 404, [])


def test_nothing_to_compare_with_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(conformance, "FOLDER", tmp_path / "nowhere")
    assert conformance.main([]) == 0
    assert "there are no recorded exchanges in" in capsys.readouterr().out
    assert conformance.main(["--required"]) == 1


def test_what_is_different_and_left_out_is_counted_and_told() -> None:
    scene = Scene({0: [cluster], 2: [("DELETE", "/v1/resource-definitions/rd")]}, {2: "nobody calls it"})
    result = conformance.replay("99-trial", [CREATE, MISSING], scene)
    assert (result.exchanges, result.equal) == (2, 0)
    assert result.left_out == ["99/002 GET /v1/resource-definitions/nosuch: nobody calls it"]
    assert "99/001 POST /v1/resource-definitions (a definition)" in result.different[0]
    assert "New resource definition 'rd' created." in result.different[0]


@pytest.mark.parametrize(("disk", "equal"), [("UpToDate", 1), ("Inconsistent", 0)])
def test_what_a_note_tells_of_resources_is_compared(disk: str, equal: int) -> None:
    note = f"after: n1 pool=thinpool flags=[] in_use=False disk=['{disk}'] dev=['/dev/drbd1000']"
    scene = Scene({0: [cluster, *both("rd", place_count=1)]})
    result = conformance.replay("99-trial", [Exchange(1, note), Exchange(2, "a pause")], scene)
    assert (result.exchanges, result.equal, len(result.different)) == (1, equal, 1 - equal)


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recorded exchanges in {FOLDER}")
def test_one_scenario_of_the_recordings_is_equal(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them: ./dev conformance."""
    assert conformance.main(["07"]) == 0
    assert "different: nothing" in capsys.readouterr().out
