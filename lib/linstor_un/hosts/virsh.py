"""Holding a running VM still on its host for the moment that a snapshot takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Callable

from linstor_un import log
from linstor_un.errors import CommandFailed, DriverError, HostUnreachable
from linstor_un.hosts.devices import WAIT_FOR_DEVICE
from linstor_un.hosts.runner import Feed, Host, Step

LIBVIRT = """
[ ! -r /var/tmp/one/etc/vmm/kvm/kvmrc ] || . /var/tmp/one/etc/vmm/kvm/kvmrc >/dev/null 2>&1 || true
uri=${LIBVIRT_URI:-qemu:///system}
"""
RUNNING, HALTED, SAVED, GONE, UNKNOWN = "running", "halted", "saved", "gone", "unknown"
_UNFROZEN = "unfrozen"
# How a VM is held, in the words of FS_FREEZE; TRY is what snapshots of disks do.
AGENT, SUSPEND, TRY = "AGENT", "SUSPEND", "TRY"
# Holds the VM until a word comes, or the end of stdin, or the time is up: no driver that is killed, and no front-end
# that loses its power, leaves a frozen VM behind.
_HOLD = (
    LIBVIRT
    + """
domain=$1 seconds=$2 limit=$3 how=$4 held= late=
freeze() {
    [ "$how" != SUSPEND ] || return 1
    held=frozen
    timeout "$seconds" virsh --connect "$uri" domfsfreeze "$domain" >/dev/null 2>&1
}
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
        [ -z "$held" ] || [ "$tries" -lt 3 ] || { echo "$domain stays $held: let it go with virsh" >&2; exit 1; }
        [ -z "$held" ] || sleep 0.2
    done
    # An agent that has not answered in time freezes when it comes to it, which may be now that the VM runs again.
    [ -z "$late" ] || timeout "$limit" virsh --connect "$uri" domfsthaw "$domain" >/dev/null 2>&1 || true
    exit "$status"
}
trap release EXIT
trap 'exit 1' HUP INT TERM PIPE
freeze || {
    [ "$?" -ne 124 ] || late=yes
    # One that is frozen already was left so by a session that was killed. One that hangs does nothing else now.
    [ "$how" = SUSPEND ] || [ -n "$late" ] ||
        timeout "$seconds" virsh --connect "$uri" domfsthaw "$domain" >/dev/null 2>&1 || true
    held=
    # The agent may have taken its time: the driver makes ready again before the VM stands still.
    echo unfrozen
    read -r word
    [ "$how" = AGENT ] || held=suspended
    [ "$how" = AGENT ] || timeout "$limit" virsh --connect "$uri" suspend "$domain" >/dev/null || {
        timeout "$limit" virsh --connect "$uri" resume "$domain" >/dev/null 2>&1 || true
        held=
        echo "virsh suspend $domain failed or took more than $limit s" >&2
        exit 1
    }
}
echo "${held:-running}"
word=$(timeout "$limit" head -n 1) || true
[ -n "$word" ] || { echo "$domain was held for $limit s without an answer and is let go" >&2; exit 1; }
"""
)

_LET_GO = (
    LIBVIRT
    + """
timeout "$2" virsh --connect "$uri" domfsthaw "$1" >/dev/null 2>&1 || true
case $(timeout "$2" virsh --connect "$uri" domstate "$1" 2>/dev/null) in
paused) timeout "$2" virsh --connect "$uri" resume "$1" >/dev/null ;;
esac
"""
)


@contextmanager
def held(host: Host, domain: str, make_ready: Callable[[], object], how: str = TRY) -> Iterator[None]:
    """Keep the VM's file systems frozen through the guest agent for the length of the block, else the VM suspended.

    With `how` AGENT a VM whose agent does not answer runs on, with SUSPEND no agent is asked.
    Thawed or resumed always, at the latest after HOLD_TIMEOUT; `make_ready` is called before the VM is touched, and
    again before it is suspended for an agent that has not answered. Raises CommandFailed where the VM can be neither
    held nor let go, or was let go before the block had ended, and HostUnreachable where virsh does not end there.
    """
    settings = host.settings
    values = (domain, settings.freeze_timeout_seconds, settings.hold_timeout_seconds, how)
    # Each of these is tried and taken back at most.
    longest_seconds = settings.ssh_connect_timeout_seconds + 2 * (
        settings.freeze_timeout_seconds + settings.hold_timeout_seconds
    )
    make_ready()
    feed = host.feed(f"Holding {domain} for a snapshot", Step(_HOLD, values))
    try:
        state = feed.line(longest_seconds)
        if state == _UNFROZEN:
            with feed:
                make_ready()
                feed.say("suspend")
            state = feed.line(longest_seconds)
    except HostUnreachable:
        # Its virsh cannot be ended: neither can the script that waits for it.
        feed.stop()
        _let_go_anew(host, domain)
        raise
    if not state:
        _finish(feed, host, domain)
        raise CommandFailed(f"{domain} on {host.name} could not be held for a snapshot: see its libvirt log and retry")
    if state == RUNNING:
        log.warning(f"the guest agent of {domain} does not freeze its file systems: their snapshots are as of a crash")
    log.info(f"{domain} is {state}")
    try:
        yield
    except BaseException:
        try:
            _let_go(feed, host, domain)
        except DriverError as error:
            log.error(f"{error}")
        raise
    _let_go(feed, host, domain)


def _let_go(feed: Feed, host: Host, domain: str) -> None:
    try:
        feed.say("go on")
    except BrokenPipeError:
        log.debug("the VM was let go before")
    _finish(feed, host, domain)


def _finish(feed: Feed, host: Host, domain: str) -> None:
    """Wait for the script's end; where it has failed it may have been killed, so that nobody there lets the VM go."""
    try:
        feed.finish(host.settings.command_timeout_seconds)
    except DriverError:
        _let_go_anew(host, domain)
        raise


