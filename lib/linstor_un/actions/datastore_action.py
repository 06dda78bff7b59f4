"""What all datastore actions begin with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Optional

from linstor_un import hiding, locks
from linstor_un import settings as settings_room
from linstor_un.cluster.gateway import Gateway
from linstor_un.driver import Call, configuration_path, remotes
from linstor_un.errors import InvalidInput
from linstor_un.hosts import sources
from linstor_un.hosts.sources import ImageSource
from linstor_un.naming import Names
from linstor_un.opennebula import arguments, decoding, model, paths
from linstor_un.opennebula.model import Datastore, Image
from linstor_un.settings import Settings


class DatastoreAction(NamedTuple):
    """The decoded input of a datastore action; `own_files` are the driver's, which no image is made of."""

    image: Optional[Image]
    datastore: Datastore
    settings: Settings
    document: bytes
    own_files: tuple[str, ...]

    @property
    def names(self) -> Names:
        """Return the names that this OpenNebula gives in LINSTOR."""
        return self.settings.names

    def lock(self, resource: str, interrupt_holder: bool = False) -> AbstractContextManager[bool]:
        """Return the lock of a volume."""
        return locks.of_volume(self.settings, resource, interrupt_holder)

    def gateway(self) -> Gateway:
        """Return the way to this datastore's LINSTOR."""
        return Gateway(self.settings)

    def need_image(self) -> Image:
        """Return the image that the action is about; raises InvalidInput where there is none."""
        if self.image is None:
            raise InvalidInput("<IMAGE> is missing from the action's XML: call it as OpenNebula does")
        return self.image


def decode(call: Call, image: str = "with id") -> DatastoreAction:
    """Decode and check the input.

    `image` is `with id`, `with another's id` (export), `without id` (stat) or `none` (monitor).
    Raises InvalidInput and InvalidSetting.
    """
    document, identifier = decoding.action_data(call.arguments, call.standard_input)
    tree = model.parse_action_data(document)
    datastore = model.action_datastore(tree)
    found = None if image == "none" else model.action_image(tree, with_id=image != "without id")
    number = arguments.identifier(identifier, "The action's id")
    if found is not None and image == "with id" and number != found.image_id:
        raise InvalidInput(f"The action is called for image {number} and its XML is of image {found.image_id}")
    own = settings_room.for_datastore(call.configuration, datastore.attributes, datastore.label)
    return DatastoreAction(found, datastore, own, document, _own_files(call.configuration, datastore.attributes))


def _own_files(*templates: Mapping[str, str]) -> tuple[str, ...]:
    """Return linstor_un.conf and what it and the datastore name for LINSTOR; what one overrides is a secret as well."""
    named = {template.get(key, "").strip() for template in templates for key in settings_room.FILES}
    return (configuration_path(), *sorted(named - {""}))


def owner(action: DatastoreAction, image: Image) -> Mapping[str, str]:
    """Return the properties by which the image's volume names its image, and no other image that had the same id."""
    names = action.names
    return {**names.image_properties(image.image_id), names.registration: str(image.registered)}


def open_source(action: DatastoreAction, image: Image) -> ImageSource:
    """Open what the image's PATH names; raises ForbiddenPath and UnusableImage."""
    settings = action.settings
    if not image.path:
        raise InvalidInput("<IMAGE/PATH> is missing from the action's XML: give the image a PATH")
    if any(ord(character) < 32 for character in image.path):
        raise InvalidInput("<IMAGE/PATH> has control characters: correct PATH")
    scheme = image.path.partition("://")[0] if "://" in image.path else ""
    if not scheme:
        if not image.path.startswith("/"):
            raise InvalidInput(f"PATH {image.path[:200]!r} is neither a URL nor an absolute path: correct PATH")
        descriptor = paths.open_image(
            image.path, settings.safe_directories, settings.restricted_directories, action.own_files
        )
        return sources.from_file(
            image.path, descriptor, image.checksums, settings.limit_transfer_bandwidth, not settings.no_decompress
        )
    if scheme not in sources.SCHEMES:
        raise InvalidInput(
            f"PATH {hiding.url(image.path)[:200]!r} has a scheme that is not allowed: use "
            f"{', '.join(sorted(sources.SCHEMES))}"
        )
    if not sources.is_plain_url(image.path):
        raise InvalidInput(
            f"PATH {hiding.url(image.path)[:200]!r} is no plain {scheme}:// URL: write blanks and special characters "
            "as %XX, or rename the file"
        )
    if scheme == "ssh":
        paths.check_ssh_url(image.path, settings.safe_directories, settings.restricted_directories, action.own_files)
    return sources.from_url(
        image.path,
        f"{remotes()}/datastore/downloader.sh",
        {"DRV_ACTION": _without_token(action.document)},
        image.checksums,
        settings.limit_transfer_bandwidth,
        not settings.no_decompress,
        settings.source_timeout_seconds,
    )


def _without_token(document: bytes) -> str:
    """Return the base64 of the action's XML for the downloader, whose children all see it, without LINSTOR's token."""
    import binascii

    from lxml import etree

    tree = model.parse_action_data(document)
    tokens = tree.findall("DATASTORE/TEMPLATE/LS_TOKEN")
    for token in tokens:
        token.clear()
    return binascii.b2a_base64(etree.tostring(tree) if tokens else document, newline=False).decode()
