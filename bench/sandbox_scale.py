"""How fast the sandbox answers lists: `python bench/sandbox_scale.py [VOLUMES [NODES]]`, 10,000 and 200 by default."""

from __future__ import annotations

import gzip
import http.client
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

from linstor_sandbox import Pool, Sandbox  # noqa: E402 - the checkout's library, wherever this is started
from linstor_sandbox.seeding import seed  # noqa: E402

LISTS = (
    "/v1/nodes",
    "/v1/view/storage-pools",
    "/v1/resource-definitions",
    "/v1/resource-definitions?with_volume_definitions=true",
    "/v1/view/resources",
    "/v1/view/snapshots",
    "/v1/view/resources?resources=one-image-77",
)


def ask(sandbox: Sandbox, target: str) -> tuple[float, int, int]:
    """(seconds, bytes on the wire, items) of one GET with gzip, as python-linstor asks."""
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port)
    started = time.monotonic()
    connection.request("GET", target, headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    data = response.read()
    took = time.monotonic() - started
    connection.close()
    plain = gzip.decompress(data) if response.getheader("Content-Encoding") == "gzip" else data
    return took, len(data), len(json.loads(plain))


def main(volumes: int = 10000, nodes: int = 200) -> None:
    """Seed, ask every list twice (the second time it is kept), change one volume and ask again."""
    names = tuple(f"node{number}" for number in range(nodes))
    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(Path(folder), names, (Pool("data", size_mib=1 << 20),)) as box,
    ):
        started = time.monotonic()
        seed(box, volumes)
        print(f"{volumes} volumes on {nodes} nodes: seeded in {time.monotonic() - started:.1f} s")
        print(f"{'list':<56}{'items':>7}{'KiB':>8}{'first':>8}{'again':>8}{'after a change':>16}")
        for target in LISTS:
            first, size, items = ask(box, target)
            again = ask(box, target)[0]
            box.cluster.touch(["one-image-77"])
            changed = ask(box, target)[0]
            print(f"{target:<56}{items:>7}{size // 1024:>8}{first:>8.3f}{again:>8.3f}{changed:>16.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