def _let_go_anew(host: Host, domain: str) -> None:
    try:
        host.run(f"Letting {domain} go", Step(_LET_GO, (domain, host.settings.freeze_timeout_seconds)))
    except DriverError as error:
        log.error(f"{error}; see with `virsh domstate {domain}` there whether it runs")


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
domain=$1 device=$2 seconds=$3 directory=$4 datastores=$5 vm=$6
# Restored before, and the action ended before it knew.
[ "$(virsh --connect "$uri" domstate "$domain" 2>/dev/null | head -n 1)" != running ] || exit 0
wait_for_device "$device" 1 "$seconds"
mkdir -p "$directory"
xml=$(virsh --connect "$uri" save-image-dumpxml "$device")
# Whatever system datastore the VM was saved in, its files are in this one now; oned writes the path with two slashes.
doubled="${datastores%/*}//${datastores##*/}"
xml=$(printf '%s\\n' "$xml" |
    sed -e "s%$datastores/[0-9][0-9]*/$vm/%$directory/%g" -e "s%$doubled/[0-9][0-9]*/$vm/%$directory/%g")
tries=0
until message=$(printf '%s\\n' "$xml" | virsh --connect "$uri" restore "$device" --xml /dev/stdin --running 2>&1); do
    tries=$((tries + 1))
    [ "$tries" -lt "${VIRSH_RETRIES:-3}" ] || { echo "$message" >&2; exit 1; }
    sleep 1
done
# As kvm/restore does: the guest's clock stands where it stood when the VM was saved. Nobody waits for it, and it has
# left this session, which ends with its connection, before the script does.
[ "${SYNC_TIME:-no}" != yes ] || setsid sh -c '
    for try in 1 2 3 4; do
        timeout 30 virsh --connect "$1" domtime --sync "$2" && break
        sleep 5
    done </dev/null >/dev/null 2>&1 &
' sh "$uri" "$domain"
"""
)

_RUN_ON = (
    LIBVIRT
    + """
virsh --connect "$uri" domjobabort "$1" >/dev/null 2>&1 || true
virsh --connect "$uri" resume "$1" >/dev/null 2>&1 || true
"""
)

_STATE = (
    LIBVIRT
    + """
if found=$(virsh --connect "$uri" domstate "$1" 2>/dev/null); then
    case $found in running*) echo running ;; *) echo halted ;; esac
elif [ -n "$2" ] && virsh --connect "$uri" save-image-dumpxml "$2" >/dev/null 2>&1; then
    echo saved
elif names=$(virsh --connect "$uri" list --all --name) && ids=$(virsh --connect "$uri" list --all --uuid) &&
    ! printf '%s\\n' "$names" "$ids" | grep -qxF "$1"; then
    echo gone
else
    echo unknown
fi
"""
)

_STOCK = """
receive | "/var/tmp/one/vmm/kvm/$1" "$2" "$3" "$4" "$5" "$6"
"""


def save(host: Host, domain: str, device: str, size_bytes: int) -> None:
    """Suspend a domain, its memory on the device; where that fails the domain runs on."""
    seconds = host.settings.device_timeout_seconds
    host.run(f"Saving {domain}", Step(_SAVE, (domain, device, size_bytes, seconds), is_long=True))


def state(host: Host, domain: str, device: str = "") -> str:
    """Return RUNNING or HALTED for a domain that there is, SAVED for one that is on the device, else GONE.

    UNKNOWN where libvirt does not say that there is none.
    """
    return host.run(f"Looking for {domain}", Step(_STATE, (domain, device))).strip()


def stop_saving(host: Host, domain: str, device: str) -> str:
    """Let a domain that is being saved run on where it still can; return as `state`."""
    return host.run(f"Looking for {domain}", Step(_RUN_ON, (domain,)), Step(_STATE, (domain, device))).strip()


def restore(host: Host, domain: str, device: str, path: str) -> None:
    """Resume a domain from the device; `path` is its checkpoint's in the system datastore that it is in now."""
    directory = path.rpartition("/")[0]
    above, _, vm = directory.rpartition("/")
    values = (domain, device, host.settings.device_timeout_seconds, directory, above.rpartition("/")[0], vm)
    host.run(f"Restoring the VM from {device}", Step(_RESTORE, values, is_long=True))


def stock_action(host: Host, verb: str, arguments: Sequence[str], document: bytes) -> None:
    """Run the stock hypervisor action on the host, with its XML on stdin, as one_vmm_exec does."""
    with host.feed(f"vmm/kvm/{verb}", Step(_STOCK, (verb, *arguments))) as feed:
        feed.send(document)
        feed.end()
        feed.finish()
