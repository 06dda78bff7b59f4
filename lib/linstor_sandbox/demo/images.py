"""The image of the demonstration: one that is made, or the user's, and beside it the bytes that must arrive."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

MIB = 1 << 20

MADE_SIZE_MIB = 64
_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}


class ImageProblem(RuntimeError):
    """The image cannot be had or read; the text says why."""


@dataclass(frozen=True)
class PreparedImage:
    """What `oneimage create --path` gets, the raw bytes that must be in the volume, and whether it is a lone ext4."""

    path: str
    reference: Path
    is_ext4: bool

    @property
    def size_mib(self) -> int:
        """The size that the driver has to tell, rounded up to MiB."""
        return -(-self.reference.stat().st_size // MIB)


def prepare(wanted: Optional[str], folder: Path) -> PreparedImage:
    """Make an image or take the wanted one; everything new is below `folder`."""
    if wanted is None:
        made = _make(folder)
        return PreparedImage(str(made), made, True)
    if wanted.startswith(("http://", "https://")):
        source, path = _download(wanted, folder / "downloaded"), wanted
    else:
        source = _copy(Path(wanted), folder)
        path = str(source)
    return PreparedImage(path, _raw(source, folder), False)


def _make(folder: Path) -> Path:
    """An ext4 file system with a few files, one of them random, so that wrong bytes cannot go unseen."""
    tree, image = folder / "tree", folder / "demo.raw"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "hostname").write_text("demo\n", encoding="utf-8")
    (tree / "etc" / "motd").write_text("This file was in the image when it was imported.\n", encoding="utf-8")
    (tree / "random").write_bytes(os.urandom(5 * MIB + 321))
    with image.open("wb") as sparse:
        sparse.truncate(MADE_SIZE_MIB * MIB)
    # No lazy initialisation: the file system has to be complete as it is, nobody mounts it.
    run("mkfs.ext4", "-q", "-F", "-L", "demo", "-E", "lazy_itable_init=0", "-d", str(tree), str(image))
    shutil.rmtree(tree)
    return image


def _copy(wanted: Path, folder: Path) -> Path:
    if not wanted.is_file():
        raise ImageProblem(f"{wanted} is no file: give --image the path of an image or a URL")
    target = folder / wanted.name
    run("cp", "--sparse=always", "--reflink=auto", str(wanted), str(target))
    return target


def _download(url: str, target: Path) -> Path:
    try:
        with closing(urllib.request.urlopen(url, timeout=60)) as answer, target.open("wb") as file:
            shutil.copyfileobj(answer, file, MIB)
    except (urllib.error.URLError, OSError) as error:
        raise ImageProblem(f"cannot download {url}: {error}") from error
    return target


def _raw(source: Path, folder: Path) -> Path:
    """The virtual disk as raw bytes, by other means than the driver's."""
    plain, reference = _decompressed(source, folder / "plain"), folder / "reference.raw"
    told = json.loads(run("qemu-img", "info", "--output=json", str(plain)))
    run("qemu-img", "convert", "-f", told["format"], "-O", "raw", str(plain), str(reference))
    return reference


def _decompressed(source: Path, target: Path) -> Path:
    with source.open("rb") as file:
        start = file.read(6)
    form = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    if form is None:
        return source
    if form == "zst":
        run("zstd", "-q", "-d", "-f", "-o", str(target), str(source))
        return target
    with _opened(source, form) as packed, target.open("wb") as plain:
        shutil.copyfileobj(packed, plain, MIB)
    return target


def _opened(source: Path, form: str) -> IO[bytes]:
    if form == "gz":
        return gzip.open(source)  # type: ignore[return-value]
    return bz2.open(source) if form == "bz2" else lzma.open(source)


def run(*command: str) -> str:
    """Run a tool and return what it prints; ImageProblem tells what it complained about."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise ImageProblem(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
