"""python3 -m linstor_sandbox: a sandbox in the foreground."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Optional

from . import script
from .model import Pool
from .sandbox import Sandbox, parse_pool

TIMES = {
    "latency": "every request takes at least",
    "sync_seconds": "a new replica takes to sync",
    "clone_seconds": "a clone takes after its call",
    "connect_seconds": "satellites take to come back, after the controller or by themselves",
    "in_use_lag": "a device that was closed is still shown in use",
}


def _pool(text: str) -> Pool:
    try:
        return parse_pool(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _nodes(texts: Optional[list[str]]) -> tuple[str, ...]:
    names = tuple(name for text in texts or [] for name in text.split(",") if name)
    return names or ("node1", "node2", "node3")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m linstor_sandbox",
        description=__doc__,
        epilog=script.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root",
        type=Path,
        help="directory for bytes and hosts (default: a new one in the system's directory for temporary files)",
    )
    parser.add_argument(
        "--node", "--nodes", action="append", metavar="NAME[,NAME...]", help="nodes (default: node1,node2,node3)"
    )
    parser.add_argument(
        "--pool",
        action="append",
        type=_pool,
        metavar="NAME:KIND:SIZE_MIB[:NODE,NODE]",
        help="storage pools (default: data:LVM_THIN:20480)",
    )
    parser.add_argument("--port", type=int, default=3370, help="port of the REST API, 0 for any (default: 3370)")
    parser.add_argument("--rest-version", default="1.27.0", help="REST API version (default: 1.27.0)")
    for name, what in TIMES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=0.0, help=f"seconds that {what}")
    parser.add_argument("--fault", action="append", default=[], metavar="FAULT", help="what is to go wrong: see below")
    return parser.parse_args()


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    arguments = _arguments()
    root = arguments.root or Path(tempfile.mkdtemp(prefix="linstor-sandbox-"))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        sandbox = Sandbox(
            root,
            _nodes(arguments.node),
            tuple(arguments.pool or (Pool("data", "LVM_THIN"),)),
            arguments.rest_version,
            port=arguments.port,
            **{name: getattr(arguments, name) for name in TIMES},
        ).start()
        uris = sandbox.uris
        for fault in arguments.fault:
            script.play(sandbox, fault)
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 1
    except OSError as exc:
        print(f"Port {arguments.port} cannot be used: {exc.strerror}. Choose another with --port.", file=sys.stderr)
        return 1
    print(
        f"ready {sandbox.uri}\n"
        f"  export LS_CONTROLLERS={uris}\n"
        f"  export PATH={sandbox.root}/bin:$PATH        # its ssh reaches the hosts\n"
        f"  files of the hosts: {sandbox.root}/hosts\n"
        f"  faults: curl -d 'offline node2' {sandbox.uri}/sandbox/fault; without one: their list",
        flush=True,
    )
    ended.wait()
    sandbox.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
