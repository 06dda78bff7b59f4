"""What oned knows: its datastores, hosts, images and VMs, and where it keeps its files."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, Optional, TypeVar, Union

from linstor_sandbox.opennebula import datastores, markup, templates
from linstor_sandbox.opennebula.datastores import DATASTORE_LOCATION, TM_MAD_CONF, Datastore
from linstor_sandbox.opennebula.errors import ActionFailed, Refused
from linstor_sandbox.opennebula.hypervisor import Hypervisor
from linstor_sandbox.opennebula.images import Image, ImageState
from linstor_sandbox.opennebula.machines import VirtualMachine, VmState
from linstor_sandbox.opennebula.releases import Release
from linstor_sandbox.opennebula.rpc import Endpoint
from linstor_sandbox.opennebula.scripts import Call, Scripts

# oned numbers what an administrator creates from 100; below are its own datastores.
FIRST_DATASTORE = 100

SESSION = "oneadmin:stand-in"

# Scripts must find the driver's library by themselves.
_NOT_INHERITED = {"PYTHONPATH", "VIRTUAL_ENV", "ONE_LOCATION"}

Named = TypeVar("Named", Datastore, Image, VirtualMachine)


class Registry:
    """The objects, the entry scripts and the XML-RPC endpoint of one OpenNebula."""

    def __init__(
        self,
        remotes: Path,
        var: Path,
        hosts: tuple[str, ...] = ("node1", "node2", "node3"),
        frontend: str = "onefe",
        environment: Optional[Mapping[str, str]] = None,
        release: Union[str, Release] = "7.4",
        encrypted: frozenset[str] = frozenset(),
        tm_mad_conf: Mapping[str, str] = TM_MAD_CONF,
        configuration: str = "",
        one_location: str = "",
    ) -> None:
        """`var` is oned's own directory on the front-end, `environment` is added to what its drivers have.

        `configuration` is the text of oned.conf at oned's start, for whoever asks for it; `one_location` is where a
        self-contained installation is on front-end and hosts.
        """
        self.release = Release.parse(release) if isinstance(release, str) else release
        self.hosts = list(hosts)
        self.frontend = frontend
        self.var = var
        self.encrypted = encrypted
        # Those of other drivers may be added.
        self.tm_mad_confs = {tm_mad_conf["NAME"]: dict(tm_mad_conf)}
        self.configuration = configuration
        self.datastores: list[Datastore] = []
        self.images: list[Image] = []
        self.machines: list[VirtualMachine] = []
        # The name and the text of each VM template.
        self.vm_templates: list[tuple[str, str]] = []
        # The template of the user whose session it is.
        self.own_attributes: dict[str, str] = {}
        self.first_datastore_id = FIRST_DATASTORE
        # oned gives no id twice.
        self._deleted_datastores = 0
        self.next_image_id = self.next_vm_id = self.next_request_id = 0
        self.lock = threading.RLock()
        self.rpc = Endpoint(SESSION, self._methods())
        self._write_credentials()
        self.location = f"{one_location}/var//datastores" if one_location else DATASTORE_LOCATION
        own = {"ONE_LOCATION": one_location} if one_location else {}
        self.scripts = Scripts(remotes, {**self._environment(environment or {}), **own}, var)
        self.hypervisor = Hypervisor(self.scripts.environment, self.release)

    def close(self) -> None:
        """Stop answering XML-RPC."""
        self.rpc.close()

    @property
    def calls(self) -> list[Call]:
        """Every run of an entry script so far."""
        return self.scripts.calls

    def create_datastore(self, template: str) -> Datastore:
        """`onedatastore create` with a template's text."""
        with self.lock:
            identifier = self.first_datastore_id + len(self.datastores) + self._deleted_datastores
            created = datastores.create(
                identifier, template, self.release, self.tm_mad_confs, self.encrypted, self.location
            )
            if any(datastore.name == created.name for datastore in self.datastores):
                raise Refused(f"NAME is already taken by a datastore: {created.name}")
            self.datastores.append(created)
            return created

    def monitor(self, datastore: Datastore) -> Call:
        """Run the datastore's monitor and take its numbers; a failure leaves the old ones and raises ActionFailed."""
        extra = ""
        if datastore.type == "SYSTEM_DS":
            extra = markup.text("DATASTORE_LOCATION", self.location)
            extra += markup.text("MONITOR_VM_DISKS", 1)
        arguments = self.action_arguments(datastore.xml() + extra, datastore.identifier)
        if datastore.type == "SYSTEM_DS":
            call = self.scripts.system_monitor(datastore.tm_mad, *arguments)
        else:
            call = self.scripts.datastore(datastore.ds_mad, "monitor", *arguments)
        if not call.succeeded:
            raise ActionFailed(call)
        numbers = templates.single(templates.parse(call.stdout))
        datastore.total_mb = int(numbers["TOTAL_MB"])
        datastore.free_mb = int(numbers["FREE_MB"])
        datastore.used_mb = int(numbers["USED_MB"])
        return call

    def action_arguments(self, content: str, identifier: int) -> tuple[list[str], str]:
        """argv and stdin of a datastore script, in the form of the release."""
        document = markup.element("DS_DRIVER_ACTION_DATA", content)
        return self.release.action_arguments(markup.base64_text(document), identifier)

    def datastore(self, identifier: int) -> Datastore:
        """The datastore of an id; KeyError when there is none."""
        return _find(self.datastores, identifier)

    def image(self, identifier: int) -> Image:
        """The image of an id; KeyError when there is none."""
        return _find(self.images, identifier)

    def machine(self, identifier: int) -> VirtualMachine:
        """The VM of an id, also one that is DONE; KeyError when there is none."""
        return _find(self.machines, identifier)

    def host_id(self, host: str) -> int:
        """The id of a host."""
        if host not in self.hosts:
            raise Refused(f"host {host} is not registered: the hosts are {', '.join(self.hosts)}")
        return self.hosts.index(host)

    def _methods(self) -> dict[str, tuple[str, Callable[..., Union[str, int]]]]:
        return {
            "one.datastore.allocate": ("cluster", self._allocate_datastore),
            "one.datastore.delete": ("datastore", self._delete_datastore),
            "one.datastore.update": ("datastore", self._update_datastore),
            "one.image.allocate": ("datastore", self._allocate_image),
            "one.vm.info": ("virtual machine", lambda vm_id, _decrypt=False: self._vm_xml(vm_id)),
            "one.datastore.info": ("datastore", self._datastore_xml),
            "one.image.info": ("image", lambda image_id, _decrypt=False: self._image_xml(image_id)),
            "one.hostpool.info": ("host", self._hosts_xml),
            "one.datastorepool.info": ("datastore", self._datastores_xml),
            "one.imagepool.info": ("image", self._images_xml),
            "one.vmpool.infoextended": ("virtual machine", self._machines_xml),
            "one.system.version": ("system", lambda: str(self.release)),
            "one.system.config": ("system", self._configuration_xml),
        }

    def _allocate_datastore(self, template: str, cluster_id: int = -1) -> int:
        """-1 is the default cluster, the only one that there is."""
        if cluster_id not in (-1, 0):
            raise KeyError(cluster_id)
        return self.create_datastore(template).identifier

    def _delete_datastore(self, identifier: int) -> int:
        with self.lock:
            found = self.datastore(identifier)
            if found.images:
                raise Refused(f"Cannot delete datastore. Datastore {identifier} is not empty.")
            self.datastores.remove(found)
            self._deleted_datastores += 1
            return identifier

    def _update_datastore(self, identifier: int, template: str, update_type: int) -> int:
        """0 replaces the template, 1 merges into it."""
        with self.lock:
            datastores.update(self.datastore(identifier), template, update_type == 1, self.release, self.tm_mad_confs)
            return identifier

    def _allocate_image(self, template: str, datastore_id: int, _no_check_capacity: bool = False) -> int:
        """Make an image of a SOURCE, for which no driver is asked; of a PATH only what `create_image` does."""
        given = templates.single(templates.parse(template))
        with self.lock:
            datastore = self.datastore(datastore_id)
            name = given.pop("NAME", "")
            self._check_image(datastore, name, given)
            image = Image(
                self.next_image_id,
                name,
                datastore.identifier,
                datastore.name,
                type=given.pop("TYPE", "OS"),
                persistent=given.pop("PERSISTENT", "").upper() == "YES",
                source=given.pop("SOURCE"),
                format=given.pop("FORMAT"),
                size=int(given.pop("SIZE")),
                disk_type=datastore.disk_type,
                attributes={"DEV_PREFIX": "sd", **given},
                registered=int(time.time()),
            )
            image.become(ImageState.READY)
            self.next_image_id += 1
            self.images.append(image)
            datastore.images.append(image.identifier)
            return image.identifier

    def _check_image(self, datastore: Datastore, name: str, given: Mapping[str, str]) -> None:
        error = "Error allocating a new image."
        if datastore.type != "IMAGE_DS":
            raise Refused(f"{error} New images cannot be allocated in a system datastore.")
        taken = next((image.identifier for image in self.images if image.name == name), None)
        if taken is not None:
            raise Refused(f"{error} NAME is already taken by IMAGE {taken}.")
        if not given.get("SOURCE") or given.get("PATH"):
            raise Refused(f"{error} PATH and SOURCE cannot be both set.")
        if not given.get("FORMAT"):
            raise Refused(f"{error} SOURCE needs FORMAT to be set.")
        if not given.get("SIZE", "").isdigit():
            raise Refused(f"{error} Cannot parse SIZE")

    def _vm_xml(self, identifier: int) -> str:
        with self.lock:
            return self.machine(identifier).xml()

    def _datastore_xml(self, identifier: int, decrypt: bool = False) -> str:
        with self.lock:
            return self.datastore(identifier).xml(decrypt)

    def _image_xml(self, identifier: int) -> str:
        with self.lock:
            return self.image(identifier).xml(self.release)

    def _datastores_xml(self) -> str:
        with self.lock:
            return markup.element("DATASTORE_POOL", *(found.xml(decrypt=False) for found in self.datastores))

    def _images_xml(self, _whose: int, first: int, last: int) -> str:
        with self.lock:
            return markup.element("IMAGE_POOL", *(found.xml(self.release) for found in _page(self.images, first, last)))

    def _machines_xml(self, _whose: int, first: int, last: int, state: int, _filter: str = "") -> str:
        """The pool of VMs as its table has it, each with the last record of its history; state -1 leaves out DONE."""
        with self.lock:
            wanted = [vm for vm in self.machines if state == -2 or vm.state != VmState.DONE]
            return markup.element("VM_POOL", *(vm.xml(only_last_record=True) for vm in _page(wanted, first, last)))

    def _hosts_xml(self) -> str:
        return markup.element("HOST_POOL", *(_host_xml(number, name) for number, name in enumerate(self.hosts)))

    def _configuration_xml(self) -> str:
        return markup.template("OPENNEBULA_CONFIGURATION", templates.parse(self.configuration))

    def _write_credentials(self) -> None:
        """What oneadmin has in its home: scripts find oned and their session there."""
        home = self.var / ".one"
        home.mkdir(parents=True, exist_ok=True)
        (home / "one_auth").write_text(SESSION + "\n", encoding="utf-8")
        (home / "one_auth").chmod(0o600)
        (home / "one_endpoint").write_text(self.rpc.uri + "\n", encoding="utf-8")

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """What oned's drivers have in their environment, and what the caller adds."""
        path = extra.get("PATH", os.environ.get("PATH", os.defpath))
        return {
            **{name: value for name, value in extra.items() if name not in _NOT_INHERITED},
            "HOME": str(self.var),
            "USER": "oneadmin",
            "LOGNAME": "oneadmin",
            "LANG": "C.UTF-8",
            "PRIORITY": "19",
            "ONE_MAD_DEBUG": "",
            # The scripts' `python3` must be one that has the driver's requirements: the one that runs this.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{path}",
        }


