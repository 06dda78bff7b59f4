"""The tools of a host that touch block devices: open them under DRBD's rules, run the real tool on the bytes.

Each starts with a command on a host, so it imports next to nothing.
"""

# ruff: noqa: PTH109, PTH113, PTH114, PTH115, PTH118, PTH119, PTH123, PTH202
from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from . import shim
else:
    import shim

WRITERS = (
    "mkfs",
    "mke2fs",
    "mkswap",
    "wipefs",
    "fsck",
    "e2fsck",
    "resize2fs",
    "tune2fs",
    "sgdisk",
    "parted",
    "xfs_repair",
    "blkdiscard",
)


class Host:
    """The host on which the tool was called."""

    def __init__(self, name: str, node: str, root: str, port: int) -> None:
        self.tool = name
        self.node = node
        self.port = port
        self.hosts = root + "/hosts/"
        self.prefix = self.hosts + node
        self.opened: dict[str, tuple[int, bool, str]] = {}
        self.is_limited = False

    def shown(self, path: str) -> str:
        """A path as the host knows it."""
        return path[len(self.prefix) :] if path.startswith(self.prefix + "/") else path

    def candidate(self, path: str) -> bool:
        """Whether a path may lead to a device of this host."""
        if path.startswith("/dev/") and not path.startswith(self.prefix):
            return not shim.kernel_device(path[5:])
        full = path if path.startswith("/") else os.path.join(os.getcwd(), path)
        return full.startswith(self.prefix + "/dev/") or (full.startswith(self.prefix + "/") and os.path.islink(full))

    def full(self, path: str) -> str:
        """The file on this machine that the host knows by this path."""
        if path.startswith("/dev/") and not path.startswith(self.prefix):
            return self.prefix + path
        return path if path.startswith("/") else os.path.join(os.getcwd(), path)

    def open(self, wanted: Sequence[tuple[str, str]]) -> None:
        """Open those of the paths that are devices; the mode is "r", "w" or "-" for looking only."""
        chosen = [(path, mode) for path, mode in wanted if self.candidate(path)]
        if not chosen:
            return
        lines = [mode + " " + self.full(path) for path, mode in chosen]
        answer = shim.ask(self.port, "open", self.node, str(os.getpid()), *lines).split("\n")
        for (path, _), line in zip(chosen, answer):
            word, _, rest = line.partition(" ")
            if word == "error":
                self.refuse(path, rest.partition(" ")[2])
            if word == "device":
                size, zeroed, file = rest.split(" ", 2)
                self.opened[path] = (int(size), zeroed == "zeroed", file)

    def refuse(self, path: str, text: str) -> NoReturn:
        """Say what the real tool says when it cannot open a file."""
        shown = self.shown(path)
        name = self.tool
        if name == "dd":
            message = f"dd: failed to open '{shown}': {text}"
        elif name == "qemu-img":
            message = f"qemu-img: Could not open '{shown}': Could not open '{shown}': {text}"
        elif name in ("blockdev", "blkdiscard"):
            message = f"{name}: cannot open {shown}: {text}"
        else:
            message = f"{name}: {shown}: {text}"
        sys.stderr.write(message + "\n")
        os._exit(1)

    def file(self, path: str) -> str:
        """The file with the bytes, for a device; any other path as it is."""
        return self.opened[path][2] if path in self.opened else path

    def limit(self, paths: Sequence[str]) -> None:
        """A device does not grow: no write beyond its end."""
        sizes = [self.opened[path][0] for path in paths if path in self.opened]
        if sizes:
            _limit_files(max(sizes))
            self.is_limited = True

    def run(self, arguments: Sequence[str]) -> NoReturn:
        """Become the real tool."""
        shim.restore_signals()
        room = None if self.is_limited else self.room(arguments)
        if room is not None:
            self.run_within(room, arguments)
        for path in filter(None, (_executable(self, directory) for directory in _path())):
            os.execv(path, [self.tool, *arguments])
        sys.stderr.write(f"sh: {self.tool}: not found\n")
        os._exit(127)

    def room(self, paths: Sequence[str]) -> int | None:
        """How large the largest of these files may become in a directory that is filled; None: none of them is there.

        Each line of etc/filled is a directory, and the bytes that may be below it.
        """
        try:
            with open(self.prefix + "/etc/filled", encoding="utf-8") as file:
                filled = [line.rpartition(" ") for line in file.read().splitlines()]
        except OSError:
            return None
        there = [os.path.normpath(os.path.join(os.getcwd(), path.rpartition("=")[2])) for path in paths]
        for directory, _, capacity in filled:
            inside = [path for path in there if path.startswith(directory + "/")]
            if inside:
                sizes = [os.path.getsize(path) for path in inside if os.path.isfile(path) and not os.path.islink(path)]
                return max([0, *sizes]) + max(0, int(capacity) - _taken(directory))
        return None

    def run_within(self, room: int, arguments: Sequence[str]) -> NoReturn:
        """Run the real tool, for which the file system is full when a file has become so large."""
        import subprocess

        path = next(filter(None, (_executable(self, directory) for directory in _path())), self.tool)
        _limit_files(room)
        # Python ignores SIGXFSZ, and so shall the tool.
        done = subprocess.run([path, *arguments], stderr=subprocess.PIPE, restore_signals=False)
        sys.stderr.buffer.write(done.stderr.replace(b"File too large", b"No space left on device"))
        sys.stderr.flush()
        os._exit(done.returncode if done.returncode >= 0 else 1)


