"""HTTPS as LINSTOR has it: certificates of every kind, those of clients, the way from HTTP, tokens."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import linstor
import pytest

from linstor_sandbox import Sandbox
from linstor_sandbox.script import play
from linstor_sandbox.tls import KINDS, Authority, serving

from .rest import error_code

Start = Callable[..., Sandbox]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "stranger")


@pytest.fixture(scope="module")
def certificates(authority: Authority) -> dict[str, tuple[Path, Path]]:
    return {kind: authority.of_kind(kind) for kind in KINDS}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as running:

        def begin(certificate: tuple[Path, Path], *clients: Authority, **more: Any) -> Sandbox:
            box = Sandbox(tmp_path / "box", ("node1",), tls=serving(certificate, *clients), **more)
            running.enter_context(box)
            running.callback(lambda: box.exceptions and pytest.fail(box.exceptions[0]))
            return box

        yield begin


def client(uri: str, trusted: Path | None = None, own: tuple[Path, Path] | None = None, **more: Any) -> linstor.Linstor:
    made = linstor.Linstor(uri, timeout=5, **more)
    made.cafile = trusted and str(trusted)
    if own:
        made.certfile, made.keyfile = map(str, own)
    return made


def secure(box: Sandbox) -> str:
    return f"linstor+ssl://127.0.0.1:{box.port}"


def ask(box: Sandbox, target: str, token: str = "", port: int = 0) -> tuple[int, Any, Any]:
    """Status, headers and body over TLS, whatever the certificate; or over HTTP where a port is named."""
    trusting = ssl._create_unverified_context()
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        if port
        else http.client.HTTPSConnection("127.0.0.1", box.port, timeout=5, context=trusting)
    )
    connection.request("GET", target, headers={"Authorization": token} if token else {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def test_a_good_certificate_lets_python_linstor_in(
    start: Start, authority: Authority, certificates: dict[str, tuple[Path, Path]]
) -> None:
    box = start(certificates["good"])
    with client(secure(box), authority.certificate) as lin:
        assert [node.name for node in lin.node_list_raise().nodes] == ["node1"]
    assert box.uri == f"https://127.0.0.1:{box.port}"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("expired", "certificate has expired"), ("wrong-host", "IP address mismatch"), ("self-signed", "self.signed")],
)
def test_other_certificates_are_refused_by_those_who_look(
    start: Start, authority: Authority, certificates: dict[str, tuple[Path, Path]], kind: str, reason: str
) -> None:
    box = start(certificates[kind])
    with pytest.raises(linstor.LinstorNetworkError, match=reason):
        client(secure(box), authority.certificate).connect()
    assert box.requests == []
    with client(secure(box)) as lin:
        assert lin.controller_version().rest_api_version == "1.27.0"


def test_a_self_signed_certificate_can_be_pinned(start: Start, certificates: dict[str, tuple[Path, Path]]) -> None:
    box = start(certificates["self-signed"])
    client(secure(box), certificates["self-signed"][0]).connect()


def test_a_client_without_a_certificate_is_dropped(
    start: Start, authority: Authority, stranger: Authority, certificates: dict[str, tuple[Path, Path]]
) -> None:
    box = start(certificates["good"], authority)
    with pytest.raises(linstor.LinstorNetworkError, match="Remote end closed connection without response"):
        client(secure(box), authority.certificate).connect()
    with pytest.raises(linstor.LinstorNetworkError):
        client(secure(box), authority.certificate, stranger.sign("client", "DNS:client")).connect()
    assert box.requests == []
    client(secure(box), authority.certificate, authority.sign("client", "DNS:client")).connect()


def test_http_leads_to_https(start: Start, certificates: dict[str, tuple[Path, Path]]) -> None:
    box = start(certificates["good"])
    status, headers, body = ask(box, "/v1/nodes?nodes=node1", port=box.redirect_port)
    assert (status, headers["Location"]) == (302, f"https://127.0.0.1:{box.port}/v1/nodes")
    assert headers["Location"] in body
    assert ask(box, "/health", port=box.redirect_port)[0] == 200
    with client(f"linstor://127.0.0.1:{box.redirect_port}") as lin:
        assert [node.name for node in lin.node_list_raise().nodes] == ["node1"]


def test_plain_text_at_the_port_of_tls_is_no_answer(start: Start, certificates: dict[str, tuple[Path, Path]]) -> None:
    box = start(certificates["good"])
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ask(box, "/v1/nodes", port=box.port)
    assert ask(box, "/v1/nodes")[0] == 200


def test_the_second_address_has_tls_too(start: Start, certificates: dict[str, tuple[Path, Path]]) -> None:
    box = start(certificates["good"])
    uris = linstor.MultiLinstor.controller_uri_list(box.uris.replace("https://", "linstor+ssl://"))
    for _ in range(2):
        with linstor.MultiLinstor(uris, timeout=5) as lin:
            assert [node.name for node in lin.node_list_raise().nodes] == ["node1"]
        box.fail_over()


def test_faults_over_tls(start: Start, certificates: dict[str, tuple[Path, Path]]) -> None:
    box = start(certificates["good"])
    for fault, error in (
        ("drop", http.client.RemoteDisconnected),
        ("die 10", http.client.IncompleteRead),
        ("refuse", http.client.RemoteDisconnected),
    ):
        play(box, f"on GET /v1/nodes: {fault}")
        with pytest.raises(error):
            ask(box, "/v1/nodes")
    with pytest.raises(ConnectionRefusedError):
        ask(box, "/v1/nodes", port=box.redirect_port)
    play(box, "listen")
    assert ask(box, "/v1/nodes")[0] == 200


def test_a_token_opens_what_is_closed_without(
    start: Start, authority: Authority, certificates: dict[str, tuple[Path, Path]]
) -> None:
    box = start(certificates["good"], rest_version="1.28.0", token="word")
    for token in ("", "Bearer other", "word", "Basic word"):
        status, headers, body = ask(box, "/v1/controller/version", token)
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="linstor-controller"')
        assert error_code(json.loads(body)) == 412
        assert json.loads(body)[0]["message"] == "Unauthorized: token invalid or not provided"
    assert ask(box, "/health")[0] == 200
    assert ask(box, "/v1/nodes", "Bearer word")[0] == 200
    with client(secure(box), authority.certificate, auth_token="word") as lin:
        assert [node.name for node in lin.node_list_raise().nodes] == ["node1"]
    with pytest.raises(linstor.LinstorError, match="401|Unauthorized"):
        client(secure(box), authority.certificate).connect()


def test_older_controllers_know_no_tokens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"REST version 1\.27\.0 knows no tokens: choose 1\.28\.0 or newer"):
        Sandbox(tmp_path, token="word")
