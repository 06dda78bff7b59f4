"""Faults that an installation can have, each planted and taken back: what `check` must name, and nothing else."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from linstor_sandbox import Sandbox
from linstor_sandbox.model import KINDS
from linstor_sandbox.opennebula import Cloud, LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.machines import Disk, image_disk
from linstor_sandbox.tls import Authority, serving
from linstor_un.cli.installation import mixed_modes
from linstor_un.cluster.gateway import Gateway
from linstor_un.settings import Settings
from tests.linstor_un.cli.trees import RELEASES, Tree
from tests.linstor_un.cluster.tls import proxy


class Place(NamedTuple):
    """A healthy front-end with its cluster; `programs` is the folder of all that its PATH has."""

    tree: Tree
    sandbox: Sandbox
    cloud: Cloud
    system: Datastore
    images: Datastore
    programs: Path
    folder: Path


Plant = Callable[[Place], AbstractContextManager[object]]


class Fault(NamedTuple):
    """What is planted, by the name that `check` must give it and a part of what it says."""

    code: str
    says: str
    plant: Plant

    @property
    def title(self) -> str:
        """Return the name of the test."""
        return f"{self.code}: {self.says}"


# --- How to plant ---------------------------------------------------------------------------------------------------


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Put a file back as it was, bytes and rights; what was not there goes."""
    before = (path.read_bytes(), path.stat().st_mode) if path.exists() else None
    try:
        yield
    finally:
        if before:
            path.write_bytes(before[0])
            path.chmod(stat.S_IMODE(before[1]))
        else:
            path.unlink()


@contextmanager
def replaced(path: Path, old: str, new: str) -> Iterator[None]:
    text = path.read_text()
    assert old in text, f"{path} has no {old}"
    with kept(path):
        path.write_text(text.replace(old, new))
        yield


@contextmanager
def appended(path: Path, text: str) -> Iterator[None]:
    with kept(path):
        path.write_text(path.read_text() + text)
        yield


@contextmanager
def written(path: Path, text: str, mode: int = 0o755) -> Iterator[None]:
    with kept(path):
        path.write_text(text)
        path.chmod(mode)
        yield


