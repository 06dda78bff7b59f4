"""Filling volumes: from a stream, from a staged image file, from another volume, and with zeroes.

A zero in the source becomes a zero in the target, whatever the pool held before: where a fresh volume is known to read
zero, zeroes are skipped and thin pools stay thin; elsewhere they are written, and so is the rest of the device.
"""

from __future__ import annotations

from typing import NamedTuple

from linstor_un.hosts.devices import WAIT_FOR_DEVICE
from linstor_un.hosts.runner import Feed, Host, Step

_ZERO_RANGE = """
zero_bytes() {
    [ "$3" -eq 0 ] || dd if=/dev/zero of="$1" bs=1M seek="$2" count="$3" oflag=seek_bytes \\
        iflag=count_bytes,fullblock conv=notrunc,nocreat,fsync status=none
}
zero_range() {
    from=$((($2 + 511) / 512 * 512)) to=$(($3 / 512 * 512))
    if [ "$from" -ge "$to" ]; then
        zero_bytes "$1" "$2" $(($3 - $2))
        return
    fi
    zero_bytes "$1" "$2" $((from - $2))
    blkdiscard -z -o "$from" -l $((to - from)) "$1" 2>/dev/null || zero_bytes "$1" "$from" $((to - from))
    zero_bytes "$1" "$to" $(($3 - to))
}
zero_rest() {
    zero_range "$1" "$2" "$(lsblk -bndo SIZE "$1" | head -n 1 | tr -d ' ')"
}
"""

_WRITE = (
    WAIT_FOR_DEVICE
    + _ZERO_RANGE
    + """
device=$1 bytes=$2 seconds=$3 zeroed=$4 written=0
wait_for_device "$device" "$bytes" "$seconds"
# A thin pool's chunk is the unit in which zeroes are skipped; a thick one likes long writes.
block=1M sparse=
[ "$zeroed" = no ] || block=64k sparse=,sparse
# What lies between long holes one dd writes; they themselves are left out.
while read -r hole && [ "$hole" != end ]; do
    [ "$zeroed" = yes ] || zero_range "$device" "$written" $((written + hole))
    written=$((written + hole))
    report=$(receive | dd of="$device" bs="$block" seek="$written" oflag=seek_bytes iflag=fullblock \\
        conv=notrunc,nocreat,fsync$sparse 2>&1) || {
        printf '%s\\n' "$report" >&2
        exit 1
    }
    written=$((written + $(printf '%s\\n' "$report" | sed -n 's/^\\([0-9]*\\) bytes\\{0,1\\}.*/\\1/p')))
done
[ "${hole:-}" = end ] || give_up
echo "$written"
read -r verdict
watch
[ "$zeroed" = yes ] || zero_rest "$device" "$written"
"""
)

# Who owns a directory, or may rename what is in it, can put a link in the place of a file before it is written to.
IS_SAFE = """
is_safe() {
    [ -n "$(find "$1/." -maxdepth 0 \\( -user 0 -o -user "$(id -u)" \\) \\( ! -perm -2 -o -perm -1000 \\))" ]
}
"""

_STAGING = (
    IS_SAFE
    + """
staging() {
    mkdir -p "$1"
    is_safe "$1" && return
    echo "$1 is open to other users: take it from them, or set STAGING_DIR to a directory of $(id -un)" >&2
    exit 1
}

# An exported file is OpenNebula's to remove when it has read it. One that nobody has written to or read from for two
# days, and nobody has open, has nobody: what made it was killed, or what should have removed it. (Where times of access
# are kept at all, one that is read all the time is noted once a day.)
sweep_exports() {
    find "$1/" -maxdepth 1 -name 'linstor_un-export.??????????' -type f -user "$(id -u)" -mmin +2880 -amin +2880 |
        while read -r old; do
            find /proc/[0-9]*/fd -printf '%l\\n' 2>/dev/null | grep -qxF "$(readlink -f "$old")" || rm -f "$old"
        done
}
"""
)

# The file loses its name before anything is in it, so that nothing is left of it however the script ends. One that was
# killed before that has left an empty file: the next one removes it, once nobody can be about to open it.
_STAGE = """
directory=$1
staging "$directory"
sweep_exports "$directory"
find "$directory/" -maxdepth 1 -name 'linstor_un.??????????' -type f -empty -user "$(id -u)" -mmin +60 -exec rm -f {} +
file=$(mktemp "$directory/linstor_un.XXXXXXXXXX")
exec 4<>"$file"
rm -f "$file"
file=/proc/self/fd/4
receive >&4
watch
"""

