"""What a shell completes where a volume, node, VM, image or datastore is typed: those that LINSTOR and oned have now.

Nobody waits for long who has pressed Tab, or wants to read there what is wrong: without an answer nothing is completed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Callable

import click

from linstor_un import settings as settings_room
from linstor_un.cli.installation.oned_conf import DRIVER
from linstor_un.driver import configuration_path
from linstor_un.naming import ADD_ON

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from linstor_un.cluster.gateway import Gateway
    from linstor_un.opennebula.survey import Store

_PATIENCE_SECONDS = 1.0
_NOT_DONE = -1
# A word, and what is said of it beside.
Found = tuple[str, str]
Source = Callable[[], Iterable[Found]]


class _Completed:
    """A value that is completed."""

    source: Source

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return what begins so; click 7 does not ask."""
        del ctx, param
        from click.shell_completion import CompletionItem

        found = _in_time(self.source)
        return [CompletionItem(word, help=text) for word, text in found if word.startswith(incomplete)]


class Word(_Completed, click.types.StringParamType):
    """A name that is completed."""

    def __init__(self, source: Source) -> None:
        self.source = source


class Number(_Completed, click.IntRange):
    """A number of OpenNebula's that is completed."""

    def __init__(self, source: Source) -> None:
        super().__init__(0)
        self.source = source


def _in_time(source: Source) -> list[Found]:
    """Return what there is, nothing where that takes too long or cannot be told."""
    found: list[list[Found]] = []

    def look() -> None:
        try:
            found.append(sorted(set(source())))
        except Exception:  # whatever it is, a shell has no place for it
            return

    # A thread can be left alone, whatever it waits for.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    return found[0] if found else []


def _volumes() -> Iterator[Found]:
    """Yield volumes by their names in LINSTOR, and in OpenNebula's numbers where these say them."""
    from linstor_un.cluster import volumes as volumes_room

    names = settings_room.from_configuration(_configuration()).names
    for gateway in _gateways():
        for volume in volumes_room.of_all(gateway):
            yield volume.resource, ""
            number = volume.resource[len(names.prefix) + 1 :]
            is_disk = names.vm_id_of(volume.resource) is not None and "-disk-" in number
            if is_disk or names.image_id_of(volume.resource) is not None:
                yield number, ""


def _nodes() -> Iterator[Found]:
    from linstor_un.cluster import survey as survey_room

    yield from ((node.name, node.connection) for gateway in _gateways() for node in survey_room.nodes(gateway))


def _pools() -> Iterator[Found]:
    from linstor_un.cluster import pools as pools_room

    yield from ((pool.name, pool.provider) for gateway in _gateways() for pool in pools_room.of(gateway))


def _groups() -> Iterator[Found]:
    from linstor_un.cluster import survey as survey_room

    yield from ((group.name, "") for gateway in _gateways() for group in survey_room.groups(gateway))


def _datastores() -> Iterator[Found]:
    yield from ((str(item.datastore.datastore_id), item.datastore.name) for item in _stores())


def _image_datastores() -> Iterator[Found]:
    stores = [item for item in _stores(DRIVER, ADD_ON) if not item.is_system]
    yield from ((str(item.datastore.datastore_id), item.datastore.name) for item in stores)


def _targets() -> Iterator[Found]:
    yield from ((item.datastore.name, item.datastore.label) for item in _stores() if not item.is_system)


def _images() -> Iterator[Found]:
    yield from _pool("one.imagepool.info", "IMAGE")


def _named_images() -> Iterator[Found]:
    yield from _both(_images())


def _vms() -> Iterator[Found]:
    yield from _pool("one.vmpool.infoextended", "VM", _NOT_DONE)


def _named_vms() -> Iterator[Found]:
    yield from _both(_vms())


def _both(found: Iterable[Found]) -> Iterator[Found]:
    for number, name in found:
        yield number, name
        yield name, number


def _pool(method: str, kind: str, *more: int) -> Iterator[Found]:
    from linstor_un.opennebula import decoding, oned
    from linstor_un.opennebula import pools as pools_room

    for element in pools_room.paged(oned.Client(), method, kind, *more):
        yield decoding.text(element, "ID"), decoding.text(element, "NAME")


def _configuration() -> Mapping[str, str]:
    return settings_room.read_configuration(configuration_path())


def _stores(*drivers: str) -> list[Store]:
    from linstor_un.opennebula import survey

    return survey.of_drivers(*(drivers or (DRIVER,)))


def _gateways() -> Iterator[Gateway]:
    from linstor_un.cli import inventory

    stores = {item.datastore.datastore_id: item.datastore for item in _stores()}
    yield from inventory.gateways(_configuration(), stores)


VOLUME, NODE, POOL, GROUP = Word(_volumes), Word(_nodes), Word(_pools), Word(_groups)
TARGET, NAMED_IMAGE, NAMED_VM = Word(_targets), Word(_named_images), Word(_named_vms)
DATASTORE, IMAGE_DATASTORE, IMAGE, VM = Number(_datastores), Number(_image_datastores), Number(_images), Number(_vms)
