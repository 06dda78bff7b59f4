"""The two datastores that are to be made: their templates, whether they would work, and what fits into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from linstor_un import settings as settings_room
from linstor_un.cli.checks import datastores as checks
from linstor_un.cli.checks.facts import Configured
from linstor_un.cli.checks.finding import Finding
from linstor_un.cli.installation.oned_conf import DRIVER
from linstor_un.cluster import placement as placements
from linstor_un.cluster import pools
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.pools import Capacity
from linstor_un.cluster.survey import Survey
from linstor_un.errors import AlreadyExists
from linstor_un.opennebula.model import Datastore
from linstor_un.opennebula.survey import Store
from linstor_un.settings import ATTRIBUTES

# What says which driver a datastore has, and how; all else that is compared are our own attributes.
_KINDS = ("TYPE", "DS_MAD", "TM_MAD", "DISK_TYPE")
# What oned gives to a datastore for which nobody says it.
_GIVEN_BY_ONED = {"SAFE_DIRS": "/var/tmp", "RESTRICTED_DIRS": "/"}
# What concerns VMs only, and means nothing in an image datastore.
_OF_SYSTEM = ("CHECKPOINT_REPLICA_COUNT",)


class Planned(NamedTuple):
    """A datastore that is to be made; `attributes` are its template without NAME."""

    configured: Configured
    configuration: Mapping[str, str]

    @property
    def name(self) -> str:
        """Return its name."""
        return self.configured.store.datastore.name

    @property
    def attributes(self) -> Mapping[str, str]:
        """Return its template without NAME."""
        return self.configured.store.datastore.attributes

    def capacity(self, gateway: Gateway) -> Capacity:
        """Return what fits into it; raises InvalidSetting and NotFound."""
        return pools.capacity(gateway, placements.of(self.configured.settings, self.configured.label))

    def check_same(self, store: Store, cluster_id: int) -> None:
        """Raise AlreadyExists, naming the attribute, where the datastore that has the name is another one."""
        own, planned = store.datastore.attributes, self.attributes
        for key in _KINDS:
            if own.get(key, "").upper() != planned.get(key, "").upper():
                raise _is_other(store, key, own.get(key, ""), planned.get(key, ""))
        without = {key: value for key, value in own.items() if _GIVEN_BY_ONED.get(key) != value or key in planned}
        present = settings_room.for_datastore(self.configuration, without, store.datastore.label)
        for key, (field, _) in ATTRIBUTES.items():
            if getattr(present, field) != getattr(self.configured.settings, field):
                raise _is_other(store, key, _value(own, key), planned.get(key, ""))
        if cluster_id >= 0 and cluster_id not in store.cluster_ids:
            clusters = " ".join(str(number) for number in sorted(store.cluster_ids)) or "none"
            raise AlreadyExists(
                f"{store.datastore.label} exists already and is in cluster {clusters}, not in {cluster_id}: run "
                f"`onecluster adddatastore {cluster_id} {store.datastore.datastore_id}`"
            )


def _value(attributes: Mapping[str, str], key: str) -> str:
    """Return an attribute by its present or its older name."""
    names = [key, *(older for older, newer in settings_room.ALIASES.items() if newer == key)]
    return next((attributes[name] for name in names if name in attributes), "")


def _is_other(store: Store, key: str, present: str, planned: str) -> AlreadyExists:
    shown = ("(hidden)", "another") if key in settings_room.SECRET else (f'"{present}"', f'"{planned}"')
    return AlreadyExists(
        f"{store.datastore.label} exists already and has {key}={shown[0]}, where {shown[1]} is asked for: choose "
        f"another name, ask for the same, or change it with `onedatastore update {store.datastore.datastore_id}`"
    )


def pair(
    configuration: Mapping[str, str], name: str, attributes: Mapping[str, str], system_disk_type: str
) -> tuple[Planned, Planned]:
    """Return the system and the image datastore of this name with these attributes; raises InvalidSetting."""
    system = {"TYPE": "SYSTEM_DS", "TM_MAD": DRIVER, "DISK_TYPE": system_disk_type, **attributes}
    own = {key: value for key, value in attributes.items() if key not in _OF_SYSTEM}
    image = {"TYPE": "IMAGE_DS", "DS_MAD": DRIVER, "TM_MAD": DRIVER, "DISK_TYPE": "BLOCK", **own}
    return _planned(configuration, f"{name}-system", system), _planned(configuration, f"{name}-images", image)


def _planned(configuration: Mapping[str, str], name: str, attributes: Mapping[str, str]) -> Planned:
    datastore = Datastore(-1, name, DRIVER, attributes)
    store = Store(datastore, attributes["TYPE"] == "SYSTEM_DS", frozenset(), 0, datastore)
    settings = settings_room.for_datastore(configuration, attributes, datastore.label)
    return Planned(Configured(store, settings), configuration)


def judge(cluster: Survey, planned: Planned) -> Iterator[Finding]:
    """Return what `check` would find wrong with the datastore."""
    yield from checks.of_attributes(planned.configured)
    yield from checks.of_placement(cluster, planned.configured)
    yield from checks.of_room(cluster, planned.configured)
