"""The package for EL and its relatives."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from development.errors import NotPossible
from development.packaging.layout import CONFIGURATION, OWN_FOLDERS, File, layout, takeover, write
from development.packaging.source import TEMPLATES, Vendored, system_version
from linstor_un import __version__

_NAME = "linstor-un"


def build(destination: Path, work: Path, vendored: Vendored, epoch: int, version: str = __version__) -> Path:
    """Build the package below `work`; return its path in the folder `destination`; raises NotPossible."""
    stage, top = work / "rpm", work / "rpmbuild"
    for folder in (stage, top):
        shutil.rmtree(folder, ignore_errors=True)
    found = layout("rpm", vendored, epoch)
    write(found, stage, epoch)
    top.mkdir(parents=True)
    (top / "files").write_text("".join(f"{line}\n" for line in _listed(found)), encoding="utf-8")
    spec = takeover((TEMPLATES / "rpm" / f"{_NAME}.spec").read_text(encoding="utf-8"))
    spec = spec.replace("@VERSION@", system_version(version)).replace("@VENDORED@", vendored.version)
    (top / f"{_NAME}.spec").write_text(spec, encoding="utf-8")
    definitions = {
        "_topdir": str(top),
        "_rpmdir": str(top),
        "stage": str(stage),
        "file_list": str(top / "files"),
        "_buildhost": "localhost",
        "use_source_date_epoch_as_buildtime": "1",
        "clamp_mtime_to_source_date_epoch": "1",
        # Every rpm reads it.
        "_binary_payload": "w9.gzdio",
    }
    words = [word for name, value in definitions.items() for word in ("--define", f"{name} {value}")]
    command = ["rpmbuild", "-bb", "--quiet", *words, str(top / f"{_NAME}.spec")]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    if done.returncode != 0:
        raise NotPossible(f"rpmbuild has failed:\n{done.stderr.strip()}")
    built = next((top / "noarch").glob("*.rpm"))
    return Path(shutil.move(built, destination / built.name))


def _listed(found: dict[str, File]) -> list[str]:
    """Return the lines of a file list: our folders, then the files with their rights."""
    folders = {str(folder) for path in found for folder in Path(path).parents if _is_own(str(folder))}
    lines = [f"%dir %attr(0755, root, root) {folder}" for folder in sorted(folders)]
    for path, file in found.items():
        kind = "%config(noreplace) " if path == CONFIGURATION else ""
        rights = "" if file.target else f"%attr({file.mode:04o}, root, root) "
        lines.append(f'{kind}{rights}"{path}"')
    return lines


def _is_own(folder: str) -> bool:
    return any(folder == own or folder.startswith(f"{own}/") for own in OWN_FOLDERS)
