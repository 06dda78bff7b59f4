"""The data path: how fast the driver copies, beside plain tools between the same two ends in the same run."""

from __future__ import annotations

import functools
import os
import random
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Callable

from bench.figures import Row
from bench.scripts import Sample
from bench.setting import Part, Setting, Table
from bench.world import World
from linstor_sandbox.opennebula.images import Image

MIB = 1 << 20
# A sparse image is like one with a file system of ext4, whose groups of 128 MiB begin with what there is in them.
_GROUP_MIB, _OF_THAT_DATA_MIB = 128, 16
_STAGED = "/var/tmp/linstor_un-bench.image"
# What somebody types who knows that the volume is new and reads zero.
_DD = "dd of={device} bs={block} iflag=fullblock conv=notrunc,nocreat,fsync{sparse} status=none"
_CONVERT = (
    "zero=; ! qemu-img convert --help | grep -q target-is-zero || zero=--target-is-zero; "
    "qemu-img convert -n -W -m 8 $zero -f {format} -O raw {source} {device}"
)


@dataclass(frozen=True)
class Ends:
    """A file of the front-end, or its URL, or another volume's device; and the new volume's device, both on a node."""

    file: str
    url: str
    node: str
    source: str
    device: str

    def there(self, script: str) -> str:
        """Something done on the node."""
        return f"ssh {self.node} {shlex.quote(script)}"

    def piped(self, reading: str, sparse: bool) -> str:
        """What a command of the front-end prints, into dd on the node."""
        return f"{reading} | {self.there(self.dd(sparse))}"

    def dd(self, sparse: bool) -> str:
        """Into the new volume; `sparse` leaves out what is zero."""
        return _DD.format(device=self.device, block="64k" if sparse else "1M", sparse=",sparse" if sparse else "")

    def staged(self, image_format: str) -> str:
        """The file brought to the node and converted there, since nothing converts what it reads from a pipe."""
        convert = _CONVERT.format(format=image_format, source=_STAGED, device=self.device)
        return f"cat {self.file} | {self.there(f'cat > {_STAGED} && {{ {convert}; }}; rm {_STAGED}')}"


Tool = Callable[[Ends], str]
_FROM_FILE: Mapping[str, Tool] = {
    "dd": lambda ends: ends.piped(f"dd if={ends.file} bs=1M status=none", sparse=False),
    "qemu-img": lambda ends: ends.staged("raw"),
}
_FROM_SPARSE = {**_FROM_FILE, "dd": lambda ends: ends.piped(f"dd if={ends.file} bs=1M status=none", sparse=True)}
_FROM_GZIP: Mapping[str, Tool] = {"dd": lambda ends: ends.piped(f"gzip -dc {ends.file}", sparse=True)}
_FROM_QCOW2: Mapping[str, Tool] = {"qemu-img": lambda ends: ends.staged("qcow2")}
_FROM_URL: Mapping[str, Tool] = {"dd": lambda ends: ends.piped(f"curl -sf {ends.url}", sparse=False)}
_FROM_VOLUME: Mapping[str, Tool] = {
    "dd": lambda ends: ends.there(f"{ends.dd(sparse=True)} if={ends.source}"),
    "qemu-img": lambda ends: ends.there(_CONVERT.format(format="raw", source=ends.source, device=ends.device)),
}
_TO_FILE: Mapping[str, Tool] = {
    "qemu-img": lambda ends: ends.there(
        f"qemu-img convert -U -f raw -O qcow2 -W -m 8 {ends.source} {_STAGED} && md5sum {_STAGED}; rm {_STAGED}"
    )
}
# Each way of bytes: its file, empty where they come from a volume, and the plain tools for it.
_WAYS = {
    "cp of a raw file": ("raw", _FROM_FILE),
    "cp of a sparse file": ("sparse", _FROM_SPARSE),
    "cp of a gzip file": ("sparse.gz", _FROM_GZIP),
    "cp of a qcow2 file": ("raw.qcow2", _FROM_QCOW2),
    "cp over http": ("raw", _FROM_URL),
    "clone by copy": ("", _FROM_VOLUME),
    "export as qcow2": ("", _TO_FILE),
}