def _find(pool: list[Named], identifier: int) -> Named:
    # A copy, because others come and go meanwhile.
    for found in list(pool):
        if found.identifier == identifier:
            return found
    raise KeyError(identifier)


def _page(pool: Sequence[Named], first: int, last: int) -> list[Named]:
    """Ids from `first` to `last`, or a page: where `last` is below -1, so many from the offset `first` on.

    The newest first, as API_LIST_ORDER is from the beginning.
    """
    ordered = sorted(pool, key=lambda found: -found.identifier)
    if last < -1:
        return ordered[first : first - last]
    return [found for found in ordered if first <= found.identifier and (last < 0 or found.identifier <= last)]


def _host_xml(identifier: int, name: str) -> str:
    return markup.element(
        "HOST",
        markup.text("ID", identifier),
        markup.text("NAME", name),
        "<STATE>2</STATE><PREV_STATE>2</PREV_STATE>",
        markup.cdata("IM_MAD", "kvm"),
        markup.cdata("VM_MAD", "kvm"),
        "<CLUSTER_ID>0</CLUSTER_ID><CLUSTER>default</CLUSTER><VMS></VMS>",
        markup.element("TEMPLATE", markup.attributes({"HOSTNAME": name, "HYPERVISOR": "kvm"})),
        "<MONITORING></MONITORING>",
    )