def _limit_files(size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _taken(directory: str) -> int:
    """The bytes that the files below a directory take."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512
        for folder, _, names in os.walk(directory)
        for name in names
    )


def _path() -> list[str]:
    return os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").split(":")


def _executable(host: Host, directory: str) -> str:
    """The real tool in a directory, empty when it is none of this machine's or has none."""
    path = directory + "/" + host.tool
    return path if not directory.startswith(host.prefix + "/") and os.access(path, os.X_OK) else ""


def df(host: Host, arguments: list[str]) -> NoReturn:
    """df of a directory that is filled has the bytes that it may hold; every other one is this machine's."""
    words = [word for word in arguments if not word.startswith("-")]
    room = host.room([words[-1] + "/x"]) if words else None
    if room is None:
        host.run(arguments)
    options = "".join(word for word in arguments if word.startswith("-"))
    unit = 1 if "B1" in options or "size=1" in options else 1 << 20 if "m" in options or "BM" in options else 1024
    if "--output=avail" in arguments:
        print(f"Avail\n{room // unit}")
    else:
        print("Filesystem     1024-blocks      Used Available Capacity Mounted on")
        print(f"/dev/sda1 {room // unit} 0 {room // unit} 0% {host.shown(words[-1])}")
    sys.stdout.flush()
    os._exit(0)


def dd(host: Host, arguments: list[str]) -> NoReturn:
    """dd: a device is not truncated, and its target is opened for writing."""
    operands = [word.partition("=") for word in arguments]
    modes = {"if": "r", "of": "w"}
    host.open([(value, modes[key]) for key, _, value in operands if key in modes])
    result = [key + sign + (host.file(value) if key in modes else value) for key, sign, value in operands]
    targets = [value for key, _, value in operands if key == "of" and value in host.opened]
    if targets:
        host.limit(targets)
        result.append("conv=notrunc")
    host.run(result)


_QEMU_VALUES = (
    "-f",
    "-F",
    "-O",
    "-B",
    "-o",
    "-S",
    "-t",
    "-T",
    "-l",
    "-s",
    "-r",
    "-m",
    "--object",
    "-b",
    "-a",
    "-d",
    "--output",
    "--size",
)


def _positions(words: list[str]) -> list[int]:
    """Indexes of the words that are no options of qemu-img."""
    found = []
    index = 1
    while index < len(words):
        if words[index] in _QEMU_VALUES:
            index += 1
        elif not words[index].startswith("-") or words[index] == "-":
            found.append(index)
        index += 1
    return found


def qemu_img(host: Host, arguments: list[str]) -> NoReturn:
    """qemu-img: a device exists already, so convert is told not to create its target."""
    words = list(arguments)
    command = words[0] if words else ""
    places = _positions(words)
    target = places[-1] if command == "convert" and len(places) > 1 else -1
    writes = {target} if command == "convert" else set(places) if command in ("resize", "commit", "rebase") else set()
    host.open([(words[index], "w" if index in writes else "r") for index in places])
    opened = [words[index] for index in places if index in writes and words[index] in host.opened]
    for index in places:
        words[index] = host.file(words[index])
    if opened and command == "convert":
        host.limit(opened)
        if "-n" not in words:
            words.insert(1, "-n")
    if opened and command == "resize":
        sys.stderr.write("qemu-img: Cannot grow device files\n")
        os._exit(1)
    host.run(words)


def qemu_io(host: Host, arguments: list[str]) -> NoReturn:
    """qemu-io: its device is opened for writing, but with -r."""
    words = list(arguments)
    values = ("-f", "-c", "-t", "-d", "-i", "-T", "--format", "--cmd", "--cache", "--discard", "--aio", "--object")
    places = [
        index
        for index, word in enumerate(words)
        if not word.startswith("-") and (index == 0 or words[index - 1] not in values)
    ]
    read_only = "-r" in words or "--read-only" in words
    host.open([(words[index], "r" if read_only else "w") for index in places])
    host.limit([words[index] for index in places])
    for index in places:
        words[index] = host.file(words[index])
    host.run(words)


def plain(host: Host, arguments: list[str]) -> NoReturn:
    """Readers and writers that take devices as plain words."""
    mode = "w" if host.tool.startswith(WRITERS) else "r"
    host.open([(word, mode) for word in arguments if not word.startswith("-")])
    if mode == "w":
        host.limit(list(host.opened))
    host.run([host.file(word) for word in arguments])


def cp(host: Host, arguments: list[str]) -> NoReturn:
    """cp: into a device by dd, which does not truncate it."""
    words = [word for word in arguments if not word.startswith("-")]
    if len(words) == 2:
        host.open([(words[0], "r"), (words[1], "w")])
        if words[1] in host.opened:
            host.limit([words[1]])
            host.tool = "dd"
            host.run(["if=" + host.file(words[0]), "of=" + host.file(words[1]), "bs=1M", "conv=notrunc", "status=none"])
    host.run([host.file(word) for word in arguments])


def lsblk(host: Host, arguments: list[str]) -> NoReturn:
    """Sizes and types from the sandbox, without opening: as lsblk reads sysfs."""
    columns = ["NAME", "SIZE", "TYPE"]
    letters, devices = "", []
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if word in ("--output", "-o") or (word.startswith("-") and not word.startswith("--") and word.endswith("o")):
            letters += word.strip("-")
            index += 1
            columns = arguments[index].upper().split(",")
        elif word.startswith("--output="):
            columns = word[9:].upper().split(",")
        elif word.startswith("--"):
            letters += {"--bytes": "b", "--noheadings": "n", "--nodeps": "d"}.get(word, "")
        elif word.startswith("-"):
            letters += word[1:]
        else:
            devices.append(word)
        index += 1
    host.open([(device, "-") for device in devices])
    if "n" not in letters:
        print(" ".join(columns))
    status = 0
    for device in devices:
        if device not in host.opened:
            sys.stderr.write(f"lsblk: {host.shown(device)}: not a block device\n")
            status = 32
            continue
        print(" ".join(_column(host, device, column, "b" in letters) for column in columns))
    sys.stdout.flush()
    os._exit(status)


def _column(host: Host, device: str, column: str, in_bytes: bool) -> str:
    size, _, file = host.opened[device]
    values = {
        "NAME": os.path.basename(file),
        "KNAME": os.path.basename(file),
        "TYPE": "disk",
        "RO": "0",
        "SIZE": str(size) if in_bytes else _human(size),
        "PATH": host.shown(file),
    }
    return values.get(column, "")


def _human(size: float) -> str:
    for unit in "BKMGTP":
        if size < 1024:
            return f"{size:.1f}".rstrip("0").rstrip(".") + unit
        size /= 1024.0
    return str(size)


def blockdev(host: Host, arguments: list[str]) -> NoReturn:
    """blockdev: sizes; flushing and reading partitions again succeed."""
    actions = [word for word in arguments if word.startswith("-")]
    devices = [word for word in arguments if not word.startswith("-") and not word.isdigit()]
    host.open([(device, "r") for device in devices])
    for device in devices:
        if device not in host.opened:
            code = os.path.lexists(host.full(device))
            text = "Inappropriate ioctl for device" if code else "No such file or directory"
            sys.stderr.write(f"blockdev: cannot open {host.shown(device)}: {text}\n")
            os._exit(1)
        size = host.opened[device][0]
        answers = {
            "--getsize64": size,
            "--getsz": size // 512,
            "--getsize": size // 512,
            "--getss": 512,
            "--getpbsz": 512,
            "--getbsz": 4096,
            "--getro": 0,
        }
        for action in actions:
            if action in answers:
                print(answers[action])
    sys.stdout.flush()
    os._exit(0)


def blkdiscard(host: Host, arguments: list[str]) -> NoReturn:
    """Punch holes; a thick pool cannot discard, but it can be zeroed (-z)."""
    offset, length, zero, device = 0, None, False, ""
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word in ("-o", "--offset"):
            offset = _bytes(words.pop(0))
        elif word in ("-l", "--length"):
            length = _bytes(words.pop(0))
        elif word in ("-z", "--zeroout"):
            zero = True
        elif word in ("-p", "--step"):
            words.pop(0)
        elif not word.startswith("-"):
            device = word
    host.open([(device, "w")])
    if device not in host.opened:
        sys.stderr.write(f"blkdiscard: cannot open {host.shown(device)}: No such file or directory\n")
        os._exit(1)
    size, zeroed, file = host.opened[device]
    if not zeroed and not zero:
        sys.stderr.write(f"blkdiscard: {host.shown(device)}: BLKDISCARD ioctl failed: Operation not supported\n")
        os._exit(1)
    end = size if length is None else min(size, offset + length)
    host.tool = "fallocate"
    host.run(["-p", "-o", str(offset), "-l", str(end - offset), file])


def _bytes(text: str) -> int:
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    letters = text.rstrip("iB")
    return int(letters[:-1]) << units[letters[-1].upper()] if letters[-1:].upper() in units else int(letters)


def readlink(host: Host, arguments: list[str]) -> NoReturn:
    """Where a link leads, as the host knows it: links are made with a host's root in front of their target.

    It is another host's root where hosts share a file system.
    """
    if len(arguments) != 1 or arguments[0].startswith("-"):
        host.run(arguments)
    try:
        target = os.readlink(arguments[0])
    except OSError:
        os._exit(1)
    shown = "/" + target[len(host.hosts) :].partition("/")[2] if target.startswith(host.hosts) else target
    sys.stdout.write(shown + "\n")
    sys.stdout.flush()
    os._exit(0)


def find(host: Host, arguments: list[str]) -> NoReturn:
    """-lname takes the target as the host knows it, whichever host's root is in front of it."""
    words = list(arguments)
    for index in range(1, len(words)):
        if words[index - 1] in ("-lname", "-ilname") and words[index].startswith("/"):
            words[index] = host.hosts + "*" + host.shown(words[index])
    host.run(words)


def remote(host: Host, arguments: list[str]) -> NoReturn:
    """virsh, drbdsetup, lvs and the like: the sandbox itself knows the answer."""
    text = ""
    files = _xml_files(arguments) if host.tool == "virsh" else []
    if files:
        with open(files[-1], encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    elif host.tool == "virsh" and "/dev/stdin" in arguments:
        text = sys.stdin.read()
    answer = shim.ask(
        host.port,
        "tool",
        host.node,
        host.tool,
        os.environ.get("LINSTOR_SANDBOX_USER", ""),
        str(len(arguments)),
        *[word.replace("\n", " ") for word in arguments],
        text,
    )
    status, _, rest = answer.partition("\n")
    length, _, rest = rest.partition("\n")
    sys.stdout.write(rest[: int(length)])
    sys.stdout.flush()
    sys.stderr.write(rest[int(length) :])
    os._exit(int(status))


def _xml_files(arguments: list[str]) -> list[str]:
    """Those of virsh's arguments that are files of XML: never a device, which has the length of a disk."""
    if "--xml" in arguments[:-1]:
        return [arguments[arguments.index("--xml") + 1]]
    if any(command in arguments for command in ("create", "define", "attach-device")):
        return [word for word in arguments if os.path.isfile(word)]
    return []


def sudo(host: Host, arguments: list[str]) -> NoReturn:
    """sudo: everybody may do everything on a host, but for the commands in its etc/sudo-refused (`ALL`: for all)."""
    words = list(arguments)
    only_asks = False
    while words and words[0].startswith("-"):
        option = words.pop(0)
        only_asks = only_asks or option in ("-l", "--list")
        if option in ("-u", "-g", "--user", "--group") and words:
            words.pop(0)
        if option == "--":
            break
    if {os.path.basename(words[0]) if words else "", "ALL"} & _refused(host):
        sys.stderr.write("sudo: a password is required\n")
        os._exit(1)
    if only_asks:
        os._exit(0)
    shim.restore_signals()
    try:
        os.execvpe(words[0], words, {**os.environ, "LINSTOR_SANDBOX_USER": "root"})
    except (OSError, IndexError):
        sys.stderr.write(f"sudo: {' '.join(words[:1])}: command not found\n")
        os._exit(1)


def _refused(host: Host) -> set[str]:
    try:
        with open(host.prefix + "/etc/sudo-refused", encoding="utf-8") as file:
            return set(file.read().split())
    except OSError:
        return set()


def zstream(host: Host, arguments: list[str]) -> NoReturn:
    """`zstream dump [-v]` and, in the lines of older releases, `zstreamdump [-v]`: what `zfs send` has written."""
    lines = sys.stdin.read().splitlines()
    if lines[:1] != ["BEGIN record"]:
        sys.stderr.write("Invalid stream (bad magic number)\n")
        os._exit(1)
    records = [line for line in lines[1:] if line[:1].isupper() and not line.startswith("END")]
    shown = [line for line in lines if line not in records] if "-v" not in arguments else lines
    if host.tool == "zstreamdump":
        shown = [line.partition(" salt")[0].replace(" flags = 0 offset", "\n    offset") for line in shown]
    counts = [f"\tTotal DRR_{kind} records = {sum(line.startswith(kind + ' ') for line in lines)}" for kind in _RECORDS]
    print("\n".join([*shown, "SUMMARY:", *counts, f"\tTotal records = {len(records) + 2}"]))
    sys.stdout.flush()
    os._exit(0)


_RECORDS = ("BEGIN", "END", "OBJECT", "FREEOBJECTS", "WRITE", "WRITE_BYREF", "WRITE_EMBEDDED", "FREE", "SPILL")


def udevadm(_host: Host, _arguments: list[str]) -> NoReturn:
    """udevadm: there is nothing to settle, devices are there when LINSTOR has answered."""
    os._exit(0)


_SPECIAL: dict[str, Callable[[Host, list[str]], NoReturn]] = {
    "dd": dd,
    "qemu-img": qemu_img,
    "cp": cp,
    "df": df,
    "lsblk": lsblk,
    "blockdev": blockdev,
    "blkdiscard": blkdiscard,
    "readlink": readlink,
    "find": find,
    "sudo": sudo,
    "udevadm": udevadm,
    "virsh": remote,
    "drbdsetup": remote,
    "drbdadm": remote,
    "lvs": remote,
    "dmsetup": remote,
    "thin_delta": remote,
    "zfs": remote,
    "zstream": zstream,
    "zstreamdump": zstream,
    "qemu-io": qemu_io,
}


def main(name: str, node: str, root: str, port: int) -> None:
    """Run one tool of one host."""
    host = Host(name, node, root, port)
    _SPECIAL.get(name, plain)(host, sys.argv[1:])
