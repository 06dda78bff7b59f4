"""LVM's thin pools as a host's tools show them: lvs, dmsetup and thin_delta."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Optional

from ..model import Cluster, Node, StoragePool
from ..storage import CHUNK, KIB
from . import backing
from .backing import Backing, runs
from .status import Output

_NOT_ROOT = {
    "lvs": (
        5,
        "  WARNING: Running as a non-root user. Functionality may be unavailable.\n"
        "  /run/lock/lvm/P_global:aux: open failed: Permission denied\n",
    ),
    "dmsetup": (
        1,
        "/dev/mapper/control: open failed: Permission denied\n"
        "Failure to communicate with kernel device-mapper driver.\nCommand failed.\n",
    ),
}


def run(cluster: Cluster, node: Node, tool: str, arguments: list[str], is_root: bool) -> Output:
    """lvs, dmsetup or thin_delta with these arguments; everybody in the group `disk` may read pools' meta-data."""
    if tool in _NOT_ROOT and not is_root:
        code, text = _NOT_ROOT[tool]
        return code, "", text
    try:
        if tool == "lvs":
            return 0, Lvs(cluster, node, arguments).run(), ""
        return 0, (_dmsetup if tool == "dmsetup" else _thin_delta)(cluster, node, arguments), ""
    except ToolFailed as failed:
        return failed.code, "", f"{failed}\n"