@contextmanager
def removed(path: Path, aside_name: str = "") -> Iterator[None]:
    aside = path.with_name(aside_name or f"{path.name}.aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def rights(path: Path, mode: int) -> Iterator[None]:
    before = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


@contextmanager
def entries(values: dict[str, str], changes: Mapping[str, Optional[str]]) -> Iterator[None]:
    """Let a dictionary have other entries; None is none."""
    before = dict(values)
    for name, value in changes.items():
        values.pop(name, None)
        values.update({} if value is None else {name: value})
    try:
        yield
    finally:
        values.clear()
        values.update(before)


@contextmanager
def attribute(owner: object, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def script(old: str, new: str) -> Plant:
    return lambda place: replaced(place.tree.remotes / "tm/linstor_un/mv", old, new)


def shebang(place: Place, program: str) -> AbstractContextManager[object]:
    """Let one script name another interpreter, which says of itself what `program` prints."""
    stack = ExitStack()
    python = place.folder / "python3"
    stack.enter_context(written(python, f"#!/bin/sh\n{program}\n"))
    path = place.tree.remotes / "tm/linstor_un/mv"
    stack.enter_context(replaced(path, path.read_text().split("\n")[0], f"#!{python}"))
    return stack


def interpreter(version: str = "[3, 11, 2]", tag: str = "", **packages: str) -> Plant:
    import json
    import sys

    found = {"python-linstor": "1.29.1", "lxml": "6.0", "click": "8.1", **packages}
    answer = (
        f'{{"version": {version}, "tag": "{tag or sys.implementation.cache_tag}", "packages": {json.dumps(found)}}}'
    )
    return lambda place: shebang(place, f"echo '{answer}'")


def record(old: str, new: str) -> Plant:
    return lambda place: replaced(place.tree.var / "linstor_un/installed.json", old, new)


def conf(text: str) -> Plant:
    """Add to linstor_un.conf; of equal settings the last holds. @FOLDER@ is the place's."""
    return lambda place: appended(place.tree.configuration, text.replace("@FOLDER@", str(place.folder)))


def oned(old: str, new: str) -> Plant:
    return lambda place: replaced(place.tree.oned_conf, old, new)


def system(**changes: Optional[str]) -> Plant:
    return lambda place: entries(place.system.attributes, changes)


def images(**changes: Optional[str]) -> Plant:
    return lambda place: entries(place.images.attributes, changes)


def controller(**changes: str) -> Plant:
    names = {
        "policy": "DrbdOptions/Resource/on-no-quorum",
        "quorum": "DrbdOptions/Resource/quorum",
        "tie_breaker": "DrbdOptions/auto-add-quorum-tiebreaker",
        "promote": "DrbdOptions/Resource/auto-promote",
        "two_primaries": "DrbdOptions/Net/allow-two-primaries",
    }
    properties = {names[name]: value for name, value in changes.items()}
    return lambda place: entries(place.sandbox.cluster.props, properties)


def node(name: str, value: object) -> Plant:
    return lambda place: attribute(place.sandbox.cluster.nodes["node2"], name, value)


@contextmanager
def host_named(place: Place, name: str, address: str = "127.0.0.1") -> Iterator[None]:
    with attribute(place.cloud, "hosts", [name]), node("address", address)(place):
        yield


def tool(name: str, answer: str) -> Plant:
    """Put a program before node2's own."""
    return lambda place: written(place.sandbox.host("node2") / "steps" / name, f"#!/bin/sh\n{answer}\n")


@contextmanager
def secure(place: Place, kind: str = "good", days: int = 0, trusted: bool = True, more: str = "") -> Iterator[None]:
    """Let the controller be reached through TLS alone."""
    authority = Authority(place.folder, f"authority-{time.monotonic_ns()}")
    files = authority.sign("soon", "IP:127.0.0.1", days) if days else authority.of_kind(kind)
    with proxy(place.sandbox, serving(files)) as listening:
        text = f'LS_CONTROLLERS="linstor+ssl://127.0.0.1:{listening.port}"\n'
        text += f'LS_CAFILE="{authority.certificate}"\n' if trusted else ""
        with conf(text + more)(place):
            yield


@contextmanager
def secret_in_template(place: Place) -> Iterator[None]:
    with secure(place), images(LS_TOKEN="a-token")(place):
        yield


@contextmanager
def offline(place: Place) -> Iterator[None]:
    place.sandbox.set_node("node2", False, satellite_only=True)
    try:
        yield
    finally:
        place.sandbox.set_node("node2", True)


@contextmanager
def failing(place: Place) -> Iterator[None]:
    place.sandbox.faults.fail("GET /v1/nodes", message="database is locked", times=-1)
    try:
        yield
    finally:
        place.sandbox.faults.clear()


@contextmanager
def unreachable(place: Place) -> Iterator[None]:
    place.sandbox.refuse_ssh("node2")
    try:
        yield
    finally:
        place.sandbox.refuse_ssh("node2", False)


@contextmanager
def group(place: Place, **properties: str) -> Iterator[None]:
    """Let the image datastore have a resource group of the operator's."""
    gateway = Gateway(Settings(controllers=(place.sandbox.uri,)))
    chosen = {"place_count": 2, "storage_pool_list": ["data"]}
    gateway.create_resource_group({"name": "mine", "select_filter": chosen, "props": properties})
    gateway.close()
    try:
        with images(RESOURCE_GROUP="mine", STORAGE_POOL=None, AUTO_PLACE=None)(place):
            yield
    finally:
        place.sandbox.cluster.groups.pop("mine")


@contextmanager
def weak_group(place: Place) -> Iterator[None]:
    with group(place):
        place.sandbox.cluster.groups["mine"].props["DrbdOptions/Resource/on-no-quorum"] = "io-error"
        yield


@contextmanager
def full(place: Place) -> Iterator[None]:
    place.sandbox.fill_pool("node2", "data", 1024)
    try:
        yield
    finally:
        place.sandbox.cluster.nodes["node2"].pools["data"].withheld = 0


@contextmanager
def dangling(place: Place) -> Iterator[None]:
    """A device of which nobody can open what it leads to."""
    device = place.sandbox.host("node2") / "dev/drbd9999"
    device.symlink_to("nowhere")
    try:
        yield
    finally:
        device.unlink()


@contextmanager
def no_device_and_no_right(place: Place) -> Iterator[None]:
    """No volume on the host, and a user who is not in the group of devices."""
    answers = f"case $1 in -u) echo {os.getuid() or 1000} ;; -un) echo oneadmin ;; -nG) echo oneadmin kvm ;; esac"
    with removed(place.sandbox.host("node2") / "dev/drbd1000", "aside"), tool("id", answers)(place):
        yield


@contextmanager
def increments(place: Place, node: str, *missing: str, refused: str = "", compares: bool = False) -> Iterator[None]:
    """A VM is backed up by increments, and a node lacks tools or a right for them."""
    vm = VirtualMachine(0, "vm-0", "one-0", {"MEMORY": "128"})
    vm.place("node2", 0, place.system)
    vm.become(VmState.ACTIVE, LcmState.RUNNING)
    vm.backups.config["MODE"] = "INCREMENT"
    top = place.sandbox.host(node)
    with ExitStack() as stack:
        stack.enter_context(attribute(place.cloud, "machines", [vm]))
        stack.enter_context(system(BACKUP_COMPARE="yes" if compares else None)(place))
        for name in missing:
            stack.enter_context(kept(top / "bin" / name))
            place.sandbox.remove_tool(node, name)
        stack.enter_context(written(top / "etc/sudo-refused", refused))
        yield


@contextmanager
def of_zfs(place: Place, *missing: str, refused: str = "") -> Iterator[None]:
    """The same, where the pool of node2 is of ZFS."""
    pool = place.sandbox.cluster.nodes["node2"].pools["data"]
    with attribute(pool, "kind", KINDS["ZFS_THIN"]), increments(place, "node2", *missing, refused=refused):
        yield


@contextmanager
def mixed(
    place: Place,
    values: Optional[Mapping[str, str]] = None,
    is_known: bool = True,
    is_copied: bool = True,
    more: str = "",
) -> Iterator[None]:
    """VMs may be in datastores of ssh: `values` are other ones, or `more` is in oned.conf besides."""
    before = place.tree.oned_conf.read_text()
    text = mixed_modes.edited(before, ["ssh"]) + more
    for key, value in (values or {}).items():
        text = re.sub(rf'({key} = ")\w+"', rf'\g<1>{value}"', text)
    with ExitStack() as stack:
        stack.enter_context(written(place.tree.oned_conf, text, 0o640))
        stack.enter_context(attribute(place.cloud, "configuration", text if is_known else before))
        stack.enter_context(entries(place.images.attributes, mixed_modes.copied(text) if is_copied else {}))
        yield


@contextmanager
def mixed_increments(place: Place) -> Iterator[None]:
    """A VM in a datastore of ssh has increments."""
    image = place.cloud.images[0]
    other = Datastore(200, "ssh", "SYSTEM_DS", {"TM_MAD": "ssh", "TYPE": "SYSTEM_DS"})
    vm = VirtualMachine(7, "vm-7", "one-7", {"MEMORY": "128"})
    vm.disks.append(Disk({**image_disk({}, image, place.images), "DISK_ID": "0"}))
    vm.place("node2", 0, other)
    vm.become(VmState.ACTIVE, LcmState.RUNNING)
    vm.backups.config["MODE"] = "INCREMENT"
    with attribute(place.cloud, "machines", [vm]), mixed(place):
        yield


def datastores(*kept_names: str) -> Plant:
    return lambda place: attribute(
        place.cloud, "datastores", [found for found in place.cloud.datastores if found.name in kept_names]
    )


def staging(mode: int) -> Plant:
    return lambda place: rights(place.sandbox.host("node2") / "var/tmp", mode)


def override(place: Place) -> AbstractContextManager[object]:
    return replaced(place.tree.oned_conf, "kvm -p -l save=save_linstor_un", "kvm -p -l save=my_save")


STOCK = (RELEASES / "7.4.0" / "oned.conf").read_text()


@contextmanager
def several_scripts_removed(place: Place) -> Iterator[None]:
    with ExitStack() as stack:
        for verb in ("cp", "mkfs", "rm", "stat"):
            stack.enter_context(removed(place.tree.remotes / "datastore/linstor_un" / verb))
        yield


@contextmanager
def shebang_gone(place: Place) -> Iterator[None]:
    path = place.tree.remotes / "tm/linstor_un/mv"
    with replaced(path, path.read_text().split("\n")[0], "#!/nowhere/bin/python3"):
        yield


@contextmanager
def readable_key(place: Place) -> Iterator[None]:
    key = place.folder / "key.pem"
    with written(key, "key", 0o644), conf(f'LS_CERTFILE="{key}"\nLS_KEYFILE="{key}"\n')(place):
        yield


@contextmanager
def token_file(place: Place) -> Iterator[None]:
    token = place.folder / "token"
    with written(token, "a-token", 0o600), conf(f'LS_TOKEN_FILE="{token}"\n')(place):
        yield


def backing(place: Place) -> str:
    return place.sandbox.cluster.nodes["node2"].pools["data"].driver()


FAULTS = (
    # The front-end.
    Fault("not-installed", "is not installed in", lambda place: removed(place.tree.remotes / "datastore/linstor_un")),
    Fault("installation-interrupted", "interrupted half-way", record('"is_complete": true', '"is_complete": false')),
    Fault("installation-record", "has another format", record('"format": 1', '"format": 2')),
    Fault("scripts-foreign", "tm/linstor_un/mv in", script("#!/", "#!/bin/bash\n#!/")),
    Fault(
        "scripts-missing",
        "vmm/kvm/save_linstor_un are missing",
        lambda p: removed(p.tree.remotes / "vmm/kvm/save_linstor_un"),
    ),
    Fault("scripts-missing", "datastore/linstor_un/cp, ", lambda p: several_scripts_removed(p)),
    Fault(
        "scripts-not-executable", "tm/linstor_un/mv in", lambda p: rights(p.tree.remotes / "tm/linstor_un/mv", 0o600)
    ),
    Fault(
        "files-changed",
        "lib/linstor_un/naming.py in",
        lambda p: appended(p.tree.remotes / "lib/linstor_un/naming.py", "#\n"),
    ),
    Fault("interpreter-unusable", "(No such file or directory)", lambda p: shebang_gone(p)),
    Fault("interpreter-unusable", "(it hurts)", lambda p: shebang(p, "echo it hurts >&2; exit 1")),
    Fault("python-too-old", "is Python 3.8.16", interpreter("[3, 8, 16]")),
    Fault("package-missing", "The Python package lxml is missing", interpreter(lxml="")),
    Fault("package-missing", "The Python package python-linstor is missing", interpreter(**{"python-linstor": ""})),
    Fault("package-too-old", "python-linstor 1.20.1 for", interpreter(**{"python-linstor": "1.20.1"})),
    Fault("bytecode-missing", "is not compiled for", interpreter(tag="cpython-3000")),
    Fault(
        "program-missing", "xorriso or genisoimage or mkisofs is missing", lambda p: removed(p.programs / "genisoimage")
    ),
    Fault("program-missing", "zstd is missing", lambda p: removed(p.programs / "zstd")),
    Fault("configuration-invalid", "there is no setting CLONE_MOOD", conf('CLONE_MOOD="copy"\n')),
    Fault("configuration-invalid", 'LOCK_TIMEOUT="soon"', conf('LOCK_TIMEOUT="soon"\n')),
    Fault("configuration-writable", "may be written to by everybody", lambda p: rights(p.tree.configuration, 0o666)),
    Fault("lock-directory", "nowhere is missing or not writable", conf('LOCK_DIR="@FOLDER@/nowhere"\n')),
    # OpenNebula's configuration.
    Fault("opennebula-too-old", "OpenNebula 5.10.5", lambda p: written(p.tree.remotes / "VERSION", "5.10.5\n", 0o644)),
    Fault(
        "oned-unreachable",
        "oned does not answer",
        lambda p: written(p.cloud.var / ".one/one_endpoint", "http://127.0.0.1:1/RPC2"),
    ),
    Fault(
        "oned-unreachable",
        "User couldn't be authenticated",
        lambda p: written(p.cloud.var / ".one/one_auth", "oneadmin:wrong"),
    ),
    Fault("oned-conf-unreadable", "cannot be understood from line", lambda p: appended(p.tree.oned_conf, "BROKEN\n")),
    Fault("tm-mad", "(-d) of TM_MAD", oned('iscsi_libvirt,netapp,purefa,linstor_un"', 'iscsi_libvirt,netapp,purefa"')),
    Fault("datastore-mad", "(-d) of DATASTORE_MAD", oned("interactive,linstor_un", "interactive")),
    Fault(
        "system-datastores", "(-s) of DATASTORE_MAD", oned('qcow2,netapp,purefa,linstor_un"', 'qcow2,netapp,purefa"')
    ),
    Fault("tm-mad-conf", "no TM_MAD_CONF", oned('NAME = "linstor_un", LN', 'NAME = "other", LN')),
    Fault("ds-mad-conf", "no DS_MAD_CONF", oned('NAME = "linstor_un", REQ', 'NAME = "other", REQ')),
    Fault("stanza-incomplete", 'lacks DS_LIVE_MIGRATE="YES"', oned(', DS_LIVE_MIGRATE = "YES"', "")),
    Fault(
        "tm-mad-conf-value",
        'SHARED="NO"',
        oned(
            'CLONE_TARGET = "SYSTEM", SHARED = "YES", DS_MIGRATE = "YES",\n    DRIVER',
            'CLONE_TARGET = "SYSTEM", SHARED = "NO", DS_MIGRATE = "YES",\n    DRIVER',
        ),
    ),
    Fault("mixed-mode", 'has LN_TARGET_SSH="SYSTEM"', lambda p: mixed(p, {"LN_TARGET_SSH": "SYSTEM"})),
    Fault("mixed-room", 'has CLONE_TARGET_SSH="SYSTEM"', lambda p: mixed(p, {"CLONE_TARGET_SSH": "SYSTEM"})),
    Fault(
        "mixed-files",
        "The TM_MAD_CONF of nfs",
        lambda p: mixed(p, more='\nTM_MAD_CONF = [ NAME = "nfs", TM_MAD_SYSTEM = "ssh, linstor_un" ]\n'),
    ),
    Fault("oned-not-restarted", "a configuration from before", lambda p: mixed(p, is_known=False)),
    Fault(
        "save-override",
        "VM_MAD qemu in",
        oned('-r 0 kvm -l save=save_linstor_un,restore=restore_linstor_un"', '-r 0 kvm"'),
    ),
    Fault("save-override-foreign", "runs save by my_save", override),
    Fault("live-snapshots", "lacks kvm-linstor_un", lambda p: replaced(p.tree.vmm_execrc, " kvm-linstor_un", "")),
    Fault(
        "oned-not-restarted",
        "a configuration from before linstor_un",
        lambda p: attribute(p.cloud, "configuration", STOCK),
    ),
    Fault(
        "disk-cache",
        'CACHE="writeback"',
        lambda p: written(
            p.tree.etc / "vmm_exec/vmm_exec_kvm.conf", 'DISK = [ DRIVER = "raw", CACHE = "writeback" ]\n'
        ),
    ),
    Fault(
        "frontend-hostname",
        "calls the front-end cloud.example.org",
        lambda p: appended(p.tree.oned_conf, '\nHOSTNAME = "cloud.example.org"\n'),
    ),
    Fault(
        "datastore-location",
        "in /srv/datastores, and",
        lambda p: appended(p.tree.oned_conf, "\nDATASTORE_LOCATION = /srv//datastores/\n"),
    ),
    # LINSTOR.
    Fault("controller-unreachable", "Connection refused", conf('LS_CONTROLLERS="127.0.0.1:1"\n')),
    Fault("controller-fails", "database is locked", failing),
    Fault("controller-untrusted", "CERTIFICATE_VERIFY_FAILED", lambda p: secure(p, trusted=False)),
    Fault("controller-untrusted", "has expired", lambda p: secure(p, "expired")),
    Fault("controller-untrusted", "mismatch", lambda p: secure(p, "wrong-host")),
    Fault("controller-files", "LS_CAFILE=/nowhere/ca.crt cannot be read", conf('LS_CAFILE="/nowhere/ca.crt"\n')),
    Fault("controller-files", "may be read by everybody", lambda p: readable_key(p)),
    Fault("controller-token", "it asks for a token", lambda p: attribute(p.sandbox, "token", "a-token")),
    Fault("controller-too-old", "REST 1.12.0", lambda p: attribute(p.sandbox.cluster, "version", "1.12.0")),
    Fault("token-without-tls", "is never sent without TLS", lambda p: token_file(p)),
    Fault("certificate-expires", "expires in 4 days", lambda p: secure(p, days=5)),
    Fault("passphrase", "passphrase is unset", system(ENCRYPTION="yes")),
    Fault("node-offline", "Node node2 is OFFLINE", offline),
    Fault("node-leaving", "Node node2 is evicted", node("flags", {"EVICTED"})),
    Fault("node-without-drbd", "Node node2 cannot have DRBD", node("layers", ("STORAGE",))),
    Fault("quorum-policy", "on-no-quorum io-error", controller(policy="io-error")),
    Fault("quorum-policy", "Resource group mine has on-no-quorum io-error", weak_group),
    Fault("quorum-off", "turns quorum off", controller(quorum="off")),
    Fault("tie-breaker-off", "makes no tie-breakers", controller(tie_breaker="False")),
    Fault("auto-promote-off", "turns auto-promote off", controller(promote="no")),
    Fault("two-primaries", "allows two primaries for all volumes", controller(two_primaries="yes")),
    # Hosts.
    Fault("host-no-node", "Host node9 is not a node", lambda p: host_named(p, "node9")),
    Fault("host-name-case", "Host Node2 is written node2", lambda p: host_named(p, "Node2")),
    Fault("host-name-short", "Host node2.example.org is node node2", lambda p: host_named(p, "node2.example.org")),
    Fault(
        "host-name-other",
        "Host 127.0.0.2 has the address of node node2",
        lambda p: host_named(p, "127.0.0.2", "127.0.0.2"),
    ),
    Fault("host-no-satellite", "of type controller", node("kind", "CONTROLLER")),
    Fault("host-ssh", "host node2 does not answer over ssh", unreachable),
    Fault("host-program", "mkfs.nosuch is missing on node2", conf('SUPPORTED_FS="ext4 nosuch"\n')),
    Fault("host-devices", "/dev/drbd9999 on node2", dangling),
    Fault("host-devices", "oneadmin cannot open devices of DRBD on node2", no_device_and_no_right),
    Fault(
        "host-datastores",
        "cannot write to /var/lib/one/datastores on node2",
        lambda p: removed(p.sandbox.host("node2") / "var/lib/one/datastores"),
    ),
    Fault("host-staging", "/var/tmp is missing on node2", lambda p: removed(p.sandbox.host("node2") / "var/tmp")),
    Fault("host-staging", "/var/tmp on node2 is open to other users", staging(0o777)),
    Fault("host-clock", "ahead of the front-end's", tool("date", "echo 9999999999")),
    Fault("host-clock", "behind the front-end's", tool("date", "echo 1000000000")),
    Fault(
        "thin-pool-metadata", "is 91 % full", lambda p: tool("lvs", f"echo '  {backing(p).replace('/', ' ')} 91.20'")(p)
    ),
    # Backups.
    Fault("backup-program", "qemu-io is missing on node2", lambda p: increments(p, "node2", "qemu-io")),
    Fault("backup-program", "thin_delta is missing on node1, ", lambda p: increments(p, "node1", "thin_delta")),
    Fault(
        "backup-program",
        "thin_delta is missing on node2, and a VM is backed up by increments: whole disks are compared",
        lambda p: increments(p, "node2", "thin_delta", compares=True),
    ),
    Fault("backup-right", "`sudo -n lvs` on node1", lambda p: increments(p, "node1", refused="lvs")),
    Fault("backup-right", "`sudo -n dmsetup` on node2", lambda p: increments(p, "node2", refused="dmsetup")),
    Fault("backup-right", "`sudo -n thin_delta` on node2", lambda p: increments(p, "node2", refused="thin_delta")),
    Fault(
        "backup-right",
        "`sudo -n dmsetup` on node1, and a VM is backed up by increments: whole disks",
        lambda p: increments(p, "node1", refused="dmsetup", compares=True),
    ),
    Fault("backup-program", "zstream is missing on node2", lambda p: of_zfs(p, "zstream", "zstreamdump")),
    Fault("backup-right", "`sudo -n zfs send` on node2", lambda p: of_zfs(p, refused="zfs")),
    # Datastores.
    Fault("no-datastore", "No datastore uses linstor_un", datastores()),
    Fault("no-system-datastore", "no system datastore", datastores("images")),
    Fault("no-image-datastore", "no image datastore", datastores("system")),
    Fault("attribute-invalid", 'CLONE_MODE="fast" of datastore 100 (system)', system(CLONE_MODE="fast")),
    Fault("attribute-misspelt", "an attribute STORAGE_POOLS", images(STORAGE_POOLS="data")),
    Fault("placement-incomplete", "REPLICA_COUNT is missing from datastore 101 (images)", images(AUTO_PLACE=None)),
    Fault("resource-group-missing", "no resource group ours", images(RESOURCE_GROUP="ours")),
    Fault("pool-missing", "No node has a storage pool fast", images(STORAGE_POOL="data fast")),
    Fault("too-few-nodes", "asks for 3 replicas, and 2 nodes have its pools", images(AUTO_PLACE="3")),
    Fault("too-few-nodes", "asks for 2 replicas, and 0 nodes have", images(PROVIDERS="ZFS")),
    Fault("node-list", "names node9, which is not a node", images(NODE_LIST="node1 node9", AUTO_PLACE=None)),
    Fault("bridge-list", "names node7, which is not a node", images(BRIDGE_LIST="node1 node7")),
    Fault("checkpoint-replicas", "3 replicas of suspended VMs' memory", system(CHECKPOINT_REPLICA_COUNT="3")),
    Fault(
        "snapshots-impossible", "pool thick can have no snapshots", system(STORAGE_POOL="thick", CLONE_MODE="snapshot")
    ),
    Fault("disk-type", 'DISK_TYPE="FILE"', images(DISK_TYPE="FILE")),
    Fault("datastore-stale", 'LN_TARGET was "SYSTEM"', images(LN_TARGET="SYSTEM")),
    Fault("datastore-stale", 'DRIVER was "" and not "raw"', images(DRIVER=None)),
    # As OpenNebula 7.2 finds the datastores of drivers that are not its own, once it is upgraded to.
    Fault("datastore-stale", 'DS_MIGRATE_SNAP was "" and not "YES"', system(DS_MIGRATE_SNAP=None)),
    Fault("mixed-stale", "was made when TM_MAD_SYSTEM, LN_TARGET_SSH", lambda p: mixed(p, is_copied=False)),
    Fault("mixed-increments", "VM 7 (vm-7) has MODE=INCREMENT", mixed_increments),
    Fault("token-not-encrypted", "LS_TOKEN of datastore 101", secret_in_template),
    Fault("not-monitored", "no capacity for datastore 101", lambda p: attribute(p.images, "total_mb", 0)),
    Fault("pool-full", "Pool data on node2 has 1.0 of 20.0 GiB free", full),
)