# convert DEVICE BYTES ZEROED IMAGE: the image, which has so many bytes, may have options of its own before it.
_CONVERT = """
convert() {
    to=$1 length=$2 zeroed=$3 zero=
    shift 3
    if [ "$zeroed" = yes ] && qemu-img convert --help 2>/dev/null | grep -q target-is-zero; then
        zero=--target-is-zero
    fi
    qemu-img convert -n -W -m 8 -t writeback $zero -O raw "$@" "$to"
    [ "$zeroed" = yes ] || zero_rest "$to" "$length"
}
"""

_WRITE_STAGED = (
    WAIT_FOR_DEVICE
    + _ZERO_RANGE
    + _CONVERT
    + _STAGING
    + _STAGE
    + """
device=$2 bytes=$3 seconds=$4 zeroed=$5 format=$6
# The tree of what is opened is given whole: whatever the image names, its format's driver gets this file and no parent.
image="json:{\\"driver\\":\\"$format\\",\\"file\\":{\\"driver\\":\\"file\\",\\"filename\\":\\"$file\\"},\\"backing\\":null}"
# qemu-img reads zeroes behind the end of an image that is cut short; 3 is mere leaks, 63 a format without checks.
qemu-img check -q "$image" >/dev/null 2>&1 || case $? in
3 | 63) ;;
*) echo "qemu-img check finds the $format image damaged or cut short: provide the whole file" >&2; exit 1 ;;
esac
told=$(qemu-img info --output=json "$image")
# Only an extent in the image itself and, with newer releases, the file below it may have a name.
if printf '%s\\n' "$told" | grep -v "^ *\\"filename\\": \\"$file\\"" | grep -v '^    "filename": ' |
    grep -q '^ *"[a-z-]*file\\(name\\)\\{0,1\\}": '; then
    echo "the $format image names other files: convert it with \\`qemu-img convert\\` and import the result" >&2
    exit 1
fi
virtual=$(printf '%s\\n' "$told" | sed -n 's/^    "virtual-size": \\([0-9]*\\).*/\\1/p')
[ -n "$virtual" ] || exit 1
wait_for_device "$device" "$bytes" "$seconds"
# What was taken from a longer device fits where nothing is behind this one's end.
if [ "$virtual" -gt "$size" ]; then
    rest="json:{\\"driver\\":\\"raw\\",\\"offset\\":$size,\\"file\\":${image#json:}}"
    nothing='json:{"driver":"null-co","size":512,"read-zeroes":true}'
    if ! qemu-img compare -q "$rest" "$nothing" >/dev/null; then
        echo "the image has data up to $virtual bytes and $device has $size bytes: give the disk a larger SIZE" >&2
        exit 1
    fi
    image="json:{\\"driver\\":\\"raw\\",\\"size\\":$size,\\"file\\":${image#json:}}" virtual=$size
fi
convert "$device" "$virtual" "$zeroed" "$image"
"""
)

# A device is longer than what was asked for, by what its pool rounds up, and whoever has it as a disk uses all of it.
_HAS_DATA = """
has_data() {
    status=0
    said=$(cmp -i "$2:0" -n $(($3 - $2)) "$1" /dev/zero) || status=$?
    # It says where they differ; one that only fails says nothing.
    [ "$status" -eq 0 ] || [ "$said" ] || exit "$status"
    [ "$status" -ne 0 ]
}
"""

_COPY = (
    WAIT_FOR_DEVICE
    + _ZERO_RANGE
    + _CONVERT
    + _HAS_DATA
    + """
source=$1 source_bytes=$2 device=$3 bytes=$4 seconds=$5 zeroed=$6
wait_for_device "$source" "$source_bytes" "$seconds"
length=$size
wait_for_device "$device" "$bytes" "$seconds"
by=qemu-img
if [ "$length" -gt "$size" ]; then
    if has_data "$source" "$size" "$length"; then
        echo "$source has data up to $length bytes and $device has $size bytes: give the copy a larger SIZE" >&2
        exit 1
    fi
    # Which knows no end before that of its source.
    length=$size by=
fi
# It reads while it writes, which dd does not; a node that has nothing but replicas may lack it.
if [ "$by" ] && command -v "$by" >/dev/null; then
    convert "$device" "$length" "$zeroed" -U -f raw "$source"
else
    # A thin pool's chunk is the unit in which zeroes are skipped; a thick one likes long writes.
    block=4M sparse=
    [ "$zeroed" = no ] || block=64k sparse=,sparse
    dd if="$source" of="$device" bs=$block iflag=fullblock,count_bytes count="$length" \\
        conv=notrunc,nocreat,fsync$sparse status=none
    [ "$zeroed" = yes ] || zero_rest "$device" "$length"
fi
"""
)

