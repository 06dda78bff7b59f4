"""python3 -m linstor_sandbox: a sandbox in the foreground."""

from __future__ import annotations

import argparse
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Optional

from . import script, tls
from .model import Pool
from .sandbox import Sandbox, parse_pool
from .seeding import seed

PORT, SECURE_PORT = 3370, 3371

TIMES = {
    "latency": "every request takes at least",
    "satellite_seconds": "satellites take for every change, one change after the other",
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
    parser.add_argument(
        "--port",
        type=int,
        help=f"port of the REST API, 0 for any (default: {PORT}; with --tls {SECURE_PORT}, and {PORT} leads there)",
    )
    parser.add_argument("--tls", choices=tls.KINDS, help="listen with TLS, with a certificate like this")
    parser.add_argument("--client-certificates", action="store_true", help="with --tls, ask clients for theirs")
    parser.add_argument("--token", default="", help="what clients must show as bearer token (REST 1.28 and newer)")
    parser.add_argument("--rest-version", default="1.27.0", help="REST API version (default: 1.27.0)")
    parser.add_argument("--volumes", type=int, default=0, help="volumes of the first pool that are there already")
    parser.add_argument(
        "--recorded-times", action="store_true", help="satellites take as long as was recorded of real ones"
    )
    for name, what in TIMES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=0.0, help=f"seconds that {what}")
    parser.add_argument("--fault", action="append", default=[], metavar="FAULT", help="what is to go wrong: see below")
    return parser.parse_args()


def _security(root: Path, kind: str, client_certificates: bool) -> tuple[ssl.SSLContext, str]:
    """How to listen with TLS, and what is to be told about it."""
    authority = tls.Authority(root, "tls")
    certificate = authority.of_kind(kind)
    trusted = certificate[0] if kind == "self-signed" else authority.certificate
    told = f"  a {kind} certificate; LS_CAFILE={trusted}\n"
    if client_certificates:
        file, key = authority.sign("client", "DNS:client")
        told += f"  clients show LS_CERTFILE={file} LS_KEYFILE={key}\n"
    return tls.serving(certificate, authority if client_certificates else None), told


def _started(arguments: argparse.Namespace, root: Path) -> tuple[Sandbox, str]:
    """The sandbox that was asked for; ValueError and OSError say why there is none."""
    port, security, told = PORT if arguments.port is None else arguments.port, None, ""
    if arguments.tls:
        security, told = _security(root, arguments.tls, arguments.client_certificates)
        port = SECURE_PORT if arguments.port is None else arguments.port
    pools = tuple(arguments.pool or (Pool("data", "LVM_THIN"),))
    sandbox = Sandbox(
        root,
        _nodes(arguments.node),
        pools,
        arguments.rest_version,
        port=port,
        tls=security,
        redirect_port=PORT if arguments.port is None else 0,
        token=arguments.token,
        recorded_times=arguments.recorded_times,
        **{name: getattr(arguments, name) for name in TIMES},
    )
    seed(sandbox, arguments.volumes, pool=pools[0].name)
    sandbox.start()
    if security is not None:
        told += f"  http://127.0.0.1:{sandbox.redirect_port} leads there\n"
    return sandbox, told


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    arguments = _arguments()
    root = arguments.root or Path(tempfile.mkdtemp(prefix="linstor-sandbox-"))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        sandbox, told = _started(arguments, root)
        uris = sandbox.uris
        for fault in arguments.fault:
            script.play(sandbox, fault)
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 1
    except (FileNotFoundError, subprocess.CalledProcessError) as exc:
        print(f"No certificates can be made ({exc}): install openssl.", file=sys.stderr)
        return 1
    except OSError as exc:
        ports = arguments.port or (f"{PORT} or {SECURE_PORT}" if arguments.tls else PORT)
        print(f"Port {ports} cannot be used: {exc.strerror}. Choose another with --port.", file=sys.stderr)
        return 1
    print(
        f"ready {sandbox.uri}\n"
        f"  export LS_CONTROLLERS={uris}\n{told}"
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
