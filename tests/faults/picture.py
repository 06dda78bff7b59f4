"""Everything that there is in a world, thing by thing, without what legitimately differs from run to run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linstor_sandbox.storage import Content, data_extents
from tests.linstor_un.scenes import state

if TYPE_CHECKING:
    from tests.faults.stage import Stage

Picture = Mapping[str, str]
_BLOCK = 1 << 16
_SETTLING_SECONDS = 8
# This one and those that listen: LINSTOR, its hosts' tools, oned, a source of images.
_THREADS = 5
# mktemp's letters, and when a backup has taken a snapshot.
_RANDOM = r"(linstor_un(?:-export)?\.)\w{10}\b|(backup-\d+-\d+-)\d{10}(?=-\d)"
_DISK_OF_BACKUP = r"/backup/disk\.\d+\.\d+$"
# What is on a file system or swap is told by its kind and places, as both have an identity of their own.
_SIGNATURES = {"ext": (1080, b"\x53\xef"), "swap": (4086, b"SWAPSPACE2")}


def picture(stage: Stage) -> Picture:
    """What there is once nothing of the driver's runs any more, nor of LINSTOR's for it, or enough time was given."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    while ((left := stage.processes()) or threading.active_count() > _THREADS) and time.monotonic() < deadline:
        time.sleep(0.02)
    found: dict[str, Any] = {**state(stage.world), "processes": {name: name for name in left.values()}}
    found["bytes"] = dict(_bytes(stage))
    domains = stage.world.sandbox.domains.all.values()
    found["held"] = {domain.name: "held" for domain in domains if domain.guest.frozen or domain.state != "running"}
    for node, below in found["files"].items():
        for name in filter(re.compile(_DISK_OF_BACKUP).search, below):
            below[name] = _image(stage.world.sandbox.host(node) / "var" / name)
    for folder in ("frontend", "locks", "temporary"):
        top = stage.folder / folder
        found[folder] = {str(path.relative_to(top)): path.stat().st_size for path in top.rglob("*") if path.is_file()}
    return dict(_numbered(_things("", found)))


def _numbered(things: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The things, of which those that differ by chance alone are counted."""
    counts: Counter[str] = Counter()
    for name, value in things:
        counts[name] += 1
        yield name if counts[name] == 1 else f"{name} #{counts[name]}", value


def _things(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _things(f"{name}/{key}" if name else str(key), inner)
    elif isinstance(value, list) and name == "open":
        for place, inner in enumerate(value):
            yield from _things(f"{name}/{place}", inner)
    else:
        name = re.sub(_RANDOM, r"\1\2*", name)
        yield name, "export" if "linstor_un-export." in name else str(value)


def _bytes(stage: Stage) -> Iterator[tuple[str, str]]:
    """The content of every volume and snapshot, holes and zeroes being the same."""
    for definition in stage.world.sandbox.cluster.definitions:
        contents = {**definition.contents}
        for replica in definition.resources:
            contents.update(replica.contents)
        for number, content in contents.items():
            yield f"{definition.name}/{number}", _digest(content)
        for snapshot in definition.snapshots:
            for (_, number), content in snapshot.contents.items():
                yield f"{definition.name}@{snapshot.name}/{number}", _digest(content)


def _image(path: Path) -> str:
    """What a file of a backup has, and of which parts it says anything; where in the file that lies may differ."""
    raw = path.with_name(f"{path.name}.raw")
    try:
        said = subprocess.run(["qemu-img", "map", "--output=json", path], capture_output=True, check=True).stdout
        subprocess.run(["qemu-img", "convert", "-O", "raw", path, raw], capture_output=True, check=True)
        parts = [(part["start"], part["length"]) for part in json.loads(said) if part["present"]]
        return hashlib.sha256(raw.read_bytes() + str(parts).encode()).hexdigest()[:12]
    except subprocess.CalledProcessError:
        return "half an image"
    finally:
        raw.unlink(missing_ok=True)


def _digest(content: Content) -> str:
    digest = hashlib.sha256(str(content.size).encode())
    if not Path(content.path).exists():
        return digest.hexdigest()[:12]
    descriptor = os.open(content.path, os.O_RDONLY)
    kinds = [kind for kind, (at, mark) in _SIGNATURES.items() if os.pread(descriptor, len(mark), at) == mark]
    digest.update(str(kinds).encode())
    try:
        for start, end in data_extents(descriptor, content.size):
            for offset in range(start - start % _BLOCK, end, _BLOCK):
                block = os.pread(descriptor, _BLOCK, offset)
                if block.strip(b"\0"):
                    digest.update(b"%d" % offset + (b"" if kinds else block))
    finally:
        os.close(descriptor)
    return digest.hexdigest()[:12]


# And what runs: a host that loses its power loses its VMs.
_OF_PLACES = r"/snapshots/[^/]+/nodes|/Resource/quorum$|/connections/(?!.*/allow-two-primaries$)|^open/|^domains"


def without_places(taken: Picture) -> Picture:
    """The same whatever nodes replicas and snapshots are on, with or without tie-breaker, and whatever VMs run."""
    found: dict[str, list[str]] = {}
    tie_breakers = [name.rpartition("/")[0] for name, value in taken.items() if "TIE_BREAKER" in value]
    for name, value in taken.items():
        if name.startswith(tuple(tie_breakers)) or re.search(_OF_PLACES, name):
            continue
        name = re.sub(r"^(resource_definitions/[^/]+/resources)/[^/]+", r"\1", name)
        found.setdefault(name, []).append(value)
    return {name: " ".join(sorted(values)) for name, values in found.items()}


def differences(found: Picture, *expected: Picture) -> list[str]:
    """What is in none of the expected pictures as it was found, or is missing although it is in all of them."""
    names = sorted({*found, *(name for other in expected for name in other)})
    return [
        f"{name}: {found.get(name, 'absent')} instead of {' or '.join(_values(name, expected))}"
        for name in names
        if found.get(name, "absent") not in _values(name, expected)
    ]


def _values(name: str, expected: tuple[Picture, ...]) -> list[str]:
    return list(dict.fromkeys(other.get(name, "absent") for other in expected))
