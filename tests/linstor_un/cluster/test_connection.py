"""How a controller is spoken to: TLS with verified certificates, and tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import linstor
import pytest

from linstor_sandbox.opennebula.scripts import Call
from linstor_sandbox.tls import Authority, serving
from linstor_un.cluster import connection
from linstor_un.cluster.gateway import Gateway
from linstor_un.settings import Settings
from tests.conftest import World
from tests.linstor_un.actions.datastore.material import cp, disk, holds, refused, remove, source, succeeded
from tests.linstor_un.cluster.tls import proxy

MakeWorld = Callable[..., World]
NUMBERS = "USED_MB=0\nTOTAL_MB=30720\nFREE_MB=30720\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "stranger")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[Path, Path]:
    return authority.sign("controller", "IP:127.0.0.1")


@pytest.fixture
def impatient(make_world: MakeWorld) -> World:
    return make_world(configuration='CONNECT_TIMEOUT="1"\n')


@pytest.fixture
def patient(make_world: MakeWorld) -> World:
    """A world in which a test never ends where an action waits for a fail-over that does not come."""
    return make_world(configuration='CONNECT_TIMEOUT="1"\nFAILOVER_TIMEOUT="99999"\n')


def monitor(world: World, **attributes: object) -> Call:
    """Ask for one datastore's numbers with these attributes of how to reach LINSTOR."""
    world.images.attributes.update({name: str(value) for name, value in attributes.items()})
    arguments = world.cloud.action_arguments(world.images.xml(), world.images.identifier)
    return world.cloud.scripts.datastore("linstor_un", "monitor", *arguments)


def ask(world: World, **attributes: object) -> Call:
    """Remove an image that is not there, which needs LINSTOR and would wait for it, with these attributes."""
    world.images.attributes.update({name: str(value) for name, value in attributes.items()})
    return remove(world, source(7))


def test_an_image_is_made_over_tls(authority: Authority, certificate: tuple[Path, Path], world: World) -> None:
    content = disk(1, 100_000)
    with proxy(world.sandbox, serving(certificate)) as controller:
        uri = f"linstor+ssl://127.0.0.1:{controller.port}"
        succeeded(monitor(world, LS_CONTROLLERS=uri, LS_CAFILE=authority.certificate), NUMBERS)
        succeeded(cp(world, world.file("disk", content), 1), f"{source(7)} raw\n")
        assert b"/spawn" in controller.received
    holds(world, "one-image-7", content)


def test_certificates_that_openssl_makes_by_itself_do_with_every_python(make_world: MakeWorld, tmp_path: Path) -> None:
    # It runs wherever a change is tried, however busy that machine is.
    world = make_world(configuration='CONNECT_TIMEOUT="60"\n')
    authority = Authority(tmp_path, plain=True)
    with proxy(world.sandbox, serving(authority.sign("controller", "IP:127.0.0.1"))) as controller:
        uri = f"linstor+ssl://127.0.0.1:{controller.port}"
        succeeded(monitor(world, LS_CONTROLLERS=uri, LS_CAFILE=authority.certificate), NUMBERS)


def test_a_certificate_that_is_not_to_be_trusted_ends_it(
    authority: Authority, stranger: Authority, certificate: tuple[Path, Path], patient: World
) -> None:
    world = patient
    cases = [
        (certificate, stranger.certificate, "certificate verify failed"),
        (certificate, "", "certificate verify failed"),
        (authority.of_kind("expired"), authority.certificate, "certificate has expired"),
        (authority.of_kind("self-signed"), authority.certificate, "certificate verify failed"),
        (stranger.sign("controller", "IP:127.0.0.1"), authority.certificate, "certificate verify failed"),
        (authority.sign("other", "DNS:controller.example.org"), authority.certificate, "IP address mismatch"),
    ]
    for offered, trusted, reason in cases:
        with proxy(world.sandbox, serving(offered)) as controller:
            uri = f"linstor+ssl://127.0.0.1:{controller.port}"
            call = ask(world, LS_CONTROLLERS=uri, LS_CAFILE=trusted, LS_TOKEN="word")
            refused(call, f"No LINSTOR controller answers ({uri}: ", reason, "LS_CONTROLLERS")
            assert controller.received == b""


