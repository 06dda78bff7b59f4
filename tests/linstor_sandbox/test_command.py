"""python3 -m linstor_sandbox."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import linstor_sandbox

LIBRARY = Path(linstor_sandbox.__file__).resolve().parents[1]


def start(*arguments: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    return subprocess.Popen(
        [sys.executable, "-m", "linstor_sandbox", *arguments],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    process = start(
        "--root",
        str(tmp_path),
        "--port",
        "0",
        "--node",
        "a1,a2",
        "--pool",
        "z:ZFS_THIN:2000:a1",
        "--pool",
        "l:LVM:1000",
    )
    assert process.stdout is not None
    word, uri = process.stdout.readline().split()
    assert word == "ready"
    with urllib.request.urlopen(f"{uri}/v1/view/storage-pools", timeout=5) as answer:
        pools = json.load(answer)
    assert [
        (pool["storage_pool_name"], pool["node_name"]) for pool in pools if pool["provider_kind"] != "DISKLESS"
    ] == [("l", "a1"), ("l", "a2"), ("z", "a1")]
    process.send_signal(number)
    assert process.wait(5) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--pool", "data"], "'data' is no pool: write NAME:KIND:SIZE_MIB[:node,node]"),
        (["--pool", "data:LVM:10:b1", "--node", "a1"], "Pool data is on node b1, which is none of a1"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, arguments: list[str], text: str) -> None:
    process = start("--root", str(tmp_path), "--port", "0", *arguments)
    _, errors = process.communicate(timeout=10)
    assert process.returncode != 0
    assert text in errors
    assert "Traceback" not in errors


def test_faults_in_words(tmp_path: Path) -> None:
    process = start(
        "--root", str(tmp_path), "--port", "0", "--fault", "offline node2", "--fault", "on GET /v1/nodes: drop"
    )
    assert process.stdout is not None
    uri = process.stdout.readline().split()[1]
    with pytest.raises(ConnectionError):
        urllib.request.urlopen(f"{uri}/v1/nodes", timeout=5)
    with urllib.request.urlopen(f"{uri}/v1/nodes", timeout=5) as answer:
        assert [node["connection_status"] for node in json.load(answer)] == ["ONLINE", "OFFLINE", "ONLINE"]
    urllib.request.urlopen(f"{uri}/sandbox/fault", b"online node2", timeout=5).close()
    with urllib.request.urlopen(f"{uri}/v1/nodes?nodes=node2", timeout=5) as answer:
        assert json.load(answer)[0]["connection_status"] == "ONLINE"
    process.terminate()
    assert process.wait(10) == 0


def test_volumes_from_the_beginning(tmp_path: Path) -> None:
    process = start(
        *("--root", str(tmp_path), "--port", "0", "--pool", "z:ZFS_THIN:2000:node1,node2"),
        *("--volumes", "5", "--recorded-times"),
    )
    assert process.stdout is not None
    uri = process.stdout.readline().split()[1]
    with urllib.request.urlopen(f"{uri}/v1/view/resources", timeout=5) as answer:
        found = json.load(answer)
    assert sorted({resource["name"] for resource in found}) == [f"one-image-{number}" for number in range(5)]
    assert sorted({resource["node_name"] for resource in found}) == ["node1", "node2"]
    process.terminate()
    assert process.wait(10) == 0


def test_a_fault_that_is_not_understood(tmp_path: Path) -> None:
    process = start("--root", str(tmp_path), "--port", "0", "--fault", "explode")
    assert process.wait(20) == 1
    assert process.stderr is not None
    assert "'explode' is no fault: a fault is WHAT" in process.stderr.read()


def test_tls_and_a_token(tmp_path: Path) -> None:
    process = start(
        *("--root", str(tmp_path), "--port", "0", "--tls", "good", "--client-certificates"),
        *("--token", "word", "--rest-version", "1.29.1"),
    )
    assert process.stdout is not None
    uri = process.stdout.readline().split()[1]
    told = dict(word.split("=") for _ in range(3) for word in process.stdout.readline().split() if "=" in word)
    context = ssl.create_default_context(cafile=told["LS_CAFILE"])
    context.load_cert_chain(told["LS_CERTFILE"], told["LS_KEYFILE"])
    request = urllib.request.Request(f"{uri}/v1/nodes", headers={"Authorization": "Bearer word"})
    with urllib.request.urlopen(request, timeout=5, context=context) as answer:
        assert len(json.load(answer)) == 3
    process.terminate()
    assert process.wait(10) == 0
