"""The objects of a LINSTOR cluster and what they know about themselves."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from .properties import Props
from .registry import Registry
from .storage import Content, Store, taken

DISKLESS_POOL = "DfltDisklessStorPool"
DEFAULT_GROUP = "DfltRscGrp"
UNLIMITED = 9223372036854775807

LAYERS = ("DRBD", "CRYPT", "NVME", "WRITECACHE", "CACHE", "BCACHE", "LUKS", "STORAGE")


@dataclass(frozen=True)
class Kind:
    """What a provider of storage can do; granularity in KiB."""

    name: str
    label: str
    thin: bool
    zeroed: bool
    snapshots: bool
    clone: bool
    granularity: int
    family: str

    @property
    def goes_with(self) -> str:
        """What the pools of one volume have in common: LVM, thick and thin, is not mixed."""
        return self.name if self.family == "LVM" else self.family


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("LVM", "LVM", False, False, False, True, 4096, "LVM"),
        Kind("LVM_THIN", "LVM-Thin", True, True, True, True, 4096, "LVM"),
        Kind("ZFS", "ZFS", False, True, True, True, 8, "ZFS"),
        Kind("ZFS_THIN", "ZFS-Thin", True, True, True, True, 8, "ZFS"),
        Kind("FILE", "FILE", False, False, True, False, 4, "FILE"),
        Kind("FILE_THIN", "FILE THIN", True, True, True, False, 4, "FILE"),
        Kind("DISKLESS", "DISKLESS", False, True, False, False, 4, "DISKLESS"),
    )
}

PROVIDERS = tuple(name for name in KINDS if name != "DISKLESS")


@dataclass(frozen=True)
class Pool:
    """A storage pool to begin with: on the given nodes, or on all.

    A thin one without `zeroes` was made with -Zn: its volumes show old data wherever nobody has written, as though each
    of its chunks were as large as a volume.
    """

    name: str
    kind: str = "LVM_THIN"
    size_mib: int = 20480
    nodes: Optional[tuple[str, ...]] = None
    zeroes: bool = True


def new_uuid() -> str:
    """A random UUID as text."""
    return str(uuid.uuid4())


def version_tuple(version: str) -> tuple[int, ...]:
    """The numbers of a version; () for what is none."""
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Stored:
    """A volume or a snapshot of one in a pool; size in KiB, `thin_id` as a thin pool numbers it."""

    size: int
    content: Content
    snapshot: bool
    thin_id: int


@dataclass
class StoragePool:
    """A pool on one node; sizes in KiB."""

    name: str
    node: Node
    kind: Kind
    total: int
    props: Props = field(default_factory=dict)
    uuid: str = field(default_factory=new_uuid)
    withheld: int = 0
    zeroes: bool = True
    members: dict[tuple[str, int], Stored] = field(default_factory=dict)
    # The thin ids that were there when the meta-data of a thin pool were reserved.
    metadata_snapshot: Optional[frozenset[int]] = None
    last_thin_id: int = 0

    @property
    def diskless(self) -> bool:
        """Whether it stores nothing."""
        return self.kind.name == "DISKLESS"

    @property
    def shows_old_data(self) -> bool:
        """Whether a fresh volume shows what was there before."""
        return not (self.kind.zeroed and self.zeroes)

    def driver(self) -> str:
        """What it is on its node: a volume group, a thin pool, a directory."""
        return self.props.get("StorDriver/StorPoolName", "")

    def keep(self, key: tuple[str, int], size: int, content: Content, snapshot: bool = False) -> None:
        """Book a volume, or book it anew with another size (KiB)."""
        known = self.members.get(key)
        if known is None:
            self.last_thin_id += 1
        self.members[key] = Stored(size, content, snapshot, known.thin_id if known else self.last_thin_id)

    def reserved(self) -> int:
        """What LINSTOR counts as promised: the volumes' sizes and, as snapshots stay "pending" for it, theirs twice."""
        return sum(stored.size * (1 + stored.snapshot) for stored in self.members.values())

    def used(self) -> int:
        """What is taken: the blocks on a thin pool, all sizes on a thick one."""
        if self.kind.thin:
            return taken(stored.content for stored in self.members.values()) // 1024
        snapshots = [stored for stored in self.members.values() if stored.snapshot]
        volumes = sum(stored.size for stored in self.members.values() if not stored.snapshot)
        return volumes + self.set_aside(snapshots)

    def set_aside(self, snapshots: Sequence[Stored]) -> int:
        """What snapshots take, so that their volumes can still be overwritten: on thick LVM their size, else blocks."""
        if self.kind.family == "LVM":
            return sum(stored.size for stored in snapshots)
        return taken(stored.content for stored in snapshots) // 1024

    def free(self) -> int:
        """Free KiB."""
        return UNLIMITED if self.diskless else max(0, self.total - self.used() - self.withheld)