class ToolFailed(Exception):
    """What a tool says when it fails, and its exit status."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


# --- lvs ------------------------------------------------------------------------------------------------------------

_VALUES = ("-o", "--options", "--separator", "--units", "--reportformat", "-S", "--select", "-O", "--sort", "--config")
_FLAGS = ("--noheadings", "--nosuffix", "-a", "--all", "--readonly", "--nolocking", "--unbuffered", "--unquoted")
_COLUMNS = "lv_name vg_name lv_attr lv_size pool_lv origin data_percent metadata_percent"
_HEADINGS = {"lv_name": "LV", "vg_name": "VG", "pool_lv": "Pool", "thin_id": "ThId", "lv_size": "LSize"}
_UNITS = {"b": 1, "s": 512, "k": KIB, "m": KIB**2, "g": KIB**3, "t": KIB**4}


class Lvs:
    """One call of lvs."""

    def __init__(self, cluster: Cluster, node: Node, arguments: Sequence[str]) -> None:
        self.cluster = cluster
        self.node = node
        self.options: dict[str, str] = {}
        self.names: list[str] = []
        self._parse(list(arguments))
        wanted = self._option("-o", "--options") or _COLUMNS.replace(" ", ",")
        self.columns = (f"{_COLUMNS},{wanted[1:]}" if wanted[0] == "+" else wanted).replace(" ", ",").split(",")

    def _parse(self, words: list[str]) -> None:
        while words:
            word, sign, value = words.pop(0).partition("=")
            if word in _VALUES:
                self.options[word] = value if sign else words.pop(0)
            elif word in _FLAGS:
                self.options[word] = ""
            elif word.startswith("-"):
                raise ToolFailed(f"lvs: unrecognized option '{word}'\n  Error during parsing of command line.", 3)
            else:
                self.names.append(word)

    def _option(self, *names: str) -> str:
        return next((self.options[name] for name in names if name in self.options), "")

    def run(self) -> str:
        """The report."""
        rows = [row for row in self._rows() if self._selected(row)]
        unknown = next((column for column in self.columns if column not in self._row(None)), "")
        if unknown:
            raise ToolFailed(f"  Unrecognised field: {unknown}", 3)
        for name in self.names:
            self._check(name)
        chosen = [[row[column] for column in self.columns] for row in rows if self._named(row)]
        return self._json(chosen) if self._option("--reportformat").startswith("json") else self._text(chosen)

    def _rows(self) -> list[dict[str, str]]:
        found = [self._row(volume) for volume in backing.of_host(self.cluster, self.node, "LVM")]
        for pool in self.node.pools:
            if pool.kind.name == "LVM_THIN":
                group, thin = pool.driver().split("/")
                size = self._size(pool.total * KIB)
                found.append(
                    {**self._row(None), "vg_name": group, "lv_name": thin, "lv_size": size, **_attributes("t")}
                )
        return sorted(found, key=lambda row: (row["vg_name"], row["lv_name"]))

    def _row(self, volume: Optional[Backing]) -> dict[str, str]:
        names = (
            "vg_name lv_name pool_lv thin_id origin lv_size lv_attr data_percent metadata_percent chunk_size segtype"
        )
        row = dict.fromkeys(names.split(), "")
        if volume is None:
            return {**row, "chunk_size": self._size(CHUNK)}
        group, _, thin = volume.pool.driver().partition("/")
        row.update(vg_name=group, lv_name=volume.name, pool_lv=thin, lv_size=self._size(volume.size), chunk_size="0")
        if volume.snapshot:
            row.update(lv_name=f"{volume.name}_{volume.snapshot}", origin=volume.name)
        if thin:
            row.update(thin_id=str(volume.thin_id))
        return {**row, **_attributes(("k" if volume.snapshot else "V") if thin else "-")}

    def _size(self, size: int) -> str:
        unit = (self._option("--units") or "m")[0].lower()
        number = f"{size / _UNITS.get(unit, KIB**2):.2f}" if unit not in "bs" else str(size // _UNITS[unit])
        return number if "--nosuffix" in self.options else number + unit.upper().replace("M", "m")

    def _selected(self, row: dict[str, str]) -> bool:
        """Of the language of selections: comparisons of texts, joined by && and ||."""
        wanted = self._option("-S", "--select")
        return not wanted or any(
            all(_holds(row, term) for term in re.split(r"&&|,", part)) for part in re.split(r"\|\||#", wanted)
        )

    def _named(self, row: dict[str, str]) -> bool:
        return not self.names or bool(
            {row["vg_name"], f"{row['vg_name']}/{row['lv_name']}"} & set(map(_plain, self.names))
        )

    def _check(self, name: str) -> None:
        group, _, volume = _plain(name).partition("/")
        if group not in {pool.driver().split("/")[0] for pool in self.node.pools if pool.kind.family == "LVM"}:
            raise ToolFailed(f'  Volume group "{group}" not found\n  Cannot process volume group {group}', 5)
        if volume and volume not in {row["lv_name"] for row in self._rows() if row["vg_name"] == group}:
            raise ToolFailed(f'  Failed to find logical volume "{group}/{volume}"', 5)

    def _text(self, rows: Sequence[Sequence[str]]) -> str:
        headings = [] if "--noheadings" in self.options else [[_HEADINGS.get(name, name) for name in self.columns]]
        table = [*headings, *rows]
        if "--separator" in self.options:
            return "".join(f"  {self.options['--separator'].join(row)}\n" for row in table)
        widths = [max(map(len, column)) for column in zip(*table)]
        return "".join(f"  {' '.join(map(str.ljust, row, widths))}\n" for row in table)

    def _json(self, rows: Sequence[Sequence[str]]) -> str:
        shown = [dict(zip(self.columns, row)) for row in rows]
        return json.dumps({"report": [{"lv": shown}]}, indent=4) + "\n"


def _attributes(kind: str) -> dict[str, str]:
    """lv_attr and segtype of a thin pool, a thin volume, a snapshot as LINSTOR leaves it (inactive), and others."""
    found = {"t": "twi-aotz-- thin-pool", "V": "Vwi-aotz-- thin", "k": "Vwi---tz-k thin"}.get(kind, "-wi-ao---- linear")
    return dict(zip(("lv_attr", "segtype"), found.split()))


def _plain(name: str) -> str:
    return re.sub(r"^.*/dev/", "", name)


def _holds(row: dict[str, str], term: str) -> bool:
    match = re.fullmatch(r"\s*(\w+)\s*(=~|!~|!=|=)\s*[\"']?(.*?)[\"']?\s*", term)
    if match is None or match.group(1) not in row:
        raise ToolFailed(f"  Selection syntax error at '{term}'.\n  Use 'help' for selection to get more help.", 3)
    field, sign, value = row[match.group(1)], match.group(2), match.group(3)
    found = re.search(value, field) is not None if "~" in sign else field == value
    return found != sign.startswith("!")


# --- device mapper --------------------------------------------------------------------------------------------------


def _mapped(pool: StoragePool) -> str:
    """The device mapper's name of a thin pool: a dash inside of a name is doubled."""
    return "-".join(part.replace("-", "--") for part in pool.driver().split("/"))


