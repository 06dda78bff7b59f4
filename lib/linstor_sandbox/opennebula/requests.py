"""What commands of operators ask of oned over XML-RPC: it answers when it has begun, and goes on by itself."""

from __future__ import annotations

import threading
from typing import Callable, Optional, Union

from linstor_sandbox.opennebula import markup, templates
from linstor_sandbox.opennebula.backup_operations import BackupOperations
from linstor_sandbox.opennebula.errors import ActionFailed, Refused
from linstor_sandbox.opennebula.hypervisor import HypervisorFailed
from linstor_sandbox.opennebula.images import Image, ImageState
from linstor_sandbox.opennebula.machines import VirtualMachine, VmState


class _Work(threading.Thread):
    """Something that oned does after it has answered; what it refuses it refuses in its answer."""

    def __init__(self, function: Callable[[], object], has_begun: Callable[[], bool]) -> None:
        super().__init__(name="oned's work", daemon=True)
        self._function = function
        self._refused: Optional[Refused] = None
        self.start()
        while self.is_alive() and not has_begun():
            self.join(0.005)
        if self._refused is not None:
            raise self._refused

    def run(self) -> None:
        """Do it; how it has ended the states say."""
        try:
            self._function()
        except Refused as refused:
            self._refused = refused
        except (ActionFailed, HypervisorFailed):
            pass


