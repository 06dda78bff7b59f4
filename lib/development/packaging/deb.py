"""The package for Debian and Ubuntu."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from development.packaging.layout import CONFIGURATION, File, layout, packed, takeover, write
from development.packaging.source import TEMPLATES, Vendored, system_version
from linstor_un import __version__

_SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def build(destination: Path, work: Path, vendored: Vendored, epoch: int, version: str = __version__) -> Path:
    """Build the package below `work`; return its path in the folder `destination`."""
    stage = work / "deb"
    shutil.rmtree(stage, ignore_errors=True)
    found = layout("deb", vendored, epoch)
    hook = (TEMPLATES / "deb" / "rtupdate").read_bytes()
    found["/usr/share/python3/runtime.d/linstor-un.rtupdate"] = File(hook, 0o755)
    found["/usr/share/lintian/overrides/linstor-un"] = File((TEMPLATES / "deb" / "lintian-overrides").read_bytes())
    found["/usr/share/doc/linstor-un/changelog.Debian.gz"] = File(packed(_changelog(version, epoch)))
    write({**found, **_control(found, version)}, stage, epoch)
    path = destination / f"linstor-un_{system_version(version)}-1_all.deb"
    # The oldest dpkg that is to read it knows no newer compression.
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(stage), str(path)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=True)
    return path


def _control(found: dict[str, File], version: str) -> dict[str, File]:
    """Return what dpkg reads, by its path in the folder that is packed."""
    kib = sum(len(file.data) // 1024 + 1 for file in found.values())
    control = (TEMPLATES / "deb" / "control").read_text(encoding="utf-8")
    control = control.replace("@VERSION@", system_version(version)).replace("@SIZE@", str(kib))
    sums = "".join(
        f"{hashlib.md5(file.data).hexdigest()}  {path.lstrip('/')}\n"
        for path, file in found.items()
        if not file.target and path != CONFIGURATION
    )
    scripts = {name: takeover((TEMPLATES / "deb" / name).read_text(encoding="utf-8")) for name in _SCRIPTS}
    return {
        "/DEBIAN/control": File(control.encode()),
        "/DEBIAN/md5sums": File(sums.encode()),
        "/DEBIAN/conffiles": File(f"{CONFIGURATION}\n".encode()),
        "/DEBIAN/triggers": File((TEMPLATES / "deb" / "triggers").read_bytes()),
        **{f"/DEBIAN/{name}": File(text.encode(), 0o755) for name, text in scripts.items()},
    }


def _changelog(version: str, epoch: int) -> bytes:
    from email.utils import formatdate

    maintainer = "linstor_un developers <linstor-un@packages.invalid>"
    entry = f"linstor-un ({system_version(version)}-1) unstable; urgency=medium\n\n  * Release {version}.\n\n"
    return f"{entry} -- {maintainer}  {formatdate(epoch)}\n".encode()
