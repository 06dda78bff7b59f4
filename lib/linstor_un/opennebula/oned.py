"""Asking oned, in one request of its XML-RPC.

Transfer actions get no XML, so that they learn a disk's attributes and their datastore's from oned. A Ruby client
takes 1.4 s for each (opennebula-seen.md); one `system.multicall` answers all questions of an action in milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional, Union
from urllib.parse import urlsplit

from linstor_un.errors import InvalidInput, OnedRefused, OnedUnreachable
from linstor_un.opennebula import decoding, model

if TYPE_CHECKING:
    from lxml.etree import _Element

_DEFAULT_ENDPOINT = "http://localhost:2633/RPC2"
_CONNECT_SECONDS = 5
ANSWER_SECONDS = 30
Parameter = Union[int, bool, str]
_NO_SUCH_OBJECT = 0x0400
_NOT_ALLOWED = ("256", "512")


class Facts(NamedTuple):
    """What oned knows of one action's VM and datastores; the VM is None where oned has none with that id."""

    virtual_machine: Optional[model.VirtualMachine]
    datastores: Mapping[int, model.Datastore]


def ask(vm_id: Optional[int], datastore_ids: Sequence[int], answer_seconds: int = ANSWER_SECONDS) -> Facts:
    """Return the VM and the datastores, decrypted, in one request that is answered within `answer_seconds`.

    Raises OnedUnreachable, and InvalidInput for a datastore that oned does not know.
    """
    wanted = list(dict.fromkeys(datastore_ids))
    calls: list[tuple[str, tuple[Parameter, ...]]] = [("one.datastore.info", (number, True)) for number in wanted]
    if vm_id is not None:
        calls.append(("one.vm.info", (vm_id,)))
    answers = Client(answer_seconds).call_all(calls)
    datastores = {}
    for number, answer in zip(wanted, answers):
        if answer is None:
            raise InvalidInput(f"oned knows no datastore {number}: `onedatastore list` shows those that exist")
        datastores[number] = model.datastore(decoding.parse(answer, "DATASTORE"))
    machine = answers[-1] if vm_id is not None else None
    return Facts(model.virtual_machine(decoding.parse(machine, "VM")) if machine else None, datastores)


def call(
    calls: Sequence[tuple[str, tuple[Parameter, ...]]], answer_seconds: int = ANSWER_SECONDS
) -> list[Optional[bytes]]:
    """Return what oned answers to each call, in one request, None where the object does not exist.

    Raises OnedUnreachable.
    """
    return Client(answer_seconds).call_all(calls)


