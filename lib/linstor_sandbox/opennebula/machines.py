"""Virtual machines: states, disks, history, and how oned shows one."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field
from typing import Optional

from linstor_sandbox.opennebula import markup
from linstor_sandbox.opennebula.backups import Backups
from linstor_sandbox.opennebula.datastores import Datastore, targets
from linstor_sandbox.opennebula.errors import Refused
from linstor_sandbox.opennebula.images import Image
from linstor_sandbox.opennebula.snapshots import Snapshots
from linstor_sandbox.opennebula.templates import Value, Vector


class VmState(enum.IntEnum):
    """STATE of a VM, as oned numbers it."""

    INIT = 0
    PENDING = 1
    HOLD = 2
    ACTIVE = 3
    STOPPED = 4
    SUSPENDED = 5
    DONE = 6
    POWEROFF = 8
    UNDEPLOYED = 9


class LcmState(enum.IntEnum):
    """LCM_STATE of a VM, as oned numbers it; only the states that the stand-in passes through."""

    LCM_INIT = 0
    PROLOG = 1
    BOOT = 2
    RUNNING = 3
    MIGRATE = 4
    SAVE_STOP = 5
    SAVE_SUSPEND = 6
    SAVE_MIGRATE = 7
    PROLOG_MIGRATE = 8
    PROLOG_RESUME = 9
    EPILOG_STOP = 10
    EPILOG = 11
    SHUTDOWN = 12
    CLEANUP_RESUBMIT = 15
    UNKNOWN = 16
    HOTPLUG = 17
    BOOT_POWEROFF = 20
    BOOT_SUSPENDED = 21
    BOOT_STOPPED = 22
    CLEANUP_DELETE = 23
    HOTPLUG_SAVEAS = 26
    HOTPLUG_SAVEAS_POWEROFF = 27
    HOTPLUG_SAVEAS_SUSPENDED = 28
    SHUTDOWN_UNDEPLOY = 29
    EPILOG_UNDEPLOY = 30
    PROLOG_UNDEPLOY = 31
    BOOT_UNDEPLOY = 32
    HOTPLUG_PROLOG_POWEROFF = 33
    HOTPLUG_EPILOG_POWEROFF = 34
    BOOT_MIGRATE = 35
    BOOT_FAILURE = 36
    BOOT_MIGRATE_FAILURE = 37
    PROLOG_MIGRATE_FAILURE = 38
    PROLOG_FAILURE = 39
    EPILOG_FAILURE = 40
    EPILOG_STOP_FAILURE = 41
    EPILOG_UNDEPLOY_FAILURE = 42
    PROLOG_MIGRATE_POWEROFF = 43
    PROLOG_MIGRATE_POWEROFF_FAILURE = 44
    PROLOG_MIGRATE_SUSPEND = 45
    PROLOG_MIGRATE_SUSPEND_FAILURE = 46
    BOOT_STOPPED_FAILURE = 48
    PROLOG_RESUME_FAILURE = 49
    PROLOG_UNDEPLOY_FAILURE = 50
    DISK_SNAPSHOT_POWEROFF = 51
    DISK_SNAPSHOT_REVERT_POWEROFF = 52
    DISK_SNAPSHOT_DELETE_POWEROFF = 53
    DISK_SNAPSHOT_SUSPENDED = 54
    DISK_SNAPSHOT_REVERT_SUSPENDED = 55
    DISK_SNAPSHOT_DELETE_SUSPENDED = 56
    DISK_SNAPSHOT = 57
    DISK_SNAPSHOT_DELETE = 59
    PROLOG_MIGRATE_UNKNOWN = 60
    PROLOG_MIGRATE_UNKNOWN_FAILURE = 61
    DISK_RESIZE = 62
    DISK_RESIZE_POWEROFF = 63
    DISK_RESIZE_UNDEPLOYED = 64
    HOTPLUG_SAVEAS_UNDEPLOYED = 67
    HOTPLUG_SAVEAS_STOPPED = 68
    BACKUP = 69
    BACKUP_POWEROFF = 70
    RESTORE = 71


# VM_TEMPLATE attributes that describe the VM and not its disks.
_PLAIN = ("CPU", "MEMORY", "VCPU")


@dataclass
class Disk:
    """One DISK of a VM; `attributes` are what oned shows."""

    attributes: Vector

    @property
    def disk_id(self) -> int:
        """The N of disk.N."""
        return int(self.attributes["DISK_ID"])

    @property
    def volatile(self) -> bool:
        """It has no image: its volume lives and dies with the VM."""
        return "IMAGE_ID" not in self.attributes

    @property
    def type(self) -> str:
        """BLOCK, FILE, CDROM, fs or swap, in capitals."""
        return self.attributes["TYPE"].upper()

    @property
    def size(self) -> int:
        """Size in MiB."""
        return int(self.attributes["SIZE"])

    def yes(self, name: str) -> bool:
        """An attribute is YES."""
        return self.attributes.get(name, "").upper() == "YES"


@dataclass
class History:
    """One record of where a VM was; times in seconds since the epoch, 0 = not yet."""

    sequence: int
    host: str
    host_id: int
    datastore: Datastore
    started: int
    ended: int = 0
    # The driver that the datastore had when the record was opened: whatever it has by now, oned goes by this.
    tm_mad: str = ""

    def __post_init__(self) -> None:
        self.tm_mad = self.tm_mad or self.datastore.tm_mad

    @property
    def datastore_id(self) -> int:
        """The system datastore's id."""
        return self.datastore.identifier

    def xml(self, vm_id: int) -> str:
        """The HISTORY element."""
        times = {"PSTIME": self.started, "PETIME": self.ended, "RSTIME": self.started, "RETIME": self.ended}
        return markup.element(
            "HISTORY",
            markup.text("OID", vm_id),
            markup.text("SEQ", self.sequence),
            markup.text("HOSTNAME", self.host),
            markup.text("HID", self.host_id),
            "<CID>0</CID>",
            markup.text("STIME", self.started),
            markup.text("ETIME", self.ended),
            markup.cdata("VM_MAD", "kvm"),
            markup.cdata("TM_MAD", self.tm_mad),
            markup.text("DS_ID", self.datastore_id),
            "<PLAN_ID>-2</PLAN_ID><ACTION_ID>-1</ACTION_ID>",
            *(markup.text(name, value) for name, value in times.items()),
            "<ESTIME>0</ESTIME><EETIME>0</EETIME><ACTION>0</ACTION><UID>0</UID><GID>0</GID><REQUEST_ID>0</REQUEST_ID>",
        )


