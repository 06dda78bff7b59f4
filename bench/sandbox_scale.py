"""How fast the sandbox answers lists: `python bench/sandbox_scale.py [VOLUMES [NODES]]`, 10,000 and 200 by default.

Seconds until a client with gzip has all of a list, as it asks for the first time, again, and after one volume has
changed; of the first time also the seconds until its first byte, and the longest that another client waited meanwhile
for an answer about one volume. Last, how many MiB of memory the sandbox takes, and took at most.
"""

from __future__ import annotations

import gzip
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LIBRARY = Path(__file__).resolve().parent.parent / "lib"
sys.path.insert(0, str(LIBRARY))

from linstor_sandbox import Pool, Sandbox  # noqa: E402 - the checkout's library, wherever this is started
from linstor_sandbox.seeding import seed  # noqa: E402

LISTS = (
    "/v1/nodes",
    "/v1/view/storage-pools",
    "/v1/resource-definitions",
    "/v1/resource-definitions?with_volume_definitions=true",
    "/v1/view/resources",
    "/v1/view/resources?storage_pools=data",
    "/v1/view/snapshots",
    "/v1/view/resources?resources=one-image-77",
)
ONE = "/v1/resource-definitions/one-image-78"


def ask(port: int, target: str) -> tuple[float, float, bytes, bool]:
    """(seconds until the first byte, seconds, bytes on the wire, whether they are gzip), as python-linstor asks."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    started = time.monotonic()
    connection.request("GET", target, headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    first = response.read(1)
    after = time.monotonic() - started
    data = first + response.read()
    took = time.monotonic() - started
    connection.close()
    return after, took, data, response.getheader("Content-Encoding") == "gzip"


def waited(port: int, ended: threading.Event) -> float:
    """The longest that requests for one volume took until the end."""
    longest = 0.0
    while not ended.is_set():
        longest = max(longest, ask(port, ONE)[1])
        time.sleep(0.005)
    return longest


def measure(port: int, target: str) -> tuple[int, int, float, float, float]:
    """(items, bytes, seconds until the first byte, seconds, longest wait of another) of one list."""
    ended, waits = threading.Event(), [0.0]
    other = threading.Thread(target=lambda: waits.append(waited(port, ended)))
    other.start()
    after, took, data, packed = ask(port, target)
    ended.set()
    other.join()
    return len(json.loads(gzip.decompress(data) if packed else data)), len(data), after, took, max(waits)


def memory(process: int, key: str) -> int:
    """MiB of a process: VmRSS now, VmHWM at most."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) // 1024


def serve(volumes: int, nodes: int) -> None:
    """The sandbox, in a process of its own; each line it reads is a change."""
    names = tuple(f"node{number}" for number in range(nodes))
    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(Path(folder), names, (Pool("data", size_mib=1 << 20),)) as box,
    ):
        started = time.monotonic()
        seed(box, volumes)
        print(box.port, f"{time.monotonic() - started:.1f}", flush=True)
        for _ in sys.stdin:
            box.cluster.touch(["one-image-77"])
            print(flush=True)


def main(volumes: int = 10000, nodes: int = 200) -> None:
    """Seed, ask every list twice (the second time it is kept), change one volume and ask again."""
    command = [sys.executable, __file__, "serve", str(volumes), str(nodes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as box:
        assert box.stdin is not None and box.stdout is not None
        port, seconds = box.stdout.readline().split()
        print(f"{volumes} volumes on {nodes} nodes: seeded in {seconds} s, {memory(box.pid, 'VmRSS')} MiB")
        print(
            f"{'list':<56}{'items':>7}{'KiB':>8}{'first byte':>12}{'first':>8}{'others':>8}{'again':>8}{'changed':>9}"
        )
        for target in LISTS:
            items, size, after, first, others = measure(int(port), target)
            again = ask(int(port), target)[1]
            print(file=box.stdin, flush=True)
            box.stdout.readline()
            changed = ask(int(port), target)[1]
            numbers = f"{after:>12.3f}{first:>8.3f}{others:>8.3f}{again:>8.3f}{changed:>9.3f}"
            print(f"{target:<56}{items:>7}{size // 1024:>8}{numbers}", flush=True)
        print(f"memory: {memory(box.pid, 'VmRSS')} MiB, at most {memory(box.pid, 'VmHWM')} MiB")
        box.stdin.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*map(int, sys.argv[2:]))
    else:
        main(*map(int, sys.argv[1:]))