class Client:
    """One user's way to oned: each call is a request of its own, or several are one."""

    def __init__(self, answer_seconds: int = ANSWER_SECONDS) -> None:
        self.endpoint = _endpoint()
        self._answer_seconds = answer_seconds
        self._session = _credentials()

    def call_all(self, calls: Sequence[tuple[str, tuple[Parameter, ...]]]) -> list[Optional[bytes]]:
        """Return one XML per call, or None where the object does not exist."""
        tree = self._post(_multicall([(name, (self._session, *parameters)) for name, parameters in calls]))
        if tree.find("fault") is None:
            results = tree.findall("params/param/value/array/data/value")
            if len(results) == len(calls):
                return [self._body(call, result) for call, result in zip(calls, results)]
        # A proxy before oned may know only oned's own methods.
        return [self.call(name, *parameters) for name, parameters in calls]

    def call(self, method: str, *parameters: Parameter) -> Optional[bytes]:
        """Return the XML of one call, or None where the object does not exist."""
        tree = self._post(_method_call(method, (self._session, *parameters)))
        value = tree.find("params/param/value")
        if value is None:
            raise self._unusable("a fault: " + "".join(tree.itertext()).strip()[:200])
        return self._body((method, parameters), value)

    def _body(self, call: tuple[str, tuple[Parameter, ...]], value: _Element) -> Optional[bytes]:
        fields = value.findall(".//array/data/value")
        # In a multicall each result is an array of one result.
        fields = [field for field in fields if field.find("array") is None]
        if len(fields) < 3:
            raise self._unusable("a fault: " + "".join(value.itertext()).strip()[:200])
        body = "".join(fields[1].itertext())
        if "".join(fields[0].itertext()).strip() in ("1", "true"):
            return body.encode()
        code = "".join(fields[2].itertext()).strip()
        if code == str(_NO_SUCH_OBJECT):
            return None
        if code in _NOT_ALLOWED:
            raise OnedUnreachable(
                f"oned refused {call[0]}: {body.strip()}; correct the credentials that ONE_AUTH names"
            )
        raise OnedRefused(f"oned refused {call[0]}: {body.strip()}; see /var/log/one/oned.log")

    def _unusable(self, what: str) -> OnedUnreachable:
        return OnedUnreachable(f"oned at {self.endpoint} answered {what}; see /var/log/one/oned.log")

    def _post(self, body: str) -> _Element:
        from http.client import HTTPConnection, HTTPException, HTTPSConnection
        from socket import timeout

        try:
            url = urlsplit(self.endpoint)
            kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
            connection = kind(url.hostname or "localhost", url.port, timeout=_CONNECT_SECONDS)
        except (ValueError, HTTPException) as failure:
            raise OnedUnreachable(
                f"{self.endpoint} is no address of oned ({failure}): correct ONE_XMLRPC or ~/.one/one_endpoint"
            ) from None
        try:
            connection.connect()
            connection.sock.settimeout(self._answer_seconds)
            connection.request("POST", url.path or "/RPC2", body.encode(), {"Content-Type": "text/xml"})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as failure:
            if isinstance(failure, timeout) and connection.sock is not None:
                raise OnedUnreachable(
                    f"oned at {self.endpoint} has not answered in {self._answer_seconds} s: see /var/log/one/oned.log "
                    "for what it waits for, or raise ONED_TIMEOUT in linstor_un.conf"
                ) from None
            raise OnedUnreachable(
                f"oned does not answer at {self.endpoint} ({failure or type(failure).__name__}): start opennebula, "
                "or correct ONE_XMLRPC or ~/.one/one_endpoint"
            ) from None
        finally:
            connection.close()
        if response.status != 200:
            raise self._unusable(f"HTTP status {response.status}")
        try:
            return decoding.parse(answer, "methodResponse")
        except InvalidInput:
            raise self._unusable("no XML-RPC; another program listens there") from None


def _endpoint() -> str:
    if os.environ.get("ONE_XMLRPC"):
        return os.environ["ONE_XMLRPC"]
    try:
        with open(os.path.expanduser("~/.one/one_endpoint"), encoding="utf-8") as file:
            return file.read().strip() or _DEFAULT_ENDPOINT
    except OSError:
        return _DEFAULT_ENDPOINT


def _credentials() -> str:
    candidates = [os.environ.get("ONE_AUTH"), os.path.expanduser("~/.one/one_auth"), "/var/lib/one/.one/one_auth"]
    for path in filter(None, candidates):
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().strip()
        except OSError:
            continue
    raise OnedUnreachable(
        "The credentials for oned cannot be read (tried the file that ONE_AUTH names and ~/.one/one_auth): "
        "run the driver as oneadmin"
    )


def _value(parameter: Parameter) -> str:
    if isinstance(parameter, bool):
        return f"<value><boolean>{int(parameter)}</boolean></value>"
    if isinstance(parameter, int):
        return f"<value><i4>{parameter}</i4></value>"
    text = parameter.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<value><string>{text}</string></value>"


def _method_call(name: str, parameters: Sequence[Parameter]) -> str:
    values = "".join(f"<param>{_value(parameter)}</param>" for parameter in parameters)
    return f"<?xml version='1.0'?><methodCall><methodName>{name}</methodName><params>{values}</params></methodCall>"


def _multicall(calls: Sequence[tuple[str, Sequence[Parameter]]]) -> str:
    structures = "".join(
        f"<value><struct><member><name>methodName</name><value><string>{name}</string></value></member>"
        f"<member><name>params</name><value><array><data>{''.join(map(_value, parameters))}</data></array></value>"
        "</member></struct></value>"
        for name, parameters in calls
    )
    return (
        "<?xml version='1.0'?><methodCall><methodName>system.multicall</methodName>"
        f"<params><param><value><array><data>{structures}</data></array></value></param></params></methodCall>"
    )