def make_files(folder: Path, size_mib: int) -> None:
    """An image full of data, a sparse one, and the others made of them."""
    draw = random.Random(0)
    with (folder / "raw").open("wb") as raw, (folder / "sparse").open("wb") as sparse:
        for number in range(size_mib):
            block = draw.randbytes(MIB)
            raw.write(block)
            if number % _GROUP_MIB < _OF_THAT_DATA_MIB:
                sparse.seek(number * MIB)
                sparse.write(block)
        sparse.truncate(size_mib * MIB)
    subprocess.run(["gzip", "-1kf", str(folder / "sparse")], check=True)
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(folder / "raw"), str(folder / "raw.qcow2")]
    subprocess.run(command, check=True)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients end in the middle when they have seen enough."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The files of a folder over http for the length of the block, below the URL that this is."""
    server = _Server(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def measure(setting: Setting) -> list[Row]:
    """Each way in turn, the driver and the plain tools, so many times."""
    with setting.world("data") as world, served(world.files) as url:
        make_files(world.files, setting.size_mib)
        measured = {name: Row(name) for name in _WAYS if name != "cp over http" or shutil.which("curl")}
        original = world.cloud.create_image(world.images, str(world.files / "raw"))
        for run in range(setting.runs):
            setting.tell(f"data: run {run + 1} of {setting.runs}")
            for name, row in measured.items():
                row.add(_compared(world, name, original, url))
        world.cloud.delete_image(original)
        return [*measured.values(), *(_large(world, setting.large_gib) if setting.large_gib else ())]


def _compared(world: World, name: str, original: Image, url: str) -> dict[str, float]:
    """One run of one way."""
    file, tools = _WAYS[name]
    _warm(world, original.size)
    sample = _by_driver(world, name, original, url)
    found = {figure: sample.figures[figure] for figure in ("wall_ms", "ssh_ms", "cpu_ms", "memory_mib")}
    node = max(sample.hosts, key=lambda host: sample.hosts[host])
    for tool, command in tools.items():
        blank = world.cloud.create_datablock(world.images, original.size)
        ends = Ends(str(world.files / file), f"{url}/{file}", node, original.source, blank.source)
        _warm(world, original.size)
        found[f"{tool}_ms"] = _timed(world, command(ends)) * 1000
        world.cloud.delete_image(blank)
    best = min(found[f"{tool}_ms"] for tool in tools)
    return {**found, "copy_ratio": best / found["ssh_ms"], "whole_ratio": best / found["wall_ms"]}


def _warm(world: World, size_mib: int) -> None:
    """Let whoever comes next find memory that was just used, since what a machine has given back it gets slowly."""
    if world.cluster.is_sandbox:
        path = world.files / "warm"
        with path.open("wb") as file:
            for _ in range(size_mib):
                file.write(bytes(MIB))
        path.unlink()


def _by_driver(world: World, name: str, original: Image, url: str) -> Sample:
    file, _ = _WAYS[name]
    if name.startswith("export"):
        world.export(original)
        return world.scripts.samples[-1]
    if file:
        image = world.cloud.create_image(world.images, f"{url}/{file}" if "http" in name else str(world.files / file))
    else:
        image = world.cloud.clone_image(original)
    # The last call monitors the datastore.
    sample = world.scripts.samples[-2]
    world.cloud.delete_image(image)
    return sample


def _timed(world: World, command: str) -> float:
    started = time.monotonic()
    done = subprocess.run(["sh", "-c", command], env=dict(world.cluster.environment), capture_output=True, check=False)
    if done.returncode or done.stderr:
        raise RuntimeError(f"`{command}` failed: {done.stderr.decode('utf-8', 'replace')[-300:]}")
    return time.monotonic() - started


def _large(world: World, gib: int) -> Iterator[Row]:
    """Memory and time for a sparse image, once: it takes what a disk takes to be read."""
    path = world.files / "large"
    path.touch()
    os.truncate(path, gib << 30)
    image = world.cloud.create_image(world.images, str(path))
    world.cloud.delete_image(world.cloud.clone_image(image))
    for name in ("cp", "clone"):
        sample = next(sample for sample in reversed(world.scripts.samples) if sample.row == f"datastore/{name}")
        row = Row(f"{name} of {gib} GiB without data")
        row.add({figure: sample.figures[figure] for figure in ("wall_ms", "ssh_ms", "cpu_ms", "memory_mib")})
        yield row
    world.cloud.delete_image(image)


def tables(measured: list[Row]) -> list[Table]:
    """The driver beside the tools; 1.00 is as fast as the faster one of them."""
    shown = ("wall_ms", "ssh_ms", "dd_ms", "qemu-img_ms", "copy_ratio", "whole_ratio", "memory_mib")
    columns = ["way", "action ms", "its copy ms", "dd ms", "qemu-img ms", "copy ×", "action ×", "memory MiB"]
    note = "× the speed of the faster plain tool: of the ssh command that copies, and of the whole action."
    return [Table("Data path", columns, [[row.name, *map(row.shown, shown)] for row in measured], [note])]


PART = Part("data", "copies beside dd and qemu-img between the same ends", measure, tables)
