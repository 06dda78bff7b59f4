"""How long `linstor-un audit` takes where nothing is wrong: `python bench/audit_scale.py [VMS [NODES]]`, 1000 and 4.

The cluster in a box and the stand-in for oned are one process, the command is another: it prints nothing, and this the
seconds until it has ended, its processor seconds, its memory at most, and how many requests it has made.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "lib"), str(CHECKOUT)]

from linstor_sandbox import Pool  # noqa: E402 - the checkout's library, wherever this is started
from tests.conftest import build_world  # noqa: E402
from tests.linstor_un.cli.clouds import Estate  # noqa: E402


def main(machines: int = 1000, nodes: int = 4) -> None:
    """Seed a cloud in which a tenth of the VMs has migrated, and time the command."""
    names = tuple(f"node{number}" for number in range(nodes))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        world = build_world(stack, folder, nodes=names, pools=(Pool("data", size_mib=1 << 24),))
        estate = Estate(world.sandbox, world.cloud, world.system, world.images)
        images = [estate.image() for _ in range(20)]
        for number in range(machines):
            vm = estate.machine(names[number % nodes], images[number % len(images)], volatile=number % 3 == 0)
            if number % 10 == 0:
                vm.place(vm.host, world.cloud.host_id(vm.host), world.system)
        environment = {**world.cloud.scripts.environment, "PYTHONPATH": str(CHECKOUT / "lib")}
        world.sandbox.clear_requests()
        before = world.cloud.rpc.http_requests
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "linstor_un.cli", "audit"], env=environment, stdout=subprocess.PIPE, check=False
        )
        seconds = time.monotonic() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{machines} VMs, {len(world.sandbox.cluster.definitions)} volumes on {nodes} nodes: {seconds:.1f} s")
        print(f"status {done.returncode}, {len(done.stdout)} bytes printed, load {os.getloadavg()[0]:.1f}")
        print(f"{used.ru_utime + used.ru_stime:.1f} s of processor time, {used.ru_maxrss // 1024} MiB at most")
        print(f"{len(world.sandbox.requests)} requests to LINSTOR, {world.cloud.rpc.http_requests - before} to oned")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
