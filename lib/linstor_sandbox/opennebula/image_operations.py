"""What users do with images, and the calls that oned makes for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Optional

from linstor_sandbox.opennebula import markup
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.errors import ActionFailed, Refused
from linstor_sandbox.opennebula.images import Image, ImageState
from linstor_sandbox.opennebula.registry import Registry
from linstor_sandbox.opennebula.scripts import Call


class ImageOperations(Registry):
    """oneimage create, clone, delete; each raises ActionFailed after it has set the states that oned would set."""

    def create_image(
        self,
        datastore: Datastore,
        path: str,
        name: str = "",
        persistent: bool = False,
        type: str = "OS",
        attributes: Optional[Mapping[str, str]] = None,
    ) -> Image:
        """`oneimage create --path`: stat, cp, monitor. A failed stat leaves no image, a failed cp one in ERROR."""
        size = self.stat(datastore, path, type)
        image = self._allocate(datastore, name, type, persistent, size, attributes)
        image.path = path
        self._fill_from_path(image, datastore)
        return image

    def _fill_from_path(self, image: Image, datastore: Datastore) -> None:
        """cp, monitor: the image is READY, or in ERROR."""
        call = self._fill(image, datastore, "cp")
        words = call.stdout.split()
        if self.release.reads_cp_format and len(words) != 2:
            image.become(ImageState.ERROR)
            raise Refused(f"CP operation succeeded but image FORMAT was not returned: {call.stdout!r}")
        image.source, image.format = words[0], words[1] if self.release.has_format else ""
        image.become(ImageState.READY)
        self._count_anew(datastore)

    def create_datablock(
        self,
        datastore: Datastore,
        size: int,
        fs: str = "",
        name: str = "",
        persistent: bool = False,
        attributes: Optional[Mapping[str, str]] = None,
    ) -> Image:
        """`oneimage create --type DATABLOCK --size`: mkfs, then monitor; the size is MiB."""
        image = self._allocate(datastore, name, "DATABLOCK", persistent, size, attributes)
        image.format, image.fs = "raw", fs
        image.attributes["DRIVER"] = "raw"
        call = self._fill(image, datastore, "mkfs")
        printed = call.stdout.rstrip("\n")
        image.source = printed.split()[0] if self.release.mkfs_takes_first_word else printed
        image.become(ImageState.READY)
        self._count_anew(datastore)
        return image

    def clone_image(
        self, original: Image, name: str = "", datastore: Optional[Datastore] = None, persistent: bool = False
    ) -> Image:
        """`oneimage clone`: clone, then monitor; into another datastore when one is given."""
        target = datastore or self.datastore(original.datastore_id)
        with self.lock:
            if original.snapshots.all:
                raise Refused("[one.image.clone] Cannot clone images with snapshots")
            original.begin_cloning()
            image = self._allocate(target, name, original.type, persistent, original.size, original.attributes)
            image.path, image.cloning_id, image.format = original.source, original.identifier, original.format
        try:
            call = self._fill(image, target, "clone")
        finally:
            with self.lock:
                original.end_cloning()
        image.source, image.path, image.cloning_id = call.stdout.split()[0], "", -1
        image.become(ImageState.READY)
        self._count_anew(target)
        return image

    def register_image(self, datastore: Datastore, source: str, size: int, name: str = "") -> Image:
        """`oneimage create --source`: an image of a volume that is there already; no script runs."""
        image = self._allocate(datastore, name, "OS", False, size, None)
        image.source, image.format = source, "raw"
        with self.lock:
            datastore.images.append(image.identifier)
        image.become(ImageState.READY)
        return image

    def delete_image(self, image: Image, force: bool = False) -> None:
        """`oneimage delete`: rm, then monitor. One that never got its SOURCE goes without a call, as in oned."""
        datastore = self.datastore(image.datastore_id)
        with self.lock:
            if image.vms and image.type != "BACKUP":
                raise Refused(f"[one.image.delete] Cannot delete image, it is used by VM {image.vms[0]}.")
            # What is still being made goes from the database alone: its driver finds that out by itself.
            is_unfinished = image.state == ImageState.LOCKED and not image.source
            if image.state in (ImageState.CLONE, ImageState.DELETE, ImageState.LOCKED) and not is_unfinished:
                raise Refused(f"[one.image.delete] Cannot delete image, its state is {image.state.name}.")
            if force:
                image.attributes["FORCE_DELETE"] = "YES"
            # The message has the state from before.
            arguments = self._image_arguments(image, datastore)
            image.become(ImageState.DELETE)
        if image.source:
            call = self.scripts.datastore(datastore.ds_mad, "rm", *arguments)
            if not call.succeeded and not force:
                image.become(ImageState.ERROR)
                raise ActionFailed(call)
        with self.lock:
            self.images.remove(image)
            # Only what has been filled, or has failed, is in the list.
            if image.identifier in datastore.images:
                datastore.images.remove(image.identifier)
            for vm in [self.machine(number) for number in image.vms]:
                vm.backups.forget(image.identifier)
        if image.source:
            self._count_anew(datastore)

    def stat(self, datastore: Datastore, path: str, type: str = "OS") -> int:
        """The size in MiB that the driver tells for a path."""
        with self.lock:
            request_id = self.next_request_id
            self.next_request_id += 1
        size = "" if type == "CDROM" else "<SIZE></SIZE>"
        wanted = markup.element("IMAGE", markup.text("PATH", path), size)
        arguments = self.action_arguments(wanted + datastore.xml(), request_id)
        call = self.scripts.datastore(datastore.ds_mad, "stat", *arguments)
        if not call.succeeded:
            raise ActionFailed(call)
        if not call.stdout.strip().isdigit():
            raise Refused(f"[one.image.allocate] Cannot parse image SIZE: {call.stdout.strip()}")
        return int(call.stdout)

    def _fill(self, image: Image, datastore: Datastore, verb: str) -> Call:
        """Run the verb that makes the image's volume; only afterwards the datastore lists the image."""
        call = self._image_call(image, datastore, verb)
        with self.lock:
            if image in self.images:
                datastore.images.append(image.identifier)
        if call.succeeded:
            return call
        image.become(ImageState.ERROR)
        if verb != "clone":
            self._count_anew(datastore)
        raise ActionFailed(call)

    def _count_anew(self, datastore: Datastore) -> None:
        """Have the datastore monitored; where that fails its numbers are old, and what was done is done."""
        with suppress(ActionFailed):
            self.monitor(datastore)

    def _image_call(self, image: Image, datastore: Datastore, verb: str) -> Call:
        with self.lock:
            arguments = self._image_arguments(image, datastore)
        return self.scripts.datastore(datastore.ds_mad, verb, *arguments)

    def _image_arguments(self, image: Image, datastore: Datastore) -> tuple[list[str], str]:
        return self.action_arguments(image.xml(self.release) + datastore.xml(), image.identifier)

    def _allocate(
        self,
        datastore: Datastore,
        name: str,
        type: str,
        persistent: bool,
        size: int,
        attributes: Optional[Mapping[str, str]],
    ) -> Image:
        with self.lock:
            identifier = self.next_image_id
            self.next_image_id += 1
            now = int(time.time())
            image = Image(
                identifier,
                name or f"image-{identifier}",
                datastore.identifier,
                datastore.name,
                type=type,
                persistent=persistent,
                size=size,
                disk_type=datastore.disk_type,
                attributes={"DEV_PREFIX": "sd", **(attributes or {})},
                registered=now,
                modified=now,
            )
            image.become(ImageState.LOCKED)
            self.images.append(image)
            return image

    def use_image(self, image: Image, vm_id: int) -> None:
        """A VM takes the image; a persistent one only when nobody has it, unless it is shareable."""
        with self.lock:
            free = (ImageState.READY, ImageState.USED, *([ImageState.USED_PERS] if image.shareable else []))
            if image.state not in free or (image.persistent and image.vms and not image.shareable):
                raise Refused(f"Cannot acquire image {image.identifier}: its state is {image.state.name}.")
            image.vms.append(vm_id)
            image.become(ImageState.USED_PERS if image.persistent else ImageState.USED)

    def release_image(self, image: Image, vm_id: int, failed: bool = False) -> None:
        """A VM gives the image back; after a clean-up by force a persistent one is in ERROR."""
        with self.lock:
            if vm_id in image.vms:
                image.vms.remove(vm_id)
            if failed and image.persistent:
                image.become(ImageState.ERROR)
            elif not image.vms:
                image.become(ImageState.CLONE if image.cloning_operations else ImageState.READY)

    def enable_image(self, image: Image) -> None:
        """`oneimage enable`: what an administrator does with a persistent image in ERROR."""
        image.become(ImageState.READY)
