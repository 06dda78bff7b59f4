"""The files of the deb and the rpm as they lie on a machine: what `linstor-un install` puts, and what goes with it."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import NamedTuple

from development.environment import CHECKOUT
from development.packaging import manual, materials
from development.packaging.source import TEMPLATES, Vendored, files
from linstor_un.cli.installation import packaged, payload
from linstor_un.cli.installation.changes import Content
from linstor_un.cli.installation.tree import COMMAND, Tree

_PYTHON = "/usr/bin/python3"
_DOCUMENTATION = "/usr/share/doc/linstor-un"
_LICENCES = "/usr/share/licenses/linstor-un"
# Not in the remotes folder, which oneadmin may write to: root runs what is here.
_PRIVATE = "/usr/share/linstor_un"
_MAINTAIN = f"{_PRIVATE}/maintain"
_TREE = Tree("", "/etc/one", "/var/lib/one", "/usr/bin", False)
CONFIGURATION = _TREE.configuration
# Folders with everything below them that are the packages' own; all others are OpenNebula's or the distribution's.
OWN_FOLDERS = (
    *(f"{_TREE.remotes}/{folder}" for folder in payload.OWN_FOLDERS if folder != payload.LIBRARY),
    str(Path(CONFIGURATION).parent),
    _PRIVATE,
    _DOCUMENTATION,
    _LICENCES,
)


class File(NamedTuple):
    """A file with its bytes and rights, or a link with its target."""

    data: bytes
    mode: int = 0o644
    target: str = ""


def layout(kind: str, vendored: Vendored, epoch: int) -> dict[str, File]:
    """Return the files by their path, for `kind` deb or rpm; what carries a date has `epoch`, in seconds."""
    content = payload.load(_PYTHON)
    library = f"{_PRIVATE}/{payload.LIBRARY}"
    found = {f"{_place(name)}/{name}": _file(item) for name, item in content.files.items()}
    found[f"{_TREE.remotes}/{payload.LIBRARY}"] = File(b"", target=library)
    found |= {f"{library}/{payload.VENDORED}/{name}": File(data) for name, data in vendored.files.items()}
    found[f"{_PRIVATE}/{packaged.KIND_FILE}"] = File(f"{kind}\n".encode())
    found[CONFIGURATION] = File(content.configuration)
    found[f"{_PRIVATE}/{COMMAND}"] = _file(content.files[COMMAND])
    found[_TREE.command] = File(b"", target=f"../share/linstor_un/{COMMAND}")
    found[_MAINTAIN] = File((TEMPLATES / "maintain").read_bytes(), 0o755)
    found |= _documentation(vendored, epoch)
    return dict(sorted(found.items()))


def _place(name: str) -> str:
    """Return the folder below which a file is that `install` puts into the remotes folder."""
    return _PRIVATE if name.startswith(f"{payload.LIBRARY}/") else _TREE.remotes


def _file(content: Content) -> File:
    return File(content.data, content.mode)


def _documentation(vendored: Vendored, epoch: int) -> dict[str, File]:
    pages = manual.pages(epoch).items()
    found = {f"/usr/share/man/man1/{name}.gz": File(packed(text.encode())) for name, text in pages}
    names = [name for name in files() if name == "README.md" or name.startswith("docs/")]
    found |= {f"{_DOCUMENTATION}/{name}": File((CHECKOUT / name).read_bytes()) for name in names}
    copyright_text = (TEMPLATES / "copyright").read_text(encoding="utf-8")
    copyright_text = copyright_text.replace("@VENDORED@", f"{vendored.name} {vendored.version}")
    found[f"{_DOCUMENTATION}/copyright"] = File(copyright_text.encode())
    found[f"{_DOCUMENTATION}/sbom.cdx.json"] = File(materials.bill(vendored, epoch).encode())
    found[f"{_LICENCES}/LICENSE"] = File((CHECKOUT / "LICENSE").read_bytes())
    found[f"{_LICENCES}/GPL-3.0.txt"] = File((TEMPLATES / "GPL-3.0.txt").read_bytes())
    return found


def packed(data: bytes) -> bytes:
    """Return data as gzip packs it, without the time of day."""
    return gzip.compress(data, 9, mtime=0)


def write(found: dict[str, File], stage: Path, epoch: int) -> None:
    """Lay the files out below a folder that is not there yet, all of one time, so that two builds are the same."""
    for path, file in found.items():
        place = stage / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.target:
            place.symlink_to(file.target)
        else:
            place.write_bytes(file.data)
            place.chmod(file.mode)
    for folder, _, names in os.walk(stage, topdown=False):
        for name in names:
            os.utime(Path(folder, name), (epoch, epoch), follow_symlinks=False)
        Path(folder).chmod(0o755)
        os.utime(folder, (epoch, epoch))


def takeover(template: str) -> str:
    """Return a template with the commands that make room for a first installation."""
    commands = (TEMPLATES / "takeover").read_text(encoding="utf-8").splitlines()
    return template.replace("@TAKEOVER@", "\n    ".join(commands))
