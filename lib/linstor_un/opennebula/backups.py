"""What oned says of a VM's backups: how they are to be made, and what there is of them (opennebula-contract.md, 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Optional

from linstor_un.errors import InvalidInput, NotFound
from linstor_un.opennebula import arguments, decoding, model, oned
from linstor_un.opennebula.decoding import number, required_number, text
from linstor_un.opennebula.model import Datastore, VirtualMachine

if TYPE_CHECKING:
    from lxml.etree import _Element

    from linstor_un.opennebula.oned import Parameter

NO_FREEZE = "NONE"
_FREEZES = frozenset({NO_FREEZE, "AGENT", "SUSPEND", "TRY"})
# In the place of an id: none.
NONE = -1


class Configuration(NamedTuple):
    """How a VM's backup is to be made; `last_increment_id` and `image_id` are NONE where a new chain begins.

    `bridge` is the host from which the backup datastore fetches the files, empty for the VM's own.
    """

    is_incremental: bool
    freeze: str
    last_increment_id: int
    image_id: int
    datastore_id: int
    bridge: str

    @property
    def continues_chain(self) -> bool:
        """Tell whether there is an increment before this one."""
        return self.is_incremental and self.last_increment_id != NONE

    def increment_id(self, known: Iterable[int]) -> int:
        """Return the id that oned gives to the increment to be made; full backups have 0, as the first of a chain has.

        Arguments: `known` are the ids of the chain's increments. oned counts on from the newest of them, which the VM
        may not know: an oned that was killed between the two has told it to the backup's image alone.
        """
        if not self.continues_chain:
            return 0
        return max(known, default=self.last_increment_id) + 1


class Order(NamedTuple):
    """A VM with the backup that is made of it; `has_failed` where all that is left to do is to clean up."""

    vm: VirtualMachine
    configuration: Configuration
    has_failed: bool


class Facts(NamedTuple):
    """What oned knows beyond the order: datastores by id, and when each increment of the chain was done.

    `increments` are seconds since the epoch, by the increments' ids.
    """

    datastores: Mapping[int, Datastore]
    increments: Mapping[int, int]


class BackupImage(NamedTuple):
    """A backup, with its datastore, in oned's own words for the datastore's driver, and the VM that it is of."""

    vm: VirtualMachine
    system_datastore: Datastore
    driver: str
    document: bytes


def decode(data: bytes) -> Order:
    """Read the <VM> that prebackup and postbackup get; raises InvalidInput."""
    tree = decoding.parse(decoding.decode(data), "VM")
    found = tree.find("BACKUPS/BACKUP_CONFIG")
    if found is None:
        raise InvalidInput("<BACKUPS/BACKUP_CONFIG> is missing from the action's XML: call it as OpenNebula does")
    return Order(model.virtual_machine(tree), _configuration(found), text(tree, "BACKUP_RESULT").upper() == "FAILURE")


def _configuration(tree: _Element) -> Configuration:
    freeze = text(tree, "FS_FREEZE").upper() or NO_FREEZE
    if freeze not in _FREEZES:
        raise InvalidInput(f'FS_FREEZE="{freeze[:40]}" is not valid: set it to NONE, AGENT or SUSPEND')
    if text(tree, "INTERACTIVE").upper() == "YES":
        raise InvalidInput('INTERACTIVE="YES" backups are not possible with linstor_un: set INTERACTIVE to NO')
    found = [number(tree, name) for name in ("LAST_INCREMENT_ID", "INCREMENTAL_BACKUP_ID", "LAST_DATASTORE_ID")]
    last, image, datastore = (NONE if item is None else item for item in found)
    is_incremental, bridge = text(tree, "MODE").upper() == "INCREMENT", text(tree, "LAST_BRIDGE")
    return Configuration(is_incremental, freeze, last, image, datastore, bridge and arguments.hostname(bridge))


def ask(system_datastore_id: int, configuration: Configuration, answer_seconds: int) -> Facts:
    """Return what oned knows of the datastores and of the chain, in one request answered within `answer_seconds`.

    Raises OnedUnreachable, and InvalidInput for a datastore that oned does not know.
    """
    wanted = [number for number in (system_datastore_id, configuration.datastore_id) if number != NONE]
    calls: list[tuple[str, tuple[Parameter, ...]]] = [("one.datastore.info", (number, True)) for number in wanted]
    if configuration.last_increment_id != NONE:
        calls.append(("one.image.info", (configuration.image_id,)))
    answers = oned.call(calls, answer_seconds)
    datastores = {}
    for identifier, answer in zip(wanted, answers):
        if answer is None:
            raise InvalidInput(f"oned knows no datastore {identifier}: `onedatastore list` shows those that exist")
        datastores[identifier] = model.datastore(decoding.parse(answer, "DATASTORE"))
    chain = answers[-1] if configuration.last_increment_id != NONE else None
    return Facts(datastores, _increments(decoding.parse(chain, "IMAGE")) if chain else {})


def _increments(image: _Element) -> Mapping[int, int]:
    found = image.iterfind("BACKUP_INCREMENTS/INCREMENT")
    return {required_number(item, "ID"): number(item, "DATE") or 0 for item in found}


def ask_image(
    vm_id: int, image_id: int, increment_id: int, system_datastore_id: int, answer_seconds: int
) -> BackupImage:
    """Return a VM and a backup of it, in two requests: only the image says in which datastore it is.

    Of an older increment than the newest, which NONE stands for, the datastore's drivers find the right folder only
    where the message names it as well. Raises OnedUnreachable, NotFound for what oned does not know, and InvalidInput.
    """
    calls: list[tuple[str, tuple[Parameter, ...]]] = [
        ("one.vm.info", (vm_id,)),
        ("one.image.info", (image_id,)),
        ("one.datastore.info", (system_datastore_id, True)),
    ]
    vm, image, system = map(_known, oned.call(calls, answer_seconds), ("VM", "backup image", "datastore"))
    datastore_id = required_number(decoding.parse(image, "IMAGE"), "DATASTORE_ID")
    store = _known(oned.call([("one.datastore.info", (datastore_id, True))], answer_seconds)[0], "datastore")
    driver = text(decoding.parse(store, "DATASTORE"), "DS_MAD")
    chosen = b"" if increment_id == NONE else b"<TEMPLATE><INCREMENT_ID>%d</INCREMENT_ID></TEMPLATE>" % increment_id
    document = b"".join([b"<DS_DRIVER_ACTION_DATA>", store, vm, image, chosen, b"</DS_DRIVER_ACTION_DATA>"])
    machine = model.virtual_machine(decoding.parse(vm, "VM"))
    return BackupImage(machine, model.datastore(decoding.parse(system, "DATASTORE")), driver, document)


def _known(answer: Optional[bytes], what: str) -> bytes:
    if answer is None:
        raise NotFound(f"oned no longer knows the {what} that the restore is for: look with `onevm show` and retry")
    return answer