@dataclass
class VirtualMachine:
    """A VM as oned keeps it; `is_saved` while its memory waits to be restored."""

    identifier: int
    name: str
    deploy_id: str
    attributes: dict[str, str]
    disks: list[Disk] = field(default_factory=list)
    context: Optional[Vector] = None
    state: VmState = VmState.PENDING
    lcm_state: LcmState = LcmState.LCM_INIT
    history: list[History] = field(default_factory=list)
    created: int = 0
    ended: int = 0
    snapshots: dict[int, Snapshots] = field(default_factory=dict)
    is_saved: bool = False
    backups: Backups = field(default_factory=Backups)
    # The driver of the system datastore that it was first deployed in: its disks keep to that.
    tm_mad_system: str = ""

    def become(self, state: VmState, lcm_state: LcmState = LcmState.LCM_INIT) -> None:
        """Take a new state; a VM that is DONE has ended."""
        self.state, self.lcm_state = state, lcm_state
        if state == VmState.DONE:
            self.ended = int(time.time())
            self.current.ended = self.current.ended or self.ended

    @property
    def current(self) -> History:
        """Where it is, or where it is going."""
        return self.history[-1]

    @property
    def previous(self) -> History:
        """Where it was before the move that is going on."""
        return self.history[-2]

    @property
    def host(self) -> str:
        """The host's name."""
        return self.current.host

    @property
    def directory(self) -> str:
        """Its directory in the system datastore, with oned's double slash."""
        return directory(self.identifier, self.current)

    def place(self, host: str, host_id: int, datastore: Datastore, tm_mad: str = "") -> None:
        """Open a new history record; the one before ends now. `tm_mad` is that of a record that is copied."""
        now = int(time.time())
        if self.history:
            self.current.ended = now
        self.history.append(History(len(self.history), host, host_id, datastore, now, tm_mad=tm_mad))

    def disk(self, disk_id: int) -> Disk:
        """The disk of an id."""
        for disk in self.disks:
            if disk.disk_id == disk_id:
                return disk
        raise Refused(f"VM {self.identifier} has no disk {disk_id}")

    def backed_up_disks(self) -> list[int]:
        """The ids of the disks that a backup has: no CDROM, no swap, volatile ones only where they are asked for."""
        left_out = {"CDROM", "SWAP"} | (set() if self.backups.includes_volatile else {"FS"})
        return [disk.disk_id for disk in self.disks if disk.type not in left_out]

    def snapshots_of(self, disk: Disk) -> Snapshots:
        """The snapshots of a disk."""
        return self.snapshots.setdefault(disk.disk_id, Snapshots())

    def forget_own_disks(self) -> None:
        """Its own disks, and its memory, are gone: they begin anew, as large as they were at first."""
        self.is_saved = False
        for disk in self.disks:
            if not disk.yes("SAVE"):
                self.snapshots.pop(disk.disk_id, None)
                disk.attributes["SIZE"] = disk.attributes.get("ORIGINAL_SIZE", disk.attributes["SIZE"])

    def next_disk_id(self) -> int:
        """The lowest id above all in use, the context's included."""
        used = [disk.disk_id for disk in self.disks]
        used += [int(self.context["DISK_ID"])] if self.context else []
        return max(used, default=-1) + 1

    def xml(self, only_last_record: bool = False) -> str:
        """The VM element; messages to oned's drivers have only the last record of the history."""
        records = self.history[-1:] if only_last_record else self.history
        return markup.element(
            "VM",
            markup.owner(self.name, self.identifier),
            "<LAST_POLL>0</LAST_POLL>",
            markup.text("STATE", int(self.state)),
            markup.text("LCM_STATE", int(self.lcm_state)),
            markup.text("PREV_STATE", int(self.state)),
            markup.text("PREV_LCM_STATE", int(self.lcm_state)),
            "<RESCHED>0</RESCHED>",
            markup.text("STIME", self.created),
            markup.text("ETIME", self.ended),
            markup.text("DEPLOY_ID", self.deploy_id),
            "<MONITORING></MONITORING><SCHED_ACTIONS></SCHED_ACTIONS>",
            markup.template("TEMPLATE", self._template()),
            "<USER_TEMPLATE></USER_TEMPLATE>",
            markup.element("HISTORY_RECORDS", *(record.xml(self.identifier) for record in records)),
            *(known.xml(disk_id) for disk_id, known in sorted(self.snapshots.items()) if known.next_id),
            self.backups.xml(),
        )

    def _template(self) -> list[tuple[str, Value]]:
        tm_mad = self.current.tm_mad if self.history else ""
        entries: list[tuple[str, Value]] = [
            ("AUTOMATIC_DS_REQUIREMENTS", f'("CLUSTERS/ID" @> 0) & (TM_MAD = "{tm_mad}")'),
            ("AUTOMATIC_NIC_REQUIREMENTS", '("CLUSTERS/ID" @> 0)'),
            ("AUTOMATIC_REQUIREMENTS", "(CLUSTER_ID = 0) & !(PIN_POLICY = PINNED)"),
            ("OS", {"MACHINE": "q35", "UUID": self.deploy_id}),
            ("TM_MAD_SYSTEM", tm_mad),
            ("VMID", str(self.identifier)),
        ]
        entries += [(name, self.attributes[name]) for name in _PLAIN if name in self.attributes]
        entries += [("DISK", disk.attributes) for disk in self.disks]
        return entries + ([("CONTEXT", self.context)] if self.context else [])


