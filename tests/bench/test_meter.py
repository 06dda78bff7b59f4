"""What stands between an action and the controller and ssh: it passes everything on and counts it."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.meter import Meter, covered, install_ssh, line_of


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(b"x" * 300_000)

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def controller() -> Iterator[tuple[str, int]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield "127.0.0.1", server.server_address[1]
    server.shutdown()
    server.server_close()


def connect(meter: Meter) -> http.client.HTTPConnection:
    parts = urlsplit(meter.environment["LS_CONTROLLERS"])
    assert parts.hostname and parts.port
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)


def test_requests_of_one_connection_and_of_another(controller: tuple[str, int], tmp_path: Path) -> None:
    with Meter(controller, tmp_path) as meter:
        kept = connect(meter)
        for _ in range(2):
            kept.request("GET", "/v1/view/resources?resources=one-vm-12-disk-3")
            assert len(kept.getresponse().read()) == 300_000
        body = bytes(200_000)
        kept.request("POST", "/v1/resource-definitions/one-vm-7-disk-0/snapshots", body)
        assert kept.getresponse().read() == body
        other = connect(meter)
        other.request("GET", "/v1/nodes")
        assert len(other.getresponse().read()) == 300_000
        other.close()
        # The last one is still open at the end, as an action's that was killed.
    kept.close()
    traffic = meter.traffic
    assert dict(traffic.requests) == {
        "GET /v1/view/resources?resources=VOLUME": 2,
        "POST /v1/resource-definitions/VOLUME/snapshots": 1,
        "GET /v1/nodes": 1,
    }
    assert 200_000 < traffic.sent_bytes < 202_000 and 1_100_000 < traffic.received_bytes < 1_102_000
    assert len(traffic.linstor) == 4 and all(first < last for first, last in traffic.linstor)


def test_a_controller_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        address = reserved.getsockname()
    with Meter(address, tmp_path) as meter, pytest.raises((http.client.HTTPException, OSError)):
        connection = connect(meter)
        connection.request("GET", "/v1/nodes")
        connection.getresponse()
    assert not meter.traffic.requests


def test_ssh_connections_by_host(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "ssh").write_text('#!/bin/sh\nfor word; do printf "[%s]" "$word"; done\ncat\nexit 5\n')
    (real / "ssh").chmod(0o755)
    environment = install_ssh(tmp_path / "bin", {**os.environ, "PATH": f"{real}{os.pathsep}{os.environ['PATH']}"})
    with Meter(("127.0.0.1", 1), tmp_path) as meter:
        for host in ("node1", "node1", "oneadmin@node2"):
            command = ["ssh", "-o", "BatchMode=yes", "-p22", "-q", host, "echo 'a\nb'"]
            done = subprocess.run(
                command, input=b"in", env={**environment, **meter.environment}, capture_output=True, check=False
            )
            words = "".join(f"[{word}]" for word in command[1:])
            assert (done.returncode, done.stdout.decode()) == (5, f"{words}in")
    assert dict(meter.traffic.hosts) == {"node1": 2, "oneadmin@node2": 1}
    assert len(meter.traffic.ssh) == 3
    assert list(tmp_path.glob("ssh-*")) == []


def test_an_ssh_is_as_long_as_it_runs(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "ssh").write_text("#!/bin/sh\nread -r line\n")
    (real / "ssh").chmod(0o755)
    environment = install_ssh(tmp_path / "bin", {**os.environ, "PATH": f"{real}{os.pathsep}{os.environ['PATH']}"})
    with Meter(("127.0.0.1", 1), tmp_path) as meter:
        command = ["ssh", "node1"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, env={**environment, **meter.environment}) as running:
            while not meter.traffic.hosts:
                assert running.poll() is None
            assert meter.traffic.ssh == []
            running.communicate(b"end\n")
    ((first, last),) = meter.traffic.ssh
    assert first < last


def test_what_overlaps_counts_once() -> None:
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 2)]) == 4
    assert covered([]) == 0


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("DELETE /v1/resource-definitions/one-image-12", "DELETE /v1/resource-definitions/VOLUME"),
        (
            "DELETE /v1/resource-definitions/x/resources/node3?keep_tiebreaker=True",
            "DELETE /v1/resource-definitions/VOLUME/resources/NODE?keep_tiebreaker=True",
        ),
        (
            "PUT /v1/resource-definitions/x/resource-connections/a/b",
            "PUT /v1/resource-definitions/VOLUME/resource-connections/NODE/NODE",
        ),
        (
            "GET /v1/view/snapshots?resources=a&resources=b&nodes=n1",
            "GET /v1/view/snapshots?resources=VOLUME&resources=VOLUME&nodes=NODE",
        ),
        (
            "GET /v1/resource-definitions?props=Aux/one/VM_ID=77&limit=0",
            "GET /v1/resource-definitions?props=Aux/one/VM_ID=N&limit=N",
        ),
        (
            "POST /v1/resource-definitions/x/snapshot-rollback/snapshot-3",
            "POST /v1/resource-definitions/VOLUME/snapshot-rollback/snapshot-N",
        ),
    ],
)
def test_a_request_is_named_without_what_differs_from_run_to_run(asked: str, line: str) -> None:
    assert line_of(f"{asked} HTTP/1.1\r\nHost: x".encode()) == line