def test_a_controller_that_wants_a_certificate_gets_ours(
    authority: Authority, stranger: Authority, certificate: tuple[Path, Path], patient: World
) -> None:
    ours, key = authority.sign("opennebula", "DNS:opennebula")
    with proxy(patient.sandbox, serving(certificate, clients=authority)) as controller:
        uri = f"linstor+ssl://127.0.0.1:{controller.port}"
        call = ask(patient, LS_CONTROLLERS=uri, LS_CAFILE=authority.certificate)
        refused(call, f"No LINSTOR controller answers ({uri}: ")
        theirs, their_key = stranger.sign("opennebula", "DNS:opennebula")
        call = ask(patient, LS_CERTFILE=theirs, LS_KEYFILE=their_key)
        refused(call, f"No LINSTOR controller answers ({uri}: ")
        assert controller.received == b""
        succeeded(monitor(patient, LS_CERTFILE=ours, LS_KEYFILE=key), NUMBERS)


def test_files_that_cannot_be_used_are_named(authority: Authority, impatient: World, tmp_path: Path) -> None:
    ours, _ = authority.sign("opennebula", "DNS:opennebula")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    nonsense.chmod(0o600)
    absent = tmp_path / "absent"
    cases: list[tuple[dict[str, Path], str]] = [
        ({"LS_CAFILE": absent}, f"LS_CAFILE={absent} cannot be read"),
        ({"LS_CAFILE": nonsense}, f"LS_CAFILE={nonsense} cannot be used"),
        ({"LS_CERTFILE": absent}, f"LS_CERTFILE={absent} cannot be read"),
        ({"LS_CERTFILE": ours, "LS_KEYFILE": nonsense}, f"LS_KEYFILE={nonsense} cannot be used"),
        ({"LS_TOKEN_FILE": absent}, f"LS_TOKEN_FILE={absent} cannot be read"),
    ]
    for attributes, reason in cases:
        for name in ("LS_CAFILE", "LS_CERTFILE", "LS_KEYFILE", "LS_TOKEN_FILE"):
            impatient.images.attributes.pop(name, None)
        refused(monitor(impatient, LS_CONTROLLERS="linstor+ssl://127.0.0.1:1", **attributes), reason)


def test_a_secret_that_everybody_may_read_is_refused(authority: Authority, impatient: World, tmp_path: Path) -> None:
    ours, key = authority.sign("opennebula", "DNS:opennebula")
    both, token = tmp_path / "both", tmp_path / "token"
    both.write_text(ours.read_text() + key.read_text())
    token.write_text("secret-word\n")
    cases = [
        ("LS_KEYFILE", key, {"LS_CERTFILE": ours, "LS_KEYFILE": key}),
        ("LS_CERTFILE", both, {"LS_CERTFILE": both, "LS_KEYFILE": ""}),
        ("LS_TOKEN_FILE", token, {"LS_CERTFILE": "", "LS_TOKEN_FILE": token}),
    ]
    for name, file, attributes in cases:
        for mode, reason in ((0o644, f"{name}={file} may be read by everybody"), (0o640, "No LINSTOR controller")):
            file.chmod(mode)
            call = monitor(impatient, LS_CONTROLLERS="linstor+ssl://127.0.0.1:1", **attributes)
            assert "secret-word" not in refused(call, reason)


def test_a_token_goes_over_tls_and_over_nothing_else(
    authority: Authority, certificate: tuple[Path, Path], world: World, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-word\n")
    token.chmod(0o600)
    with proxy(world.sandbox) as plain, proxy(world.sandbox, serving(certificate)) as secure:
        for uri in (f"linstor://127.0.0.1:{plain.port}", f"linstor+ssl://127.0.0.1:{secure.port}"):
            call = monitor(world, LS_CONTROLLERS=uri, LS_CAFILE=authority.certificate, LS_TOKEN_FILE=token)
            succeeded(call, NUMBERS)
        assert b"GET /v1/view/storage-pools" in plain.received
        assert b"secret-word" not in plain.received
        assert secure.received.count(b"Authorization: Bearer secret-word\r\n") == secure.received.count(b"GET /v1/")


def test_the_token_of_other_tools_is_not_read() -> None:
    assert connection.Connection.__mro__[1] is linstor.Linstor
    assert linstor.Linstor.AUTH_JSON_PATH == ""


def test_an_older_python_linstor_migrates_in_the_older_way(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(Settings(controllers=(make_world(rest_version="1.29.1").sandbox.uri,)))
    assert gateway.manages_two_primaries
    monkeypatch.delattr(linstor.Linstor, "resource_unmake_available")
    assert not gateway.manages_two_primaries
    gateway.close()
