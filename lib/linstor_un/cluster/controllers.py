"""Which of the controllers answers, and how long to wait for one that takes over from another.

One controller of a cluster runs at a time. Where it fails another one is started, which takes 20 to 60 s, and has its
satellites connected some seconds after it answers. Imported when the first request is due, as it loads python-linstor.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
import time
from collections.abc import Collection, Sequence
from http.client import HTTPException
from typing import NamedTuple, Optional, Union

from linstor.errors import LinstorError, LinstorNetworkError

from linstor_un import log
from linstor_un.cluster.connection import Connection, Unwilling
from linstor_un.errors import ControllerFailed, ControllerUnreachable, InvalidSetting
from linstor_un.settings import Settings

_OLDEST_REST_VERSION = (1, 13)
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0
_CLIENT_CONFIGURATION = "/etc/linstor/linstor-client.conf"
_FAILURES = (OSError, LinstorError, HTTPException, ValueError, KeyError)


class _Failure(NamedTuple):
    """What came of asking one controller."""

    controller: str
    reason: Exception
    is_secure: bool

    def __str__(self) -> str:
        return f"{self.controller}: {self.reason or type(self.reason).__name__}"

    @property
    def broke_off(self) -> bool:
        """Tell whether the connection was made, and lost before there was an answer."""
        return isinstance(self.reason, LinstorNetworkError)

    @property
    def is_refusal(self) -> bool:
        """Tell whether a controller is there that will not have us: no other one is going to take over."""
        cause = self.reason.__context__ if self.broke_off else self.reason
        if isinstance(cause, ssl.SSLError):
            return not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        return isinstance(cause, Unwilling)

    @property
    def is_nowhere(self) -> bool:
        """Tell whether there is no machine of this name."""
        return isinstance(self.reason, socket.gaierror) and self.reason.errno != socket.EAI_AGAIN


def find(settings: Settings, deadline: float, is_failover: bool) -> Connection:
    """Return a connection to the first controller that answers; they are asked round and round until `deadline`.

    Arguments: `deadline` in the time of time.monotonic(); `is_failover` says that this action has lost a controller.
    Raises InvalidSetting; ControllerUnreachable with what each has answered, at once where waiting changes nothing;
    ControllerFailed for one that is too old.
    """
    _check_files(settings)
    token, controllers = _token(settings), _controllers(settings)
    earlier: list[_Failure] = []
    wait = _FIRST_WAIT_SECONDS
    while True:
        failures: list[_Failure] = []
        found = _first_that_answers(settings, controllers, token, failures)
        if found is not None:
            if is_failover or earlier:
                _await_satellites(found, deadline)
            return found
        answers = "; ".join(map(str, failures))
        if time.monotonic() >= deadline or not _may_pass(failures, earlier):
            raise ControllerUnreachable(
                f"No LINSTOR controller answers ({answers}): start linstor-controller or correct LS_CONTROLLERS"
            )
        if not earlier:
            log.warning(f"no LINSTOR controller answers ({answers}): waiting for one to take over")
        time.sleep(wait)
        earlier, wait = failures, min(wait * 2, _LONGEST_WAIT_SECONDS)


def answers(settings: Settings, controller: str) -> bool:
    """Tell whether this controller answers at all, within CONNECT_TIMEOUT."""
    connection = Connection(controller, settings, _token(settings))
    try:
        return connection.connect()
    except _FAILURES:
        return False
    finally:
        connection.disconnect()


def are_being_connected(states: Collection[str]) -> bool:
    """Tell by the nodes' states whether a controller that has just started is still connecting its satellites.

    All are OFFLINE at first, then CONNECTED for a moment, then ONLINE. A node that is dead is OFFLINE beside others
    that are ONLINE: nobody waits for that.
    """
    return "CONNECTED" in states or (len(states) > 1 and "ONLINE" not in states)


def _await_satellites(connection: Connection, deadline: float) -> None:
    """Wait until the satellites that will come have come, so that what is looked at is true."""
    wait = _FIRST_WAIT_SECONDS
    try:
        while are_being_connected(connection.node_states()) and time.monotonic() < deadline:
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)
    except _FAILURES as failure:
        log.debug(f"the nodes' states are not known: {failure}")


def _first_that_answers(
    settings: Settings, controllers: Sequence[str], token: str, failures: list[_Failure]
) -> Optional[Connection]:
    """Return a connection, or None with why in `failures`."""
    for controller in controllers:
        connection = Connection(controller, settings, token)
        try:
            connection.connect()
        except _FAILURES as reason:
            connection.disconnect()
            failures.append(_Failure(controller, reason, connection.is_secure))
            continue
        if connection.rest_version < _OLDEST_REST_VERSION:
            version = ".".join(map(str, connection.rest_version))
            raise ControllerFailed(
                f"LINSTOR {connection.version} at {controller} (REST {version}) is too old for this driver: upgrade it "
                "to 1.18 or newer"
            )
        return connection
    return None


def _may_pass(failures: Sequence[_Failure], earlier: Sequence[_Failure]) -> bool:
    """Tell whether a fail-over may be under way."""
    # A controller that asks for a certificate, and gets none or a wrong one, may close the connection without a word.
    silent = {failure.controller for failure in earlier if failure.is_secure and failure.broke_off}
    if any(failure.is_refusal or (failure.broke_off and failure.controller in silent) for failure in failures):
        return False
    return not all(failure.is_nowhere for failure in failures)


def _controllers(settings: Settings) -> Sequence[str]:
    if settings.controllers:
        return settings.controllers
    from_environment = os.environ.get("LS_CONTROLLERS")
    if from_environment:
        return [item for item in from_environment.replace(",", " ").split() if item]
    if os.path.exists(_CLIENT_CONFIGURATION):
        from linstor.config import Config

        listed: Union[None, str, Sequence[str]] = Config.get_controllers()
        if listed:
            return listed.split(",") if isinstance(listed, str) else listed
    return ["linstor://localhost"]


def _check_files(settings: Settings) -> None:
    for key, path in (
        ("LS_CERTFILE", settings.certificate_file),
        ("LS_KEYFILE", settings.key_file),
        ("LS_CAFILE", settings.ca_file),
    ):
        if path and not os.access(path, os.R_OK):
            raise InvalidSetting(f"{key}={path} cannot be read: correct the path, or let oneadmin read the file")
    if settings.key_file:
        _check_is_secret("LS_KEYFILE", settings.key_file)
    elif settings.certificate_file:
        # Which has the key in it then.
        _check_is_secret("LS_CERTFILE", settings.certificate_file)


def _check_is_secret(key: str, path: str) -> None:
    """Check that not everybody may read the file, which makes its reader the driver; raises OSError, InvalidSetting."""
    if os.stat(path).st_mode & stat.S_IROTH:
        raise InvalidSetting(f"{key}={path} may be read by everybody: take that right away (chmod o-rwx {path})")


def _token(settings: Settings) -> str:
    if settings.token or not settings.token_file:
        return settings.token
    try:
        _check_is_secret("LS_TOKEN_FILE", settings.token_file)
        with open(settings.token_file, encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as reason:
        raise InvalidSetting(
            f"LS_TOKEN_FILE={settings.token_file} cannot be read ({reason}): let oneadmin read it"
        ) from None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidSetting(f"LS_TOKEN_FILE={settings.token_file} must hold the token alone, in one line: correct it")
    return token
