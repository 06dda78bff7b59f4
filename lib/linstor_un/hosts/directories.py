"""The VM's directory on a host: everything in it that is not a link to a volume."""

from __future__ import annotations

import os
import re
import select
import subprocess
from collections.abc import Iterable, Sequence

from linstor_un import log
from linstor_un.errors import CommandFailed
from linstor_un.hosts.devices import FIND_LINK, MAKE_DIRECTORY
from linstor_un.hosts.runner import Feed, Host, Step, joined
from linstor_un.undo import go_on_undisturbed

# Removes $1, unless $2 is keep, and prints each device that was linked in it and is linked in no other VM's directory.
_REMOVE = (
    FIND_LINK
    + """
remove_directory() {
    case $1 in */[0-9]*/[0-9]*) ;; *) echo "$1 is not a VM's directory" >&2; exit 1 ;; esac
    linked=
    for disk in "$1"/disk.*; do
        [ -L "$disk" ] && linked="$linked$(readlink "$disk")
"
    done
    if [ "${2:-remove}" != keep ]; then
        rm -rf -- "$1"
        find "${1%/*/*}" -mindepth 2 -maxdepth 2 -name "${1##*/}" -lname "$1" -delete 2>/dev/null || true
    fi
    printf '%s' "$linked" | while read -r device; do
        other=$(find_link "${1%/*/*}" "$device" "${1##*/}")
        [ -n "$other" ] || echo "$device"
    done
}
"""
)

_REMOVE_ONLY = (
    _REMOVE
    + """
remove_directory "$1"
"""
)

# Waits for the target's mark, packs unless it sees the mark itself, waits for the word, and removes.
_SEND = (
    _REMOVE
    + """
read -r go
if [ -e "$1/$2" ]; then
    echo "Total bytes written: shared" >&2
    exit 0
fi
if cd "$1" 2>/dev/null; then
    # What find could not list tar would not miss, and it would be removed: a file that is not there lets tar fail too.
    { find . -mindepth 1 ! -name '.linstor_un.*' \\( -type f -o -type d -o -type l ! -name 'disk.*' \\) -print0 ||
        printf '%s\\0' ./.linstor_un.not-all; } |
        tar --create --sparse --null --no-recursion --files-from=- --file=- --totals
    cd /
else
    echo "Total bytes written: 0" >&2
fi
read -r word
if [ "$word" = remove ]; then remove_directory "$1"; fi
"""
)

_REMOVE_UNMARKED = (
    _REMOVE
    + """
if [ -e "$1/$2" ]; then remove_directory "$1" keep; else remove_directory "$1"; fi
"""
)

# A mark is there for the moment in which the other host looks for it; one that a kill has left goes with a later one.
_SET_MARK = """
set_mark() {
    find . -maxdepth 1 -name '.linstor_un.*' -type f -mmin +60 -exec rm -f {} +
    mark=$1
    trap 'rm -f "$mark"' EXIT
    trap 'exit 1' HUP INT TERM PIPE
    : >"$mark"
    echo ready
}
"""

_MARK = (
    _SET_MARK
    + """
cd "$1" 2>/dev/null || { echo ready; exit 0; }
set_mark "$2"
cat >/dev/null
"""
)

# Copies all of $1 to $2 but the links to volumes.
_COPY_HERE = (
    MAKE_DIRECTORY
    + """
make_directory "$2"
if [ "$1" != "$2" ] && cd "$1" 2>/dev/null; then
    find . -mindepth 1 -maxdepth 1 ! -name '.linstor_un.*' \\( ! -type l -o ! -name 'disk.*' \\) \\
        -exec cp -a --remove-destination --sparse=always -t "$2" -- {} +
    cd /
fi
"""
)

_RECEIVE = (
    MAKE_DIRECTORY
    + _SET_MARK
    + """
make_directory "$1"
cd "$1"
set_mark "$2"
read -r what
rm -f "$mark"
[ "$what" != archive ] || receive | tar --extract --sparse --file=-
"""
)

_MOVE_HERE = (
    _REMOVE
    + _COPY_HERE
    + """
[ "$1" = "$2" ] || remove_directory "$1"
"""
)

# Always under the same name, which the next run takes over from one that was killed, and which is no disk's.
_WRITE_FILE = (
    MAKE_DIRECTORY
    + """
make_directory "$1"
new=$1/.${2##*/}.new
trap 'rm -f "$new"' EXIT
trap 'exit 1' HUP INT TERM PIPE
# Whatever lies there under that name, a link above all, is not written through.
rm -f "$new"
receive >"$new"
mv -fT "$new" "$2"
"""
)

_ALIAS = """
[ -e "$2" ] || [ -L "$2" ] || { mkdir -p "${2%/*}" && ln -s "$1" "$2"; }
"""

_FORGET_ALIASES = """
find "${1%/*/*}" -mindepth 2 -maxdepth 2 -name "${1##*/}" -lname "$1" -delete 2>/dev/null || true
"""

_SHARED = "shared"
_REMOVE_WORD = b"remove\n"


def move(source: Host, directory: str, target: Host, target_directory: str) -> list[str]:
    """Move a VM's directory to another host or path, over one connection to each; links to volumes are dropped.

    Removed at the source only when the target has everything, and not at all where both see the same directory.
    Returns the devices that no VM's disk on the source is a link to any more.

    Raises HostUnreachable and CommandFailed; the source is then as it was. What asks the action to stop is heard only
    until the source is about to be removed: the VM is at the target then, whatever the action says.
    """
    if source.name.lower() == target.name.lower():
        go_on_undisturbed()
        return source.run(f"Moving {directory}", Step(_MOVE_HERE, (directory, target_directory))).splitlines()
    return _transport(source, directory, target, target_directory, _REMOVE_WORD)