def directory(vm_id: int, record: History) -> str:
    """A VM's directory at one point of its history."""
    return f"{record.datastore.base_path}/{vm_id}"


def image_disk(wanted: Vector, image: Image, datastore: Datastore) -> Vector:
    """The attributes that oned gives to a disk of an image."""
    if image.persistent and "SIZE" in wanted:
        raise Refused(f"SIZE attribute is not supported for persistent image [{image.identifier}].")
    linked = image.persistent or image.immutable
    attributes = {
        **wanted,
        "CLONE": "NO" if linked else "YES",
        "DEV_PREFIX": wanted.get("DEV_PREFIX") or image.attributes.get("DEV_PREFIX", "sd"),
        "DISK_SNAPSHOT_TOTAL_SIZE": "0",
        "IMAGE": image.name,
        "IMAGE_ID": str(image.identifier),
        "IMAGE_STATE": str(int(image.state)),
        "ORIGINAL_SIZE": str(image.size),
        "READONLY": "YES" if image.immutable else "NO",
        "SAVE": "YES" if image.persistent and not image.immutable else "NO",
        "SIZE": wanted.get("SIZE") or str(image.size),
        "SOURCE": image.source,
        "TYPE": "CDROM" if image.type == "CDROM" else image.disk_type,
        **({"DRIVER": image.format, "FORMAT": image.format} if image.format else {}),
        **({"PERSISTENT": "YES"} if image.persistent and not image.immutable else {}),
        **({"SHAREABLE": "YES"} if image.shareable else {}),
    }
    targets = {name: datastore.attributes[name] for name in ("CLONE_TARGET", "LN_TARGET")}
    return {**attributes, **targets, **_from_datastore(datastore)}


