"""Asking oned: one request, whatever stands between, and a sentence where it does not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from linstor_sandbox.opennebula.rpc import Endpoint
from linstor_un.errors import InvalidInput, OnedUnreachable
from linstor_un.opennebula import oned

SESSION = 'oneadmin:p<a>s&"s'
VMS = {7: "<VM><ID>7</ID><STATE>3</STATE></VM>"}
TEMPLATE = "<TEMPLATE><A><![CDATA[<&>]]></A></TEMPLATE>"
DATASTORES = {
    100: f"<DATASTORE><ID>100</ID><NAME>system &amp; M\u00fcller</NAME>{TEMPLATE}</DATASTORE>",
    101: "<DATASTORE><ID>101</ID><NAME>images</NAME><TEMPLATE/></DATASTORE>",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    """Return an XML-RPC server that answers as oned does."""
    made = Endpoint(
        SESSION,
        {
            "one.vm.info": ("virtual machine", lambda vm_id, _decrypt=False: VMS[vm_id]),
            "one.datastore.info": (
                "datastore",
                lambda number, decrypt=False: DATASTORES[number] if decrypt else "<X/>",
            ),
        },
    )
    yield made
    made.close()


@pytest.fixture
def endpoint(server: Endpoint) -> Endpoint:
    """Return the server with nothing asked yet."""
    server.requests.clear()
    server.http_requests = 0
    server.multicall_allowed = True
    return server


@pytest.fixture(autouse=True)
def home(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home as oneadmin has it; nothing is in the environment, as with oned."""
    folder = tmp_path / ".one"
    folder.mkdir()
    (folder / "one_auth").write_text(f"{SESSION}\n")
    (folder / "one_endpoint").write_text(f"{endpoint.uri}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ONE_XMLRPC", "ONE_AUTH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_everything_is_asked_in_one_request(endpoint: Endpoint) -> None:
    facts = oned.ask(7, [100, 101])
    assert endpoint.http_requests == 1
    assert facts.virtual_machine is not None
    assert (facts.virtual_machine.vm_id, facts.virtual_machine.state) == (7, 3)
    assert {number: found.name for number, found in facts.datastores.items()} == {
        100: "system & M\u00fcller",
        101: "images",
    }
    assert facts.datastores[100].attributes == {"A": "<&>"}


def test_a_datastore_that_is_named_twice_is_asked_for_once(endpoint: Endpoint) -> None:
    assert set(oned.ask(7, [100, 100]).datastores) == {100}
    assert [request.method for request in endpoint.requests] == [
        "system.multicall",
        "one.datastore.info",
        "one.vm.info",
    ]


def test_secrets_are_asked_for_decrypted(endpoint: Endpoint) -> None:
    oned.ask(None, [100])
    assert [request.arguments for request in endpoint.requests if request.method == "one.datastore.info"] == [
        (100, True)
    ]


def test_a_proxy_that_knows_no_multicall_costs_only_time(endpoint: Endpoint) -> None:
    endpoint.multicall_allowed = False
    facts = oned.ask(7, [100, 101])
    assert facts.virtual_machine is not None and set(facts.datastores) == {100, 101}
    assert endpoint.http_requests == 4


@pytest.mark.parametrize("multicall", [True, False])
def test_a_vm_that_oned_does_not_know_is_none(endpoint: Endpoint, multicall: bool) -> None:
    endpoint.multicall_allowed = multicall
    assert oned.ask(8, [100]).virtual_machine is None


@pytest.mark.parametrize("multicall", [True, False])
def test_a_datastore_that_oned_does_not_know_is_refused(endpoint: Endpoint, multicall: bool) -> None:
    endpoint.multicall_allowed = multicall
    with pytest.raises(InvalidInput, match="oned knows no datastore 999: `onedatastore list`"):
        oned.ask(7, [100, 999])


@pytest.mark.parametrize("multicall", [True, False])
def test_wrong_credentials_are_a_sentence_without_them(endpoint: Endpoint, home: Path, multicall: bool) -> None:
    endpoint.multicall_allowed = multicall
    (home / ".one" / "one_auth").write_text("oneadmin:wrong-password\n")
    with pytest.raises(OnedUnreachable, match="couldn't be authenticated.*ONE_AUTH") as refusal:
        oned.ask(7, [100])
    assert "wrong-password" not in str(refusal.value)


def test_the_environment_wins_over_the_home(home: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "auth").write_text(SESSION)
    monkeypatch.setenv("ONE_AUTH", str(home / "auth"))
    monkeypatch.setenv("ONE_XMLRPC", endpoint.uri)
    for name in ("one_auth", "one_endpoint"):
        (home / ".one" / name).write_text("nonsense")
    assert oned.ask(7, []).virtual_machine is not None


def test_no_credentials_are_a_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".one" / "one_auth").unlink()
    monkeypatch.setenv("ONE_AUTH", str(home / "nowhere"))
    with pytest.raises(OnedUnreachable, match="credentials .* run the driver as oneadmin"):
        oned.ask(7, [])


def test_an_oned_that_is_down_is_a_sentence_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/RPC2"
        monkeypatch.setenv("ONE_XMLRPC", address)
        with pytest.raises(OnedUnreachable, match=rf"{address} .*start opennebula"):
            oned.ask(7, [100])


def test_an_oned_that_says_nothing_is_a_sentence_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/RPC2"
        monkeypatch.setenv("ONE_XMLRPC", address)
        with pytest.raises(OnedUnreachable, match=rf"oned at {address} has not answered in 1 s: .* raise ONED_TIMEOUT"):
            oned.ask(7, [100], answer_seconds=1)


@pytest.mark.parametrize(
    "address", ["http://localhost:x/RPC2", "http://localhost:99999/RPC2", "http://[::1", "http://a b/"]
)
def test_an_address_that_is_none_is_a_sentence(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("ONE_XMLRPC", address)
    with pytest.raises(OnedUnreachable) as refusal:
        oned.ask(7, [100])
    assert address in str(refusal.value) and "ONE_XMLRPC" in str(refusal.value)


MEMBER = "<member><name>faultString</name><value>broken</value></member>"
FAULT = f"<methodResponse><fault><value><struct>{MEMBER}</struct></value></fault></methodResponse>"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, "<html><body>It works!</body></html>", "no XML-RPC; another program"),
        (200, "It works!", "no XML-RPC; another program"),
        (200, "", "no XML-RPC; another program"),
        (200, FAULT, "a fault: .*broken.*oned.log"),
        (200, "<methodResponse/>", "a fault"),
        (200, "<methodResponse><params><param><value/></param></params></methodResponse>", "a fault"),
        (502, "Bad gateway", "HTTP status 502"),
        (401, "", "HTTP status 401"),
        (200, "<!DOCTYPE methodResponse [<!ENTITY e 'x'>]><methodResponse>&e;</methodResponse>", "no XML-RPC"),
    ],
)
def test_whatever_else_answers_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, status: int, body: str, words: str
) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/RPC2"
    monkeypatch.setenv("ONE_XMLRPC", address)
    try:
        with pytest.raises(OnedUnreachable, match=words) as refusal:
            oned.ask(7, [100])
        assert address in str(refusal.value)
    finally:
        server.shutdown()
        server.server_close()
