"""XML that is a trap, given to every action that takes any: refused before anything is asked or changed."""

from __future__ import annotations

import base64
import importlib
from collections.abc import Mapping

import pytest

from linstor_un.driver import Call
from linstor_un.errors import InvalidInput
from tests.conftest import CHECKOUT
from tests.linstor_un.test_bad_input import DEEP, HUGE, LAUGHS

DATASTORE, VM, VMM = "DS_DRIVER_ACTION_DATA", "VM", "VMM_DRIVER_ACTION_DATA"
PLACE = "/var/lib/one//datastores/100/7"
MIGRATION = ("node1", "node2", PLACE, "7", "100")
ROOTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    **{f"datastore.{path.name}": (DATASTORE, ("7",)) for path in (CHECKOUT / "datastore" / "linstor_un").iterdir()},
    "tm.monitor": (DATASTORE, ("100",)),
    **dict.fromkeys(("tm.premigrate", "tm.postmigrate", "tm.failmigrate"), (VM, MIGRATION)),
    "vmm.save_linstor_un": (VMM, ("one-7", f"{PLACE}/checkpoint", "node1", "7", "node1")),
    "vmm.restore_linstor_un": (VMM, (f"{PLACE}/checkpoint", "node1", "one-7", "7", "node1")),
}
QUADRATIC = b"<!DOCTYPE d [<!ENTITY a '" + b"a" * 50_000 + b"'>]><ROOT x='" + b"&a;" * 50_000 + b"'/>"
TRAPS = {
    "billion laughs": LAUGHS + b"]><ROOT>&a9;</ROOT>",
    "billion laughs in an attribute": LAUGHS + b"]><ROOT x='&a9;'/>",
    "billion laughs by default": LAUGHS + b"<!ATTLIST ROOT x CDATA '&a9;'>]><ROOT/>",
    "a long entity often": QUADRATIC,
    "a file": b"<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><ROOT>&e;</ROOT>",
    "a document type elsewhere": b"<!DOCTYPE d SYSTEM 'http://127.0.0.1:1/'><ROOT/>",
    "elements 5000 deep": DEEP.replace(b"DS_DRIVER_ACTION_DATA", b"ROOT"),
    "a text of 11 MB": HUGE.replace(b"DS_DRIVER_ACTION_DATA", b"ROOT"),
    "another root": b"<OTHER/>",
    "bytes that are no text": b"<\xff\xfe\x00ROOT/>",
    "nothing": b"",
    "no base64": b"%%%",
    "nothing in it": b"<ROOT/>",
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("action", ROOTS)
def test_no_action_falls_into_a_trap(action: str, trap: str) -> None:
    root, arguments = ROOTS[action]
    document = TRAPS[trap].replace(b"ROOT", root.encode())
    for given in (document, base64.b64encode(document)):
        with pytest.raises(InvalidInput) as refusal:
            importlib.import_module(f"linstor_un.actions.{action}").run(Call(arguments, given, {}))
        assert len(str(refusal.value)) < 500
        assert "root:" not in str(refusal.value)