def adapt(disk: Disk, datastore: Datastore, tm_mad_system: str) -> None:
    """Let an image's disk be of the mode that its datastore has for a system datastore of another driver; Refused."""
    if tm_mad_system and tm_mad_system.upper() != datastore.tm_mad.upper():
        disk.attributes.update(targets(datastore, tm_mad_system), TM_MAD_SYSTEM=tm_mad_system)


def volatile_disk(wanted: Vector, datastore: Datastore, forced: str = "") -> Vector:
    """The attributes that oned gives to a volatile disk; `datastore` is the system datastore, `forced` a FORMAT."""
    if not wanted.get("SIZE", "").isdigit():
        raise Refused(f"a volatile disk needs a SIZE in MiB, not {wanted.get('SIZE', '')!r}")
    form = forced or wanted.get("FORMAT", "raw")
    prefix = wanted.get("DEV_PREFIX", "sd")
    return {**wanted, "DEV_PREFIX": prefix, "DRIVER": form, "FORMAT": form, **_from_datastore(datastore)}


def _from_datastore(datastore: Datastore) -> Vector:
    names = [name for name in ("ALLOW_ORPHANS", "PERSISTENT_SNAPSHOTS") if name in datastore.attributes]
    return {
        "CLUSTER_ID": "0",
        "DATASTORE": datastore.name,
        "DATASTORE_ID": str(datastore.identifier),
        "DISK_TYPE": datastore.disk_type,
        "TM_MAD": datastore.tm_mad,
        **{name: datastore.attributes[name] for name in names},
    }


def assign_targets(vm: VirtualMachine) -> None:
    """Give every disk without a TARGET the next free device name of its prefix; the context comes first."""
    taken = {disk.attributes["TARGET"] for disk in vm.disks if "TARGET" in disk.attributes}
    entries = ([vm.context] if vm.context else []) + [disk.attributes for disk in vm.disks]
    for attributes in entries:
        if "TARGET" not in attributes:
            prefix = attributes.get("DEV_PREFIX", "sd")
            attributes["TARGET"] = next(
                prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz" if prefix + letter not in taken
            )
        taken.add(attributes["TARGET"])
