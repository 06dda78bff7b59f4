"""Certificates, good ones and such as must be refused, made with openssl."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Optional

KINDS = ("good", "expired", "wrong-host", "self-signed")
"""What a controller's certificate can be like."""
HERE = "IP:127.0.0.1,DNS:localhost"
Files = tuple[Path, Path]
"""A certificate and its key."""


class Authority:
    """Signs certificates; `certificate` is what whoever trusts it needs.

    A `plain` one says no more in them than openssl does by itself, which is less than RFC 5280 asks for.
    """

    def __init__(self, folder: Path, name: str = "authority", plain: bool = False) -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.certificate = self.folder / "ca.crt"
        self._plain = plain
        # Python 3.13 and newer ask authorities for what they are there for, unless told not to.
        usage = [] if plain else ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        self._request("ca", name, "-x509", "-days", "30", "-out", "ca.crt", *usage)

    def _request(self, file: str, name: str, *arguments: str) -> None:
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{file}.key"]
        self._openssl("req", "-new", "-subj", f"/CN={name}", *new_key, *arguments)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def sign(self, name: str, alternative: str, days: int = 30) -> Files:
        """A certificate for so many days from now, and its key; `alternative` is for example IP:127.0.0.1."""
        self._request(name, name, "-out", f"{name}.csr")
        extensions = f"subjectAltName={alternative}\n" + ("" if self._plain else "authorityKeyIdentifier=keyid\n")
        (self.folder / f"{name}.ext").write_text(extensions, encoding="ascii")
        signed_by = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext"]
        valid = ["-days", str(days)] if days > 0 else _in_the_past()
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *valid, "-sha256", *signed_by)
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def of_kind(self, kind: str) -> Files:
        """A controller's certificate, one of KINDS; the last is not signed by this authority but by itself."""
        if kind == "self-signed":
            alternative = ["-addext", f"subjectAltName={HERE}"]
            self._request(kind, "controller", "-x509", "-days", "30", "-out", f"{kind}.crt", *alternative)
            return self.folder / f"{kind}.crt", self.folder / f"{kind}.key"
        where = "DNS:controller.example.org" if kind == "wrong-host" else HERE
        return self.sign(kind, where, -1 if kind == "expired" else 30)


def _in_the_past() -> list[str]:
    """How openssl is told that a certificate has expired: newer ones take no negative days, older ones no dates."""
    shown = subprocess.run(["openssl", "x509", "-help"], check=False, capture_output=True, text=True)
    if "-not_after" in shown.stdout + shown.stderr:
        return ["-not_before", "20200101000000Z", "-not_after", "20200102000000Z"]
    return ["-days", "-1"]


def serving(certificate: Files, clients: Optional[Authority] = None) -> ssl.SSLContext:
    """How a server behaves that has this certificate, and lets in only clients with one of `clients`' if any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if clients is not None:
        context.load_verify_locations(clients.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
