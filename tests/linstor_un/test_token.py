"""The token that LINSTOR asks for: it goes to the controller, and nothing that is written or started has it."""

from __future__ import annotations

import json
from pathlib import Path

from linstor_sandbox.hosts.install import TOOLS
from linstor_sandbox.tls import Authority, serving
from tests.conftest import NODES
from tests.linstor_un.bench import PASSWORD, SYSDIR, TOKEN, Bench, bench, document, line, on
from tests.linstor_un.cluster.tls import proxy
from tests.linstor_un.test_house import IMAGE_CALLS, SOURCE

# What an action starts, with its surroundings, and what it tells the system log: as Python itself reports it.
WITNESS = """
import os, sys
def note(event, arguments):
    if event in ("subprocess.Popen", "syslog.syslog", "os.exec", "os.posix_spawn"):
        with open({log!r}, "a", encoding="utf-8", errors="surrogateescape") as file:
            print(event, arguments, dict(os.environ), file=file)
sys.addaudithook(note)
"""
TOOL = '#!/bin/sh\n{{ echo tool {name} "$@"; env; }} >>{log}\nexec {real} "$@"\n'
CALLS = (
    *(
        on(verb, verb, (), document(changes, image_xml="" if verb == "monitor" else None), "7")
        for verb, changes in IMAGE_CALLS.items()
    ),
    line(f"mkimage 8 raw node1:{SYSDIR}/0/disk.2 0 100", "mkimage", ()),
    line(f"clone onefe:{SOURCE} node1:{SYSDIR}/0/disk.0 0 101", "clone", ()),
    line(f"mv node1:{SYSDIR}/0/disk.2 node2:{SYSDIR}/0/disk.2 0 100", "mv", ()),
    line(f"resize node1:{SYSDIR}/0/disk.2 16 0 100", "resize", ()),
    line(f"delete node1:{SYSDIR}/0/disk.2 0 100", "delete", ()),
)
FAILURES = (
    on("mkfs", "no place", (), document(datastore={"REPLICA_COUNT": "9"})),
    on("mkfs", "not trusted", (), document(datastore={"LS_CAFILE": ""}), configuration='LS_CAFILE=""\n'),
    on("mkfs", "nobody there", (), document(datastore={"LS_CONTROLLERS": "linstor+ssl://127.0.0.1:1"})),
    on("mkfs", "not valid", (), document(datastore={"LS_TOKEN": f"{TOKEN} more"})),
    line(f"mkimage 8 raw node9:{SYSDIR}/0/disk.2 0 100", "no such host", ()),
)


def watch(place: Bench, log: Path) -> None:
    """Have everything noted that is started on the front-end and on hosts."""
    witness = log.parent / "witness"
    witness.mkdir()
    (witness / "sitecustomize.py").write_text(WITNESS.format(log=str(log)))
    place.cloud.scripts.environment = {**place.cloud.scripts.environment, "PYTHONPATH": str(witness)}
    for node in NODES:
        host = place.sandbox.host(node)
        for name in TOOLS:
            tool = host / "steps" / name
            tool.write_text(TOOL.format(name=name, log=log, real=host / "bin" / name))
            tool.chmod(0o755)


def test_the_token_is_nowhere_but_on_the_way_to_the_controller(tmp_path: Path) -> None:
    log, authority = tmp_path / "log", Authority(tmp_path / "certificates")
    (tmp_path / "bench").mkdir()
    with bench(tmp_path / "bench") as place, proxy(place.sandbox, serving(authority.of_kind("good"))) as controller:
        place.cloud.poweroff(place.machine)
        place.machine.place("node2", 1, place.system)
        watch(place, log)
        place.configuration += (
            f'LS_CONTROLLERS="linstor+ssl://127.0.0.1:{controller.port}"\nLS_CAFILE="{authority.certificate}"\n'
        )
        place._conf.write_text(place.configuration)
        done = [place.run(case) for case in CALLS]
        assert [outcome.stderr for outcome in done if outcome.status] == []
        failed = [place.run(case) for case in FAILURES]
        assert [outcome.status for outcome in failed] == [1] * len(FAILURES)
        state = json.dumps(place.sandbox.snapshot_of_state())
        written = [path for path in (tmp_path / "bench").rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
        contents = [path.read_bytes() for path in written]
    assert controller.received.count(f"Authorization: Bearer {TOKEN}\r\n".encode()) > len(CALLS)
    noted = log.read_text(errors="surrogateescape")
    assert all(f"{word} " in noted for word in ("subprocess.Popen", "syslog.syslog", "tool lsblk"))
    for text in (noted, state, *(outcome.stdout + outcome.stderr for outcome in (*done, *failed))):
        assert TOKEN not in text
        assert PASSWORD not in text
    assert [path for path, content in zip(written, contents) if TOKEN.encode() in content] == []