def _pool(node: Node, path: str, suffix: str) -> Optional[StoragePool]:
    name = os.path.basename(path)  # noqa: PTH119 (a name as well as a path)
    pools = [pool for pool in node.pools if pool.kind.name == "LVM_THIN"]
    return next((pool for pool in pools if f"{_mapped(pool)}{suffix}" == name), None)


def _dmsetup(_cluster: Cluster, node: Node, arguments: Sequence[str]) -> str:
    """`message POOL 0 reserve_metadata_snap` and `release_metadata_snap`, and `status POOL`."""
    command, *words = [word for word in arguments if not word.startswith("--")] or [""]
    name = os.path.basename(words[0]) if words else ""  # noqa: PTH119
    pool = _pool(node, name, "-tpool")
    if command not in ("message", "status"):
        raise ToolFailed("Unknown command")
    if pool is None:
        missing = f"device-mapper: message ioctl on {name}  failed: No such device or address"
        raise ToolFailed((missing if command == "message" else f"Device {name} not found") + "\nCommand failed.")
    if command == "status":
        held = "-" if pool.metadata_snapshot is None else "1024"
        blocks = pool.total * KIB // CHUNK
        used = f"{pool.used() * KIB // CHUNK}/{blocks}"
        return f"0 {pool.total * 2} thin-pool 1 406/4096 {used} {held} rw discard_passdown queue_if_no_space - 1024 \n"
    refusal = _message(pool, words[2:])
    if refusal:
        raise ToolFailed(f"device-mapper: message ioctl on {name}  failed: {refusal}\nCommand failed.")
    return ""


def _message(pool: StoragePool, words: Sequence[str]) -> str:
    """Tell a thin pool something; the kernel's refusal, or nothing."""
    held = pool.metadata_snapshot is not None
    if list(words) == ["reserve_metadata_snap"]:
        if held:
            return "Device or resource busy"
        pool.metadata_snapshot = frozenset(stored.thin_id for stored in pool.members.values())
        return ""
    if list(words) != ["release_metadata_snap"] or not held:
        return "Invalid argument"
    pool.metadata_snapshot = None
    return ""


def _thin_delta(cluster: Cluster, node: Node, arguments: Sequence[str]) -> str:
    """The differences of two thin volumes; those of a metadata snapshot are only those that were there then."""
    if arguments and arguments[0] in ("-V", "--version"):
        return "1.0.12\n"
    text = " ".join(arguments)
    ids = [re.search(rf"--(?:thin|snap){side}[= ](\d+)", text) for side in "12"]
    device = arguments[-1] if arguments and not arguments[-1].startswith("-") else ""
    pool = _pool(node, device, "_tmeta")
    for side, found in zip("12", ids):
        if found is None:
            raise ToolFailed(f"--snap{side} not specified.")
    if pool is None:
        raise ToolFailed(f"Couldn't stat path '{device}': No such file or directory")
    from_snapshot = any(word == "-m" or word.startswith("--metadata-snap") for word in arguments)
    if not from_snapshot:
        raise ToolFailed("Device or resource busy (os error 16)")
    if pool.metadata_snapshot is None:
        raise ToolFailed("no current metadata snap")
    volumes = {volume.thin_id: volume for volume in _thin_volumes(cluster, node, pool)}
    wanted = [int(found.group(1)) for found in ids if found]
    for side, number in zip("12", wanted):
        if number not in pool.metadata_snapshot or number not in volumes:
            raise ToolFailed(f"Unable to find mapping tree for snap{side} ({number})")
    return _delta(pool, wanted, volumes[wanted[0]], volumes[wanted[1]])


def _thin_volumes(cluster: Cluster, node: Node, pool: StoragePool) -> list[Backing]:
    return [volume for volume in backing.of_host(cluster, node, "LVM") if volume.pool is pool]


def _delta(pool: StoragePool, ids: Sequence[int], left: Backing, right: Backing) -> str:
    blocks = pool.total * KIB // CHUNK
    lines = [
        f'<superblock uuid="" time="{pool.last_thin_id}" transaction="{pool.last_thin_id}" version="2" '
        f'data_block_size="{CHUNK // 512}" nr_data_blocks="{blocks}">',
        f'  <diff left="{ids[0]}" right="{ids[1]}">',
    ]
    found = runs(backing.changes(left, right, CHUNK))
    lines += [f'    <{kind} begin="{first}" length="{count}"/>' for kind, first, count in found]
    return "\n".join([*lines, "  </diff>", "</superblock>"]) + "\n"
