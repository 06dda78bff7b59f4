"""`./dev packages`: build everything that is installed from, into build/packages."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from development import debian
from development.environment import CHECKOUT, TOOLS
from development.errors import NotPossible
from development.packaging import deb, materials, python, rpm
from development.packaging.source import epoch, vendored
from linstor_un import __version__

_DESTINATION = CHECKOUT / "build" / "packages"
_WORK = CHECKOUT / "build" / "work"
KINDS = ("deb", "rpm", "python", "sbom")


def main(arguments: list[str]) -> int:
    """Build the kinds of packages that are asked for, all where none is; what cannot be built is said."""
    parser = argparse.ArgumentParser(prog="./dev packages", description="Build packages into build/packages.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"some of {', '.join(KINDS)}; all without")
    wanted = parser.parse_args(arguments).kinds or list(KINDS)
    unknown = [kind for kind in wanted if kind not in KINDS]
    if unknown:
        parser.error(f"there is no package of kind {unknown[0]}: name some of {', '.join(KINDS)}")
    failures = [kind for kind in wanted if not _is_built(kind)]
    return 1 if failures else 0


def _is_built(kind: str) -> bool:
    try:
        debian.provide(debian.BUILDERS.get(kind, ()), TOOLS, _say)
        for path in build(kind, _DESTINATION, _WORK):
            print(os.path.relpath(path))
        return True
    except NotPossible as error:
        print(f"./dev packages: no {kind}: {error}", file=sys.stderr)
        return False


def build(kind: str, destination: Path, work: Path) -> list[Path]:
    """Build the packages of one kind; return their paths in the folder `destination`; raises NotPossible."""
    destination.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    if kind == "python":
        return python.build(destination, work, epoch())
    if kind == "sbom":
        path = destination / f"linstor_un-{__version__}.cdx.json"
        path.write_text(materials.bill(vendored(), epoch()), encoding="utf-8")
        return [path]
    builder = deb if kind == "deb" else rpm
    return [builder.build(destination, work, vendored(), epoch())]


def _say(text: str) -> None:
    print(f"./dev packages: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