@dataclass
class Node:
    """A satellite and the host it runs on."""

    name: str
    address: str = "127.0.0.1"
    kind: str = "SATELLITE"
    connection: str = "ONLINE"
    host_up: bool = True
    satellite_up: bool = True
    reported: bool = True
    offline_since: int = 0
    flags: set[str] = field(default_factory=set)
    props: Props = field(default_factory=dict)
    uuid: str = field(default_factory=new_uuid)
    interface_uuid: str = field(default_factory=new_uuid)
    pools: Registry[StoragePool] = field(default_factory=Registry)
    layers: tuple[str, ...] = ("DRBD", "LUKS", "STORAGE")
    providers: tuple[str, ...] = PROVIDERS
    resource_count: int = 0

    @property
    def online(self) -> bool:
        """Whether its satellite is connected and knows everything."""
        return self.connection == "ONLINE"


@dataclass
class Filter:
    """LINSTOR's AutoSelectFilter; None is "not given"."""

    place_count: Optional[int] = None
    additional_place_count: Optional[int] = None
    node_name_list: Optional[list[str]] = None
    storage_pool_list: Optional[list[str]] = None
    storage_pool_diskless_list: Optional[list[str]] = None
    not_place_with_rsc: Optional[list[str]] = None
    not_place_with_rsc_regex: Optional[str] = None
    replicas_on_same: Optional[list[str]] = None
    replicas_on_different: Optional[list[str]] = None
    x_replicas_on_different_map: Optional[dict[str, int]] = None
    layer_stack: Optional[list[str]] = None
    provider_list: Optional[list[str]] = None
    diskless_on_remaining: Optional[bool] = None
    diskless_type: Optional[str] = None

    @classmethod
    def parse(cls, body: Optional[dict[str, Any]]) -> Filter:
        """A filter from the JSON of a request."""
        result = cls()
        for key, value in (body or {}).items():
            if hasattr(result, key) and value is not None and value != [] and value != "":
                setattr(result, key, value)
        single = (body or {}).get("storage_pool")
        if single and not result.storage_pool_list:
            result.storage_pool_list = [single]
        return result

    def merged(self, base: Filter) -> Filter:
        """This filter, field by field, with the base's value where it gives none."""
        result = Filter()
        for key in self.__dataclass_fields__:
            own = getattr(self, key)
            setattr(result, key, getattr(base, key) if own is None else own)
        return result

    def to_json(self) -> dict[str, Any]:
        """The JSON of the filter, without what is not given."""
        result: dict[str, Any] = {}
        for key in self.__dataclass_fields__:
            value = getattr(self, key)
            if value is None or value == [] or value == {}:
                continue
            if key == "storage_pool_list":
                result["storage_pool"] = value[0]
            result[key] = value
        return result


@dataclass
class VolumeGroup:
    """A volume of everything spawned from a group."""

    number: int
    props: Props = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    uuid: str = field(default_factory=new_uuid)


@dataclass
class ResourceGroup:
    """A resource group."""

    name: str
    description: str = ""
    filter: Filter = field(default_factory=lambda: Filter(place_count=2))
    props: Props = field(default_factory=dict)
    volume_groups: dict[int, VolumeGroup] = field(default_factory=dict)
    peer_slots: Optional[int] = None
    uuid: str = field(default_factory=new_uuid)


@dataclass
class VolumeDefinition:
    """size in KiB, as asked for."""

    number: int
    size: int
    props: Props = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    minor: Optional[int] = None
    uuid: str = field(default_factory=new_uuid)