class Requests(BackupOperations):
    """oneimage and onevm, as requests."""

    def wait_for_requests(self) -> None:
        """Return when all that was begun has ended."""
        for thread in threading.enumerate():
            if isinstance(thread, _Work):
                thread.join()

    def close(self) -> None:
        """Stop answering, when all that was begun has ended."""
        self.wait_for_requests()
        super().close()

    def _methods(self) -> dict[str, tuple[str, Callable[..., Union[str, int]]]]:
        return {
            **super()._methods(),
            "one.image.clone": ("image", self._clone_image),
            "one.image.delete": ("image", self._delete_image),
            "one.image.rename": ("image", self._rename_image),
            "one.image.chown": ("image", self._give_image),
            "one.image.chmod": ("image", self._permit_image),
            "one.image.persistent": ("image", self._persist_image),
            "one.image.enable": ("image", self._enable_image),
            "one.image.update": ("image", self._update_image),
            "one.vm.attach": ("virtual machine", self._attach_disk),
            "one.vm.detach": ("virtual machine", self._detach_disk),
            "one.user.info": ("user", self._user_xml),
            "one.user.update": ("user", self._update_user),
            "one.templatepool.info": ("template", self._templates_xml),
        }

    # --- images -----------------------------------------------------------------------------------------------------

    def _allocate_image(self, template: str, datastore_id: int, _no_check_capacity: bool = False) -> int:
        """Of a PATH too: the answer is there when its size is known, its bytes come after that."""
        given = templates.single(templates.parse(template))
        if "PATH" not in given or "FROM_BACKUP_DS" in given:
            return super()._allocate_image(template, datastore_id, _no_check_capacity)
        name, kind, path = given.pop("NAME", ""), given.pop("TYPE", "OS"), given.pop("PATH")
        is_persistent = given.pop("PERSISTENT", "").upper() == "YES"
        datastore = self.datastore(datastore_id)
        try:
            size = self.stat(datastore, path, kind)
        except ActionFailed as failure:
            raise Refused(f"Error allocating a new image. {failure.call.stderr.strip()}") from None
        with self.lock:
            self._check_name(name, 0)
            image = self._allocate(datastore, name, kind, is_persistent, size, given)
            image.path = path
        _Work(lambda: self._fill_from_path(image, datastore), lambda: True)
        return image.identifier

    def _clone_image(self, identifier: int, name: str, datastore_id: int = -1) -> int:
        original = self.image(identifier)
        datastore = self.datastore(original.datastore_id if datastore_id < 0 else datastore_id)
        if datastore.ds_mad != self.datastore(original.datastore_id).ds_mad:
            raise Refused("Clone only supported to same DS_MAD Datastores")
        self._check_name(name, 0)
        found: list[Image] = []

        def has_begun() -> bool:
            found[:] = [image for image in list(self.images) if image.name == name]
            return bool(found)

        _Work(lambda: self.clone_image(original, name, datastore, original.persistent), has_begun)
        return found[0].identifier

    def _delete_image(self, identifier: int, force: bool = False) -> int:
        image = self.image(identifier)
        _Work(lambda: self.delete_image(image, force), lambda: image.state == ImageState.DELETE)
        return identifier

    def _check_name(self, name: str, owner_id: int) -> None:
        taken = [image.identifier for image in list(self.images) if (image.name, image.owner_id) == (name, owner_id)]
        if taken:
            raise Refused(f"NAME is already taken by IMAGE {taken[0]}.")

    def _rename_image(self, identifier: int, name: str) -> int:
        with self.lock:
            image = self.image(identifier)
            self._check_name(name, image.owner_id)
            image.name = name
            for vm in self.machines:
                for disk in vm.disks:
                    if disk.attributes.get("IMAGE_ID") == str(identifier):
                        disk.attributes["IMAGE"] = name
            return identifier

    def _give_image(self, identifier: int, owner_id: int, group_id: int) -> int:
        """-1 leaves it as it is."""
        with self.lock:
            image = self.image(identifier)
            if owner_id not in (-1, image.owner_id):
                self._check_name(image.name, owner_id)
                image.owner_id = owner_id
            image.group_id = image.group_id if group_id < 0 else group_id
            return identifier

    def _permit_image(self, identifier: int, *bits: int) -> int:
        with self.lock:
            image = self.image(identifier)
            before = [right in image.granted for right in markup.PERMISSIONS]
            wanted = [old if bit < 0 else bool(bit) for old, bit in zip(before, bits)]
            image.granted = frozenset(right for right, bit in zip(markup.PERMISSIONS, wanted) if bit)
            return identifier

    def _persist_image(self, identifier: int, is_persistent: bool) -> int:
        with self.lock:
            image = self.image(identifier)
            if image.state not in (ImageState.READY, ImageState.DISABLED, ImageState.ERROR):
                raise Refused(f"Image cannot change its persistent state: {image.state.name}")
            image.persistent = is_persistent
            return identifier

    def _enable_image(self, identifier: int, is_enabled: bool) -> int:
        with self.lock:
            image = self.image(identifier)
            allowed = [ImageState.DISABLED, ImageState.ERROR] if is_enabled else [ImageState.READY, ImageState.ERROR]
            wanted = ImageState.READY if is_enabled else ImageState.DISABLED
            if image.state not in (*allowed, wanted):
                raise Refused(f"Could not {'enable' if is_enabled else 'disable'} image: {image.state.name}")
            image.become(wanted)
            return identifier

    def _update_image(self, identifier: int, template: str, update_type: int) -> int:
        """0 replaces the template, 1 merges into it."""
        given = templates.single(templates.parse(template))
        with self.lock:
            image = self.image(identifier)
            image.attributes = {**image.attributes, **given} if update_type == 1 else given
            return identifier

    # --- VMs --------------------------------------------------------------------------------------------------------

    def _attach_disk(self, identifier: int, template: str) -> int:
        vm = self._plugged(identifier, "attach")
        _Work(lambda: self.attach(vm, template), lambda: any("ATTACH" in disk.attributes for disk in vm.disks))
        return identifier

    def _detach_disk(self, identifier: int, disk_id: int) -> int:
        vm = self._plugged(identifier, "detach")
        disk = vm.disk(disk_id)
        _Work(lambda: self.detach(vm, disk), lambda: "ATTACH" in disk.attributes)
        return identifier

    def _plugged(self, identifier: int, verb: str) -> VirtualMachine:
        vm = self.machine(identifier)
        if vm.state not in (VmState.ACTIVE, VmState.POWEROFF) or any("ATTACH" in disk.attributes for disk in vm.disks):
            raise Refused(f"Could not {verb} disk: the VM is {vm.state.name}")
        return vm

    # --- users and templates ------------------------------------------------------------------------------------------

    def _user_xml(self, identifier: int = -1) -> str:
        """The administrator, who is the only user that asks."""
        if identifier not in (-1, 0):
            raise KeyError(identifier)
        template = markup.element("TEMPLATE", markup.attributes(self.own_attributes))
        return markup.element("USER", "<ID>0</ID><GID>0</GID><NAME>oneadmin</NAME>", template)

    def _update_user(self, identifier: int, template: str, update_type: int) -> int:
        if identifier != 0 or update_type != 1:
            raise Refused("only the administrator's template is kept, and only added to")
        with self.lock:
            self.own_attributes.update(templates.single(templates.parse(template)))
            return identifier

    def _templates_xml(self, _whose: int, _first: int, _last: int) -> str:
        found = [_template_xml(number, *item) for number, item in enumerate(self.vm_templates)]
        return markup.element("VMTEMPLATE_POOL", *found)


def _template_xml(identifier: int, name: str, text: str) -> str:
    content = markup.template("TEMPLATE", templates.parse(text))
    return markup.element("VMTEMPLATE", markup.owner(name, identifier), content)