_EXPORT = (
    WAIT_FOR_DEVICE
    + _STAGING
    + _HAS_DATA
    + """
directory=$1 device=$2 bytes=$3 seconds=$4
# One word on stdin lets the file stay; where stdin ends without it nobody knows of the file.
(read -r word <&3 || kill -s TERM -- "-$$") >/dev/null 2>&1 &
told=$!
exec </dev/null
wait_for_device "$device" "$bytes" "$seconds"
staging "$directory"
sweep_exports "$directory"
# Its name first: who is stopped when it is there has to know it. Made only if nothing has that name.
file=$(mktemp -u "$directory/linstor_un-export.XXXXXXXXXX")
trap '[ $? -eq 0 ] || rm -f "$file"' EXIT
# The shell tells of a program that was ended, and nobody may be there any more to be told.
trap 'exit 1' HUP INT TERM PIPE
(umask 077 && set -C && : >"$file")
qemu-img convert -U -f raw -O qcow2 -W -m 8 "$device" "$file"
# Cut to what OpenNebula knows where there is nothing behind it, so that an image does not grow by being handed on.
if has_data "$device" "$bytes" "$size"; then
    bytes=$size
else
    qemu-img resize -q --shrink -f qcow2 "$file" "$bytes"
fi
sum=$(md5sum <"$file")
printf '%s\\n' "$file" "${sum%% *}" "$bytes"
wait "$told"
"""
)

_ZERO = (
    WAIT_FOR_DEVICE
    + _ZERO_RANGE
    + """
wait_for_device "$1" "$2" "$3"
zero_rest "$1" 0
"""
)


def write(host: Host, device: str, size_bytes: int, target_is_zero: bool) -> Feed:
    """Start writing a raw stream to `device`.

    When it has all of it the feed's next line says how many bytes were written; what is behind them is zeroed where
    that is due, once the feed is told that they are right.
    """
    values = (device, size_bytes, host.settings.device_timeout_seconds, _yes_no(target_is_zero))
    return host.feed(f"Writing {device}", Step(_WRITE, values), leaves_out_holes=True)


def write_staged(host: Host, device: str, size_bytes: int, target_is_zero: bool, image_format: str) -> Feed:
    """Start writing an image that must be whole before it can be read: it is staged on the host, converted, removed."""
    settings = host.settings
    seconds = settings.device_timeout_seconds
    values = (
        settings.staging_directory,
        device,
        size_bytes,
        seconds,
        _yes_no(target_is_zero),
        image_format,
    )
    return host.feed(f"Converting the image to {device}", Step(_WRITE_STAGED, values))


def copy(host: Host, source: str, source_bytes: int, device: str, size_bytes: int, target_is_zero: bool) -> Step:
    """Copy all of a device to another on the same host; each is there when it has as many bytes as are named.

    The step fails where the other is shorter and what does not fit is not all zero.
    """
    seconds = host.settings.device_timeout_seconds
    values = (source, source_bytes, device, size_bytes, seconds, _yes_no(target_is_zero))
    return Step(_COPY, values, is_long=True)


class ExportedFile(NamedTuple):
    """A file on a host, its checksum, and the size of the disk in it.

    It goes with the process that made it, until it is said to be kept.
    """

    path: str
    md5: str
    size_bytes: int
    feed: Feed

    def keep(self) -> None:
        """Leave the file there; raises as Host.run."""
        with self.feed as feed:
            feed.say("keep")
            feed.finish()

    def remove(self) -> None:
        """Remove the file, unless it was kept."""
        self.feed.stop()


def export(host: Host, device: str, size_bytes: int) -> ExportedFile:
    """Make a qcow2 file, in the host's staging directory, of `size_bytes` of the device, and of all where it has more.

    Raises as Host.run. The file is gone whenever this process ends without having kept it, however it ends.
    """
    settings = host.settings
    values = (settings.staging_directory, device, size_bytes, settings.device_timeout_seconds)
    with host.feed(f"Exporting {device}", Step(_EXPORT, values)) as feed:
        path = feed.line()
        if not path:
            feed.finish()
        return ExportedFile(path, feed.line(), int(feed.line()), feed)


def zero(host: Host, device: str, size_bytes: int) -> Step:
    """Overwrite the whole device with zeroes, as cheaply as it can be done."""
    return Step(_ZERO, (device, size_bytes, host.settings.device_timeout_seconds), is_long=True)


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