@dataclass
class Resource:
    """A replica or a diskless client of a definition on one node."""

    definition: ResourceDefinition
    node: Node
    pool: StoragePool
    layers: list[str]
    flags: set[str] = field(default_factory=set)
    props: Props = field(default_factory=dict)
    node_id: int = 0
    uuid: str = field(default_factory=new_uuid)
    created: int = field(default_factory=now_ms)
    volume_uuids: dict[int, str] = field(default_factory=dict)
    volume_flags: dict[int, set[str]] = field(default_factory=dict)
    contents: dict[int, Content] = field(default_factory=dict)
    synced_at: float = 0.0
    disk_state: Optional[str] = None
    deployed: bool = False
    toggled: bool = False
    restored_from: Optional[Snapshot] = None
    first_sizes: dict[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the definition."""
        return self.definition.name

    @property
    def diskless(self) -> bool:
        """Whether it stores nothing."""
        return "DISKLESS" in self.flags

    @property
    def tie_breaker(self) -> bool:
        """Whether it is there only to break a tie of votes."""
        return "TIE_BREAKER" in self.flags

    @property
    def deleting(self) -> bool:
        """Whether it is marked to be deleted."""
        return bool(self.flags & {"DELETE", "DRBD_DELETE"})

    @property
    def inactive(self) -> bool:
        """Whether its device was taken down."""
        return "INACTIVE" in self.flags

    @property
    def uses_drbd(self) -> bool:
        """Whether DRBD is in its layers."""
        return "DRBD" in self.layers

    def state(self) -> str:
        """DRBD's disk state, whatever the node's connection."""
        if self.diskless:
            return "Diskless"
        if self.disk_state:
            return self.disk_state
        return "UpToDate" if time.monotonic() >= self.synced_at else "Inconsistent"

    def content(self, number: int) -> Optional[Content]:
        """Where the bytes are: all replicas below one DRBD volume share them."""
        return (self.definition.contents if self.uses_drbd else self.contents).get(number)


@dataclass
class SnapshotReplica:
    """The snapshot on one node."""

    node: Node
    pool: StoragePool
    layers: list[str]
    props: Props = field(default_factory=dict)
    uuid: str = field(default_factory=new_uuid)
    volume_uuids: dict[int, str] = field(default_factory=dict)
    node_id: int = 0


@dataclass
class Snapshot:
    """LINSTOR's snapshot definition with its replicas; bytes by (node or "" for DRBD, volume number)."""

    name: str
    definition: ResourceDefinition
    flags: set[str] = field(default_factory=set)
    props: Props = field(default_factory=dict)
    definition_props: Props = field(default_factory=dict)
    volumes: dict[int, VolumeDefinition] = field(default_factory=dict)
    replicas: Registry[SnapshotReplica] = field(default_factory=Registry)
    contents: dict[tuple[str, int], Content] = field(default_factory=dict)
    uuid: str = field(default_factory=new_uuid)
    created: int = field(default_factory=now_ms)

    def content(self, node: str, number: int) -> Optional[Content]:
        """The bytes of a volume on a node."""
        return self.contents.get(("", number)) or self.contents.get((node.upper(), number))


@dataclass
class ResourceDefinition:
    """A resource definition; `layers` stays empty until given or deployed."""

    name: str
    group: ResourceGroup
    external_name: str = ""
    props: Props = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    layers: list[str] = field(default_factory=list)
    peer_slots: int = 7
    port: int = -1
    tcp_port: Optional[int] = None
    secret: str = ""
    uuid: str = field(default_factory=new_uuid)
    volumes: dict[int, VolumeDefinition] = field(default_factory=dict)
    resources: Registry[Resource] = field(default_factory=Registry)
    snapshots: Registry[Snapshot] = field(default_factory=Registry)
    connections: dict[frozenset[str], Props] = field(default_factory=dict)
    standing_alone: set[str] = field(default_factory=set)
    connection_uuids: dict[frozenset[str], str] = field(default_factory=dict)
    contents: dict[int, Content] = field(default_factory=dict)
    cloned_from: str = ""
    clone_status: str = ""
    clone_done_at: float = 0.0
    stamp: int = 0
    restored: bool = False

    @property
    def uses_drbd(self) -> bool:
        """Whether DRBD is in its layers."""
        return any(resource.uses_drbd for resource in self.resources) if len(self.resources) else "DRBD" in self.layers

    def diskful(self) -> list[Resource]:
        """The replicas."""
        return [resource for resource in self.resources if not resource.diskless]

    def size(self) -> int:
        """Sum of the volumes' sizes in KiB."""
        return sum(volume.size for volume in self.volumes.values())


@dataclass
class KeyValues:
    """An instance of the key-value store."""

    name: str
    props: Props = field(default_factory=dict)


@dataclass
class Passphrase:
    """The master passphrase; None is "not set"."""

    secret: Optional[str] = None
    unlocked: bool = False


@dataclass
class Failure:
    """A command that will fail on a node: one of Sandbox.OPERATIONS; `remaining` below 0 is "always"."""

    node: str
    operation: str
    remaining: int = 1


class Cluster:
    """Everything the controller knows, behind one lock."""

    def __init__(self, root: Path, version: str = "1.27.0") -> None:
        self.root = root
        self.lock = threading.Condition(threading.RLock())
        # Whoever has it has suspended all guests' writes; nobody who has it waits for anything else.
        self.suspended_io = threading.Lock()
        self.version = version
        self.nodes: Registry[Node] = Registry()
        self.groups: Registry[ResourceGroup] = Registry()
        self.definitions: Registry[ResourceDefinition] = Registry()
        self.key_values: Registry[KeyValues] = Registry()
        self.pool_props: dict[str, Props] = {}
        self.passphrase = Passphrase()
        self.props: Props = dict(CONTROLLER_PROPS)
        self.store = Store(root / "volumes")
        self.failures: list[Failure] = []
        # Addresses at which no satellite answers; what pools can be made of on the hosts, with (KiB in all, KiB free).
        self.unreachable: set[str] = set()
        self.storages: dict[str, tuple[int, int]] = {}
        self.sync_seconds = 0.0
        self.clone_seconds = 0.0
        self.epoch = 0
        self._agenda: list[tuple[float, Callable[[], None]]] = []
        # Which of equally good nodes are taken first: for replicas (with the pool, or ""), for tie-breakers.
        self.preferred: tuple[tuple[str, str], ...] = ()
        self.tie_breakers: tuple[str, ...] = ()
        self.groups[DEFAULT_GROUP] = ResourceGroup(DEFAULT_GROUP)

    def at_least(self, version: str) -> bool:
        """Whether the REST version is this one or newer."""
        return version_tuple(self.version) >= version_tuple(version)

    def resources(self) -> Iterator[Resource]:
        """All resources of all definitions."""
        for definition in self.definitions:
            yield from definition.resources

    def free_minor(self) -> int:
        """The lowest free DRBD minor from 1000."""
        taken = {volume.minor for definition in self.definitions for volume in definition.volumes.values()}
        minor = 1000
        while minor in taken:
            minor += 1
        return minor

    def free_port(self) -> int:
        """The lowest free TCP port from 7000."""
        taken = {definition.tcp_port for definition in self.definitions}
        port = 7000
        while port in taken:
            port += 1
        return port

    def touch(self, names: Optional[Iterable[str]] = None) -> None:
        """Something has changed: about these definitions, or about anything."""
        if names is None:
            self.epoch += 1
        for definition in filter(None, map(self.definitions.get, names or ())):
            definition.stamp += 1

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Something that happens by itself after so many seconds."""
        self._agenda.append((time.monotonic() + seconds, action))

    def pass_time(self) -> None:
        """Let happen what is due; every request begins with it."""
        now = time.monotonic()
        due = sorted((item for item in self._agenda if item[0] <= now), key=lambda item: item[0])
        self._agenda = [item for item in self._agenda if item[0] > now]
        for _, action in due:
            action()
        if due:
            self.touch()

    def preference(self, pool: StoragePool) -> tuple[bool, str]:
        """A key that sorts equally good pools."""
        preferred = any(node == pool.node.name and name in ("", pool.name) for node, name in self.preferred)
        return (not preferred, pool.node.name.upper())

    def fails(self, node: str, operation: str) -> bool:
        """Whether a command on a node is to fail now; counts the failure down."""
        for failure in self.failures:
            if failure.operation == operation and failure.node.upper() == node.upper() and failure.remaining:
                failure.remaining -= 1
                return True
        return False

    def prop(self, containers: Iterable[Props], key: str) -> Optional[str]:
        """The value of a property by priority, the controller's last."""
        for props in containers:
            if key in props:
                return props[key]
        return self.props.get(key)

    def add_node(
        self, name: str, address: str = "", online: bool = True, providers: tuple[str, ...] = PROVIDERS
    ) -> Node:
        """A new node with its pool for diskless resources."""
        node = Node(name, address or f"127.0.1.{len(self.nodes) + 1}", providers=providers)
        node.props = {"CurStltConnName": "default"}
        self.connect(node, "ONLINE" if online else "OFFLINE")
        self.nodes[name] = node
        node.pools[DISKLESS_POOL] = StoragePool(DISKLESS_POOL, node, KINDS["DISKLESS"], UNLIMITED)
        return node

    @staticmethod
    def connect(node: Node, connection: str) -> None:
        """A node's connection becomes OFFLINE, CONNECTED or ONLINE; with the first it says its name."""
        node.connection = connection
        node.offline_since = now_ms() if connection == "OFFLINE" else 0
        node.reported = node.reported or connection == "ONLINE"
        if connection != "OFFLINE":
            node.props["NodeUname"] = node.name

    def add_pool(self, node: Node, name: str, kind: str, total: int, driver: str = "") -> StoragePool:
        """A pool on a node; total in KiB."""
        known = next(
            (pool.name for other in self.nodes for pool in other.pools if pool.name.upper() == name.upper()), name
        )
        pool = StoragePool(known, node, KINDS[kind], total)
        pool.props = pool_props(pool, driver)
        node.pools[name] = pool
        self.pool_props.setdefault(known, {})
        return pool


def pool_props(pool: StoragePool, driver: str) -> Props:
    """The properties that the satellite adds to a pool."""
    defaults = {
        "LVM": f"vg_{pool.name}",
        "LVM_THIN": f"vg_{pool.name}/{pool.name}",
        "ZFS": f"zp_{pool.name}",
        "ZFS_THIN": f"zp_{pool.name}",
    }
    props = {"StorDriver/StorPoolName": driver or defaults.get(pool.kind.name, f"/var/lib/linstor.d/{pool.name}")}
    granularity = 1 if pool.kind.family == "FILE" else pool.kind.granularity
    props["StorDriver/internal/AllocationGranularity"] = str(granularity)
    if pool.kind.name == "LVM_THIN":
        props["StorDriver/internal/lvmthin/thinPoolGranularity"] = "64"
        props["StorDriver/internal/lvmthin/thinPoolMetadataPercent"] = "10.50"
    if pool.kind.family != "FILE":
        props["StorDriver/internal/minIoSize"] = "512"
    return props


CONTROLLER_PROPS: Props = {
    "Cluster/LocalID": "ee05fd82-2b2d-4fb6-9a48-52103bed64bf",
    "DrbdOptions/AutoEvictAllowEviction": "True",
    "DrbdOptions/Resource/on-no-quorum": "io-error",
    "DrbdOptions/auto-add-quorum-tiebreaker": "True",
    "DrbdOptions/auto-diskful-allow-cleanup": "True",
    "DrbdOptions/auto-resync-after-disable": "true",
    "DrbdOptions/auto-verify-algo-allowed-list": "crct10dif;crc32c;sha384;sha512;sha256;sha1;md5;windrbd",
    "NetCom/PlainConnector/BindAddress": "",
    "NetCom/PlainConnector/Enabled": "true",
    "NetCom/PlainConnector/Port": "3376",
    "NetCom/PlainConnector/Type": "Plain",
    **{
        f"NetCom/{name}/{key}": value
        for name, port, address in (("DebugSslConnector", "3373", "::0"), ("SslConnector", "3377", ""))
        for key, value in {
            "BindAddress": address,
            "Enabled": "true",
            "KeyPasswd": "linstor",
            "KeyStore": "ssl/keystore.jks",
            "KeyStorePasswd": "linstor",
            "Port": port,
            "SslProtocol": "TLSv1.2",
            "TrustStore": "ssl/certificates.jks",
            "TrustStorePasswd": "linstor",
            "Type": "SSL",
        }.items()
    },
    "defaultDebugSslConnector": "DebugSslConnector",
    "defaultPlainConSvc": "PlainConnector",
    "defaultSslConSvc": "",
}