def copy(source: Host, directory: str, target: Host, target_directory: str, *after: Step) -> None:
    """Copy a VM's directory as `move` does, and keep the source's; then make the steps on the target."""
    if source.name.lower() != target.name.lower():
        _transport(source, directory, target, target_directory, b"keep\n", after)
    else:
        source.run(f"Copying {directory}", Step(_COPY_HERE, (directory, target_directory)), *after)


def _transport(
    source: Host, directory: str, target: Host, target_directory: str, last_word: bytes, after: Sequence[Step] = ()
) -> list[str]:
    mark = _new_mark()
    sender = source.start(Step(_SEND, (directory, mark)))
    receive = joined([Step(_RECEIVE, (target_directory, mark)), *after])
    try:
        with target.feed(f"Copying {directory} from {source.name}", receive) as feed:
            return _shake_hands(source, directory, target, sender, feed, last_word)
    except BaseException:
        source.stop(sender)
        raise


def _new_mark() -> str:
    return f".linstor_un.{os.uname().nodename}.{os.getpid()}"


def _shake_hands(
    source: Host, directory: str, target: Host, sender: subprocess.Popen[bytes], feed: Feed, last_word: bytes
) -> list[str]:
    if not feed.line():
        feed.finish()
    told, said = _forward(sender, feed) if _tell(sender, b"go\n") else ("", b"")
    if not told:
        _, errors = sender.communicate()
        source.judge(f"Reading {directory}", sender.wait(), said + errors)
        raise CommandFailed(f"Reading {directory} on {source.name} ended early: retry")
    feed.finish()
    if told == _SHARED:
        log.info(f"{source.name} and {target.name} share {directory}")
        sender.wait()
        return []
    if last_word == _REMOVE_WORD:
        go_on_undisturbed()
    try:
        unlinked, errors = sender.communicate(last_word, source.settings.command_timeout_seconds)
    except subprocess.TimeoutExpired:
        raise source.overdue(f"Removing {directory}") from None
    source.judge(f"Removing {directory}", sender.returncode, said + errors)
    log.info(f"took {directory} from {source.name} to {target.name}")
    return unlinked.decode("utf-8", "replace").splitlines()


def _tell(process: subprocess.Popen[bytes], word: bytes) -> bool:
    assert process.stdin is not None
    try:
        process.stdin.write(word)
        process.stdin.flush()
    except BrokenPipeError:
        return False
    return True


def _forward(sender: subprocess.Popen[bytes], feed: Feed) -> tuple[str, bytes]:
    """Pass the archive on until all of it has come, as tar counts it on stderr.

    Returns the count, empty where the archive ended early, and all that came on stderr. The end of the stream is no
    sign: the connection stays open for the word that everything has arrived.
    """
    assert sender.stdout is not None and sender.stderr is not None
    data, messages = sender.stdout.fileno(), sender.stderr.fileno()
    passed = 0
    said = b""
    while True:
        total = re.search(rb"Total bytes written: (\w+)", said)
        if total and (total.group(1) == _SHARED.encode() or int(total.group(1)) <= passed):
            feed.end() if passed else feed.say("nothing")
            return total.group(1).decode(), said
        ready, _, _ = select.select([data, messages], [], [])
        # What it says comes first: the end of the data is no failure where it has said that there is none to send.
        if messages in ready:
            text = os.read(messages, 1 << 16)
            if not text:
                return "", said
            said += text
        elif data in ready:
            block = os.read(data, 1 << 20)
            if not block:
                return "", said
            if not passed:
                feed.say("archive")
            feed.send(block)
            passed += len(block)


def remove(host: Host, directory: str, *after: Step) -> list[str]:
    """Remove a VM's directory and make the steps; return the devices that no VM's disk there is a link to any more."""
    unlinked = host.run(f"Removing {directory}", Step(_REMOVE_ONLY, (directory,)), *after).splitlines()
    log.info(f"removed {directory} on {host.name}")
    return unlinked


def alias(directory: str, path: str) -> Step:
    """Let the VM's directory be found at `path` too, as long as it is there and nothing else is.

    A VM that was moved live within a host to another system datastore keeps its disks' old paths until it is started or
    restored again, also where it migrates to (opennebula-seen.md, 9).
    """
    return Step(_ALIAS, (directory, path))


def forget_aliases(directory: str) -> Step:
    """Remove the paths at which `alias` let a VM's directory be found."""
    return Step(_FORGET_ALIASES, (directory,))


def remove_unless_shared(left: Host, stays: Host, directory: str) -> list[str]:
    """Remove a VM's directory on the host that it has left; not where the host that it is on sees the same one.

    Returns the devices that no VM's disk on `left` is a link to any more. Raises HostUnreachable, for `stays` too: what
    cannot be told apart is not removed.
    """
    mark = _new_mark()
    feed = stays.feed(f"Marking {directory}", Step(_MARK, (directory, mark)))
    try:
        if not feed.line():
            feed.finish()
        return left.run(f"Removing {directory}", Step(_REMOVE_UNMARKED, (directory, mark))).splitlines()
    finally:
        feed.stop()


def write_file(host: Host, path: str, blocks: Iterable[bytes]) -> None:
    """Put what the blocks make up at `path` on the host, at once or, where they end in an error, not at all."""
    step = Step(_WRITE_FILE, (path.rpartition("/")[0], path))
    with host.feed(f"Copying {path}", step) as feed:
        for block in blocks:
            feed.send(block)
        feed.end()
        feed.finish()
