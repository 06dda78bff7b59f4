"""python-linstor's low-level client, with verified certificates and two time-outs.

Imported when the first request is due: python-linstor costs more to load than the rest of an action together.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from linstor.errors import LinstorError
from linstor.linstorapi import ControllerVersion, Linstor

from linstor_un.errors import InvalidSetting
from linstor_un.settings import Settings

# The base class would read a token of LINBIT's own tools, which oneadmin may not be allowed to.
Linstor.AUTH_JSON_PATH = ""

_SECONDS_PER_DAY = 86400
_MISSED_SIGNS = 3


class Unwilling(LinstorError):  # type: ignore[misc]
    """What answers will not have us, or is no LINSTOR controller: waiting changes nothing."""


class Connection(Linstor):  # type: ignore[misc]
    """One keep-alive connection to one controller.

    Differs from its base in how it connects: one probe instead of two or three, a short time-out until the controller
    has proved to be alive and a long one for its work, certificates always verified, and nothing is ever re-sent.
    """

    def __init__(self, uri: str, settings: Settings, token: str) -> None:
        super().__init__(uri, timeout=settings.connect_timeout_seconds, agent_info="linstor_un")
        self.uri = uri
        self._auth_token = token
        self._settings = settings
        self.version = ""
        self.rest_version: tuple[int, ...] = ()

    @property
    def is_secure(self) -> bool:
        """Tell whether it goes over TLS."""
        return isinstance(self._rest_conn, HTTPSConnection)

    def connect(self) -> bool:
        """Connect and learn the controller's REST version; raises OSError and LinstorError."""
        url = urlsplit(self._ctrl_host if "://" in self._ctrl_host else f"linstor://{self._ctrl_host}")
        secure = url.scheme in ("linstor+ssl", "https")
        self._open(url.hostname or "localhost", url.port, secure)
        response = self._rest_request_base("version", "GET", "/v1/controller/version")
        body = self._decode_response_data(response)
        if response.status == 302 and not secure:
            self._rest_conn.close()
            target = urlsplit(response.getheader("Location") or "")
            self._open(url.hostname or "localhost", target.port, True)
            response = self._rest_request_base("version", "GET", "/v1/controller/version")
            body = self._decode_response_data(response)
        if response.status != 200:
            # From 500 on it is the server's own trouble: a controller that starts or ends, or a proxy without one.
            kind = LinstorError if response.status >= 500 else Unwilling
            raise kind(_refusal(response.status, body))
        self._learn(body)
        self.stay()
        self._connected = True
        return True

    def node_states(self) -> list[str]:
        """Return the connection_status of every node, as the controller knows it without asking them."""
        response = self._rest_request_base("nodes", "GET", "/v1/nodes")
        return [str(node.get("connection_status")) for node in json.loads(self._decode_response_data(response))]

    def stay(self, longest_seconds: float = 0) -> None:
        """Make sure that the connection is there for a request that may take long: REQUEST_TIMEOUT, or as long as this.

        A controller closes it after each answer with an error; http.client would connect anew by itself, with the short
        time-out for the whole request.
        """
        if self._rest_conn.sock is None:
            self._rest_conn.connect()
        self._rest_conn.sock.settimeout(longest_seconds or self._settings.request_timeout_seconds)
        _watch(self._rest_conn.sock, self._settings.connect_timeout_seconds)

    def certificate_days(self) -> float | None:
        """Return for how many days more the controller's certificate is valid, None without TLS."""
        certificate = self._rest_conn.sock.getpeercert() if isinstance(self._rest_conn.sock, ssl.SSLSocket) else None
        if not certificate:
            return None
        return (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / _SECONDS_PER_DAY

    def _open(self, host: str, port: int | None, secure: bool) -> None:
        timeout = self._settings.connect_timeout_seconds
        if secure:
            self._rest_conn: HTTPConnection = HTTPSConnection(
                host, port or self.REST_HTTPS_PORT, timeout=timeout, context=self._tls()
            )
            if self._auth_token:
                self._http_headers["Authorization"] = f"Bearer {self._auth_token}"
        else:
            self._rest_conn = HTTPConnection(host, port or self.REST_PORT, timeout=timeout)
        self._rest_conn.connect()

    def _tls(self) -> ssl.SSLContext:
        settings = self._settings
        setting = f"LS_CAFILE={settings.ca_file}"
        try:
            context = ssl.create_default_context(cafile=settings.ca_file or None)
            # Python 3.13 refuses authorities that do not say what they are for: openssl by itself makes such.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if settings.certificate_file:
                setting = f"LS_CERTFILE={settings.certificate_file} with LS_KEYFILE={settings.key_file}"
                # With a password, as OpenSSL would else ask the terminal for that of an encrypted key.
                context.load_cert_chain(settings.certificate_file, settings.key_file or None, password="")
        except ssl.SSLError as failure:
            raise InvalidSetting(
                f"{setting} cannot be used ({failure.reason}): provide unencrypted PEM files"
            ) from None
        return context

    def _learn(self, body: str) -> None:
        try:
            version: dict[str, Any] = json.loads(body)
            self.rest_version = tuple(int(part) for part in str(version["rest_api_version"]).split("."))
        except (ValueError, KeyError, TypeError):
            raise Unwilling("it is no LINSTOR controller") from None
        self.version = str(version.get("version", ""))
        self._ctrl_version = ControllerVersion(version)


def _watch(connection: socket.socket, seconds: int) -> None:
    """Let the kernel notice a machine that has lost its power, which never says so, however long an answer takes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _MISSED_SIGNS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * (_MISSED_SIGNS + 1) * 1000)


def _refusal(status: int, body: str) -> str:
    if status == 401:
        return "it asks for a token: set LS_TOKEN_FILE and use linstor+ssl://"
    return f"it answered HTTP status {status} {body[:100]}"
