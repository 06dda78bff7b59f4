"""A controller behind TLS: certificates, and a proxy before the sandbox that keeps what it was sent."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from linstor_sandbox import Sandbox


class Authority:
    """Signs certificates; `certificate` is what whoever trusts it needs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.certificate = self.folder / "ca.crt"
        self._request("ca", name, "-x509", "-days", "2", "-out", "ca.crt")

    def _request(self, file: str, name: str, *arguments: str) -> None:
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{file}.key"]
        self._openssl("req", "-new", "-subj", f"/CN={name}", *new_key, *arguments)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def sign(self, name: str, alternative: str) -> tuple[Path, Path]:
        """Return the files of a certificate and its key; `alternative` is for example IP:127.0.0.1."""
        self._request(name, name, "-out", f"{name}.csr")
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={alternative}\n")
        signed_by = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext"]
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed_by)
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"


def serving(certificate: tuple[Path, Path], clients: Optional[Authority] = None) -> ssl.SSLContext:
    """How a server behaves that has this certificate, and lets in only clients with one of `clients`' if any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if clients is not None:
        context.load_verify_locations(clients.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Proxy:
    """Passes on what it gets, out of TLS where it has a context, and keeps it in `received`."""

    def __init__(self, sandbox: Sandbox, context: Optional[ssl.SSLContext]) -> None:
        self.received = b""
        self._sandbox = sandbox
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Ends the thread that accepts, which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            controller = socket.create_connection(("127.0.0.1", self._sandbox.port))
        except OSError:
            client.close()
            return
        threading.Thread(target=self._answers, args=(controller, client), daemon=True).start()
        with controller:
            while True:
                try:
                    data = client.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                self.received += data
                controller.sendall(data)

    @staticmethod
    def _answers(controller: socket.socket, client: socket.socket) -> None:
        with client:
            try:
                while True:
                    data = controller.recv(65536)
                    if not data:
                        return
                    client.sendall(data)
            except OSError:
                return


@contextmanager
def proxy(sandbox: Sandbox, context: Optional[ssl.SSLContext] = None) -> Iterator[Proxy]:
    """A proxy for the length of the block."""
    made = Proxy(sandbox, context)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def silent() -> Iterator[int]:
    """A port where connections are accepted and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
