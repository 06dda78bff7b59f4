"""Attaching a volume, and what LINSTOR must not be let do on the way: make an empty one of the same name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_un import log
from linstor_un.cluster import placement, replicas, volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.errors import NotReady
from linstor_un.settings import for_datastore

ALONE = (
    "vol has no DRBD layer and is on n1 alone, so that no VM on n2 can have it: keep its VM there, or set LAYER_LIST"
)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """Three nodes with a pool; whose DRBD's meta-data are in a pool of their own has one for them."""
    pools = (Pool("data", "LVM_THIN", 1000), Pool("meta", "LVM", 1000))
    with Sandbox(tmp_path / "box", ("n1", "n2", "n3"), pools) as box:
        log.start("test/replicas")
        yield box
        assert box.exceptions == []


def made(sandbox: Sandbox, **attributes: str) -> Gateway:
    """A gateway whose datastore has these attributes, and a volume `vol` of it on n1."""
    settings = for_datastore({}, {"LS_CONTROLLERS": sandbox.uri, "STORAGE_POOL": "data", **attributes}, "it")
    gateway = Gateway(settings)
    volumes.create(gateway, "vol", 8 << 10, placement.of(settings, "it"), {})
    return gateway


def nodes(sandbox: Sandbox) -> list[str]:
    """Where the volume is."""
    return sorted(sandbox.snapshot_of_state()["resource_definitions"]["vol"]["resources"])


@pytest.mark.parametrize("may_lack_drbd", [False, True])
@pytest.mark.parametrize("layers", ["STORAGE", "LUKS,STORAGE"])
def test_no_empty_volume_is_made_beside_one_without_drbd(sandbox: Sandbox, layers: str, may_lack_drbd: bool) -> None:
    sandbox.cluster.passphrase.secret, sandbox.cluster.passphrase.unlocked = "secret", True
    made(sandbox, LAYER_LIST=layers, NODE_LIST="n1")
    other = Gateway(for_datastore({}, {"LS_CONTROLLERS": sandbox.uri}, "another that says nothing of layers"))
    sandbox.clear_requests()
    with pytest.raises(NotReady, match=ALONE):
        replicas.attach(other, "vol", "n2", may_lack_drbd=may_lack_drbd)
    assert nodes(sandbox) == ["n1"]
    assert any("make-available" in item.path for item in sandbox.requests) is not may_lack_drbd
    assert not replicas.attach(other, "vol", "n1", may_lack_drbd=may_lack_drbd), "it is there"


def test_a_datastore_without_drbd_asks_before(sandbox: Sandbox) -> None:
    gateway = made(sandbox, LAYER_LIST="STORAGE", NODE_LIST="n1")
    with pytest.raises(NotReady, match=ALONE):
        replicas.attach(gateway, "vol", "n2")
    assert not any("make-available" in item.path for item in sandbox.requests)


def test_a_volume_that_has_lost_all_its_replicas_gets_no_empty_one(sandbox: Sandbox) -> None:
    gateway = made(sandbox, NODE_LIST="n1")
    sandbox.cluster.definitions["vol"].resources.pop("n1")
    with pytest.raises(NotReady, match="LINSTOR has no replica of vol any more, so that n2 cannot have it"):
        replicas.attach(gateway, "vol", "n2")
    assert nodes(sandbox) == []


def test_meta_data_in_a_pool_of_their_own_are_not_the_content(sandbox: Sandbox) -> None:
    """LINSTOR lists them in no order: of LUKS's content nothing may be read as if it were plain."""
    sandbox.cluster.passphrase.secret, sandbox.cluster.passphrase.unlocked = "secret", True
    gateway = made(sandbox, NODE_LIST="n1 n2", ENCRYPTION="yes")
    gateway.modify_resource_definition("vol", {"StorPoolNameDrbdMeta": "meta"})
    found = gateway.get("", ("resource-definitions", "vol", "resources"))
    assert [child.get("resource_name_suffix", "") for child in found[0]["layer_object"]["children"]] == [".meta", ""]
    assert {item.layers for item in replicas.of(gateway, "vol")} == {("DRBD", "LUKS", "STORAGE")}
