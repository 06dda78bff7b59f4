"""Holding a running VM still on its host for the moment that a snapshot takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from linstor_un import log
from linstor_un.errors import CommandFailed, DriverError
from linstor_un.hosts.devices import WAIT_FOR_DEVICE
from linstor_un.hosts.runner import Feed, Host, Step

LIBVIRT = """
[ ! -r /var/tmp/one/etc/vmm/kvm/kvmrc ] || . /var/tmp/one/etc/vmm/kvm/kvmrc >/dev/null 2>&1 || true
uri=${LIBVIRT_URI:-qemu:///system}
"""
# Holds the VM until a word comes, or the end of stdin: a driver that is killed leaves no VM frozen behind.
_HOLD = (
    LIBVIRT
    + """
domain=$1 seconds=$2 held=
release() {
    status=$?
    trap '' HUP INT TERM PIPE
    tries=0
    while [ -n "$held" ]; do
        case $held in
        frozen) timeout 30 virsh --connect "$uri" domfsthaw "$domain" >/dev/null && held= ;;
        suspended) timeout 30 virsh --connect "$uri" resume "$domain" >/dev/null && held= ;;
        esac
        tries=$((tries + 1))
        [ -z "$held" ] || [ "$tries" -lt 3 ] || { echo "$domain stays $held" >&2; exit 1; }
        [ -z "$held" ] || sleep 0.2
    done
    exit "$status"
}
trap release EXIT
trap 'exit 1' HUP INT TERM PIPE
held=frozen
if ! timeout "$seconds" virsh --connect "$uri" domfsfreeze "$domain" >/dev/null 2>&1; then
    # An agent that answers too late freezes after all: thaw whatever it did, and hold the whole VM instead.
    timeout 10 virsh --connect "$uri" domfsthaw "$domain" >/dev/null 2>&1 || true
    held=suspended
    virsh --connect "$uri" suspend "$domain" >/dev/null || { held=; exit 1; }
fi
echo "$held"
read -r word || exit 1
"""
)


@contextmanager
def held(host: Host, domain: str, freeze_timeout_seconds: int) -> Iterator[None]:
    """Keep the VM's file systems frozen through the guest agent for the length of the block, else the VM suspended.

    Thawed or resumed always. Raises CommandFailed where it can be neither held nor let go.
    """
    feed = host.feed(f"Freezing {domain}", Step(_HOLD, (domain, freeze_timeout_seconds)))
    state = feed.stdout.readline().decode().strip()
    if not state:
        feed.finish()
        raise CommandFailed(f"{domain} on {host.name} could not be held for a snapshot: see its libvirt log and retry")
    log.info(f"{domain} is {state}")
    try:
        yield
    except BaseException:
        _let_go(feed, quietly=True)
        raise
    _let_go(feed, quietly=False)


def _let_go(feed: Feed, quietly: bool) -> None:
    try:
        feed.stdin.write(b"go on\n")
        feed.stdin.flush()
        feed.finish()
    except (DriverError, OSError) as error:
        if not quietly:
            raise
        log.error(f"{error}")


_SAVE = (
    WAIT_FOR_DEVICE
    + LIBVIRT
    + """
domain=$1 device=$2 bytes=$3 seconds=$4
wait_for_device "$device" "$bytes" "$seconds"
tries=0
until message=$(virsh --connect "$uri" save "$domain" "$device" 2>&1); do
    tries=$((tries + 1))
    case $message in
    *"active block job"*) [ "$tries" -ge 3 ] || { sleep 5; continue; } ;;
    esac
    virsh --connect "$uri" resume "$domain" >/dev/null 2>&1 || true
    echo "$message" >&2
    exit 1
done
"""
)

_RESTORE = (
    WAIT_FOR_DEVICE
    + LIBVIRT
    + """
device=$1 seconds=$2 directory=$3 datastores=$4 vm=$5
wait_for_device "$device" 1 "$seconds"
mkdir -p "$directory"
xml=$(mktemp "$directory/checkpoint.xml.XXXXXX")
trap 'rm -f "$xml" "$xml.new"' EXIT
virsh --connect "$uri" save-image-dumpxml "$device" >"$xml"
# Whatever system datastore the VM was saved in, its files are in this one now; oned writes the path with two slashes.
doubled="${datastores%/*}//${datastores##*/}"
sed -e "s%$datastores/[0-9][0-9]*/$vm/%$directory/%g" -e "s%$doubled/[0-9][0-9]*/$vm/%$directory/%g" "$xml" >"$xml.new"
tries=0
until message=$(virsh --connect "$uri" restore "$device" --xml "$xml.new" --running 2>&1); do
    tries=$((tries + 1))
    [ "$tries" -lt 3 ] || { echo "$message" >&2; exit 1; }
    sleep 1
done
"""
)

_STOCK = """
exec "/var/tmp/one/vmm/kvm/$1" "$2" "$3" "$4" "$5" "$6"
"""


def save(host: Host, domain: str, device: str, size_bytes: int) -> None:
    """Suspend a domain, its memory on the device; where that fails the domain runs on."""
    seconds = host.settings.device_timeout_seconds
    host.run(f"Saving {domain}", Step(_SAVE, (domain, device, size_bytes, seconds)))


def restore(host: Host, device: str, path: str) -> None:
    """Resume a domain from the device; `path` is its checkpoint's in the system datastore that it is in now."""
    directory = path.rpartition("/")[0]
    above, _, vm = directory.rpartition("/")
    values = (device, host.settings.device_timeout_seconds, directory, above.rpartition("/")[0], vm)
    host.run(f"Restoring the VM from {device}", Step(_RESTORE, values))


def stock_action(host: Host, verb: str, arguments: Sequence[str], document: bytes) -> None:
    """Run the stock hypervisor action on the host, with its XML on stdin, as one_vmm_exec does."""
    feed = host.feed(f"vmm/kvm/{verb}", Step(_STOCK, (verb, *arguments)))
    try:
        feed.stdin.write(document)
    except BrokenPipeError:
        pass
    feed.finish()
