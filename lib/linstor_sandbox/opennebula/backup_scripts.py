"""What the scripts of a BackupServer do: arguments, input and output are those of OpenNebula's backup datastores.

rsync keeps each backup's files in a directory of the server, by whose path they are asked for. restic keeps them in a
repository for each VM or job, by the paths that they had on their host, and asks for them by those.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Optional
from xml.etree import ElementTree

Element = ElementTree.Element


class ScriptFailed(Exception):
    """What a script writes to stderr before it exits with 255."""


def main(driver: str, verb: str, folder: str) -> None:
    """Run one verb of a datastore's driver, `rsync` or `restic`, for the server in a folder."""
    server = {"rsync": Server, "restic": Repositories}[driver](Path(folder))
    try:
        server.check(verb)
        getattr(server, verb)(sys.argv[1:])
    except ScriptFailed as failed:
        sys.stderr.write(f"{failed}\n")
        sys.exit(255)
    except subprocess.CalledProcessError as failed:
        sys.stderr.write(f"{' '.join(failed.cmd)}: {failed.stderr.decode(errors='replace')}\n")
        sys.exit(255)


class Server:
    """The files below one folder, and what the verbs do with them."""

    scheme = "rsync"
    _source_bytes = 3

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self, verb: str) -> None:
        """ScriptFailed where a test wants this; a backup fails later."""
        if verb != "backup" and self._fault(verb):
            raise ScriptFailed(f"Error in {verb}: injected failure")

    def _fault(self, verb: str) -> str:
        fault = self.folder / "faults" / verb
        found = fault.read_text(encoding="utf-8") if fault.exists() else ""
        fault.unlink(missing_ok=True)
        return found

    def _at(self, path: str) -> Path:
        return self.folder / os.path.normpath(path).lstrip("/")

    def _top(self, base: str, vm: str, _job: str) -> Path:
        """Where the backups of a VM are."""
        return self._at(f"{base}/{vm}")

    def _path(self, file: Path) -> str:
        """By which path a file is asked for."""
        return f"/{file.relative_to(self.folder)}"

    def _files(self, url: str) -> list[Path]:
        """The files that a URL stands for, from the oldest increment."""
        _, _, chain, path = _parts(url)
        file = self._at(path)
        disk = file.name.split(".")[1]
        chained = [file.parent.with_name(source) / f"disk.{disk}.{number}" for number, source in chain]
        return chained if len(chain) > 1 else [file]

    # --- backup -----------------------------------------------------------------------------------------------------

    def backup(self, arguments: Sequence[str]) -> None:
        """HOST:DIRECTORY DISKS UUID JOB VM DATASTORE; the datastore and the VM on stdin: `ID MIB FORMAT`."""
        given, _disks, uuid, job, vm, _system = arguments
        document = ElementTree.fromstring(sys.stdin.read())
        datastore = document if document.tag == "DATASTORE" else _found(document, "DATASTORE")
        host, directory = given.split(":", 1)
        host = document.findtext("VM/BACKUPS/BACKUP_CONFIG/LAST_BRIDGE") or host
        source = secrets.token_hex(self._source_bytes)
        target = self._top(datastore.findtext("BASE_PATH", ""), vm, job.strip("-")) / source
        pid = self.folder / "running" / uuid
        self._on_cancel(target, source, pid)
        pid.write_text(str(os.getpid()), encoding="utf-8")
        target.mkdir(parents=True)
        try:
            size = self._fetch(host, _backup_directory(directory, vm), target)
            self._trouble(pid)
        finally:
            pid.unlink()
        print(source, size, "raw")

    def _fetch(self, host: str, directory: str, target: Path) -> int:
        """Copy a directory of a host; its size in MiB."""
        return _fetch(host, directory, target)

    @staticmethod
    def _on_cancel(target: Path, source: str, pid: Path) -> None:
        def cancelled(_signal: int, _frame: Optional[FrameType]) -> None:
            shutil.rmtree(target, ignore_errors=True)
            pid.with_suffix(".hangs").unlink(missing_ok=True)
            raise ScriptFailed(f"Backup cancelled: {source}")

        signal.signal(signal.SIGTERM, cancelled)

    def _trouble(self, pid: Path) -> None:
        fault = self._fault("backup")
        if fault == "hang":
            pid.with_suffix(".hangs").touch()
            while True:
                signal.pause()
        if fault:
            raise ScriptFailed("Error copying backup: injected failure")

    def backup_cancel(self, arguments: Sequence[str]) -> None:
        """HOST:DIRECTORY DISKS UUID JOB VM DATASTORE; the VM on stdin. Nothing else than a backup is ended."""
        sys.stdin.read()
        pid = self.folder / "running" / arguments[2]
        if pid.exists():
            os.kill(int(pid.read_text(encoding="utf-8")), signal.SIGTERM)

    # --- looking ----------------------------------------------------------------------------------------------------

    def ls(self, arguments: Sequence[str]) -> None:
        """`-i INCREMENT`; DS_DRIVER_ACTION_DATA in plain XML on stdin: {"DISK": "URL"}.

        The paths are those of increment 0, or of the last where that is merged, unless TEMPLATE/INCREMENT_ID names one.
        """
        wanted = int(arguments[1]) if arguments[:1] in (["-i"], ["--increment"]) else -1
        document = ElementTree.fromstring(sys.stdin.read())
        image = Backup(document)
        chain = image.chain(None if wanted < 0 else wanted)
        urls = {}
        for path in self._disks(document, image):
            urls[path.name.split(".")[1]] = image.url(self.scheme, chain) + self._path(path)
        print(json.dumps(urls))

    def _disks(self, document: Element, image: Backup) -> list[Path]:
        folder = self._increment(document, image, image.selected)
        if not folder.is_dir():
            raise ScriptFailed(f"Error listing backups: find: '{folder}': No such file or directory")
        return sorted(folder.glob("disk.*"))

    def stat(self, _arguments: Sequence[str]) -> None:
        """A request's id; DS_DRIVER_ACTION_DATA with IMAGE/PATH in base64 on stdin: MiB."""
        file = self._files(_decoded().findtext("IMAGE/PATH", ""))[-1]
        vm = ElementTree.fromstring(base64.b64decode(file.with_name("vm.xml").read_bytes()))
        disk = next(disk for disk in vm.iter("DISK") if disk.findtext("DISK_ID") == file.name.split(".")[1])
        print(disk.findtext("SIZE"))

    def monitor(self, _arguments: Sequence[str]) -> None:
        """A datastore's id: what is free and used, in MiB."""
        sys.stdin.read()
        usage = shutil.disk_usage(self.folder)
        print(f"USED_MB={usage.used >> 20}\nTOTAL_MB={usage.total >> 20}\nFREE_MB={usage.free >> 20}")

    # --- removing ---------------------------------------------------------------------------------------------------

    def rm(self, _arguments: Sequence[str]) -> None:
        """An image's id; DS_DRIVER_ACTION_DATA in base64 on stdin."""
        document = _decoded()
        image = Backup(document)
        for source in image.sources.values():
            shutil.rmtree(self._increment(document, image, source), ignore_errors=True)

    def _increment(self, document: Element, image: Backup, source: str) -> Path:
        return self._top(document.findtext("DATASTORE/BASE_PATH", ""), image.vm, image.job) / source

    def increment_flatten(self, _arguments: Sequence[str]) -> None:
        """An image's id; DS_DRIVER_ACTION_DATA with EXTRA_DATA/KEEP_LAST in base64 on stdin: `MIB ID:SOURCE,...`."""
        document = _decoded()
        image = Backup(document)
        keep = int(document.findtext("EXTRA_DATA/KEEP_LAST", "0"))
        merged = list(image.sources.values())[: len(image.sources) - keep + 1]
        if len(image.sources) <= keep:
            return
        folders = [self._increment(document, image, source) for source in merged]
        size = sum(_merge(disks) for disks in _by_disk(folders))
        for folder in folders[:-1]:
            shutil.rmtree(folder)
        left = list(image.sources)[-keep:]
        image.sources[left[0]] = self._merged(folders[-1])
        print(size >> 20, image.chain(None, left))

    def _merged(self, folder: Path) -> str:
        """The SOURCE of a backup that others have been merged into."""
        return folder.name

    # --- restoring --------------------------------------------------------------------------------------------------

    def restore(self, _arguments: Sequence[str]) -> None:
        """A request's id; DS_DRIVER_ACTION_DATA with DESTINATION_DS_ID in base64 on stdin: `-1 IMAGE ...`."""
        document = _decoded()
        image = Backup(document)
        wanted, increment = (document.findtext(f"TEMPLATE/{name}") for name in ("DISK_ID", "INCREMENT_ID"))
        chain = image.chain(None if increment is None else int(increment))
        name = document.findtext("TEMPLATE/NAME") or f"{image.vm}-{image.selected}"
        made = []
        for path in self._disks(document, image):
            disk = path.name.split(".")[1]
            if wanted in (None, disk):
                url = image.url(self.scheme, chain) + self._path(path)
                made.append(_allocate(document, f"{name}-disk-{disk}", "OS" if disk == "0" else "DATABLOCK", url))
        # Without the template of a VM, as for a single disk.
        print(-1, *made)

    def download(self, arguments: Sequence[str]) -> None:
        """`[--nodecomp] URL -`: the image of a URL of this server's to stdout, its increments in one."""
        url = next(word for word in arguments if "://" in word)
        if not url.startswith(f"{self.scheme}://"):
            raise ScriptFailed(f"Error copying: this downloader brings only {self.scheme}://, not {url}")
        *earlier, file = self._files(url)
        if earlier:
            _rebase([*earlier, file])
            last, file = file, self.folder / f"{secrets.token_hex(8)}.tmp"
            _run("qemu-img", "convert", "-O", "qcow2", str(last), str(file))
        try:
            with file.open("rb") as source:
                shutil.copyfileobj(source, sys.stdout.buffer)
        except OSError as failure:
            raise ScriptFailed(f"Error copying: {failure}") from None
        finally:
            if file.suffix == ".tmp":
                file.unlink()


class Repositories(Server):
    """The same for restic: a snapshot's files lie beside the path of the directory that they were in on their host."""

    scheme = "restic"
    _source_bytes = 4

    def _top(self, base: str, vm: str, job: str) -> Path:
        return self._at(f"{base}/job_{job}" if job else f"{base}/{vm}")

    def _path(self, file: Path) -> str:
        return f"{file.with_name('path').read_text(encoding='utf-8')}/{file.name}"

    def _files(self, url: str) -> list[Path]:
        datastore, job, chain, path = _parts(url)
        named = re.fullmatch(r".*/(\d+)/backup/disk\.(\d+)\.\d+", path)
        if named is None:
            raise ScriptFailed(f"Wrong format for disk filename: {path}")
        top = self._top(f"/var/lib/one/datastores/{datastore}", named.group(1), job)
        found = [next((top / source).glob(f"disk.{named.group(2)}.*"), None) for _, source in chain]
        if None in found:
            raise ScriptFailed(f"no matching ID found in {top.name} for one of {chain}")
        return [file for file in found if file is not None]

    def _fetch(self, host: str, directory: str, target: Path) -> int:
        _fetch(host, directory, target)
        size = sum(file.stat().st_size for file in target.iterdir())
        (target / "path").write_text(directory, encoding="utf-8")
        return size >> 20

    def _merged(self, folder: Path) -> str:
        return folder.rename(folder.with_name(secrets.token_hex(self._source_bytes))).name


class Backup:
    """A backup image as the scripts are told of it: its sources by the increments' ids."""

    def __init__(self, document: Element) -> None:
        image = _found(document, "IMAGE")
        increments = image.findall("BACKUP_INCREMENTS/INCREMENT")
        self.sources = {int(one.findtext("ID", "")): one.findtext("SOURCE", "") for one in increments}
        self.sources = self.sources or {0: image.findtext("SOURCE", "")}
        self.vm = image.findtext("VMS/ID", "")
        self.datastore = document.findtext("DATASTORE/ID", "")
        self.job = image.findtext("TEMPLATE/BACKUP_JOB_ID") or ""
        # As OpenNebula's own, for which no id is 0.
        named = int(document.findtext("TEMPLATE/INCREMENT_ID", "0"))
        self.selected = self.sources.get(named, self.sources[max(self.sources)])

    def chain(self, last: Optional[int], chosen: Sequence[int] = ()) -> str:
        """`ID:SOURCE,...`, up to an increment or of the chosen."""
        wanted = chosen or [number for number in self.sources if last is None or number <= last]
        return ",".join(f"{number}:{self.sources[number]}" for number in wanted)

    def url(self, scheme: str, chain: str) -> str:
        """What a disk's path is put behind."""
        return f"{scheme}://{self.datastore}/{self.job}/{chain}"


def _found(document: Element, name: str) -> Element:
    found = document.find(name)
    if found is None:
        raise ScriptFailed(f"Missing {name} in the action's data")
    return found


def _decoded() -> Element:
    """The action's data: before 6.8 the first of two arguments, unless that is `-`; else what is on stdin."""
    in_argument = len(sys.argv) == 3 and sys.argv[1] != "-"
    return ElementTree.fromstring(base64.b64decode(sys.argv[1] if in_argument else sys.stdin.read()))


def _parts(url: str) -> tuple[str, str, list[tuple[str, str]], str]:
    """(datastore, backup job, [(increment, source)], path) of rsync://DS/JOB/CHAIN/PATH."""
    datastore, job, chain, path = url.partition("://")[2].split("/", 3)
    pairs = [part.partition(":") for part in chain.split(",")]
    return datastore, job, [(number, source) for number, _, source in pairs], f"/{path}"


def _backup_directory(directory: str, vm: str) -> str:
    """Where prebackup has left its files: below BACKUP_BASE_PATH, if the administrator has set it."""
    settings = Path(sys.argv[0]).resolve().parents[2] / "etc" / "datastore" / "datastore.conf"
    text = settings.read_text(encoding="utf-8") if settings.exists() else ""
    base = re.search(r"^\s*(?:export\s+)?BACKUP_BASE_PATH=[\"']?([^\"'\s]+)", text, re.M)
    return os.path.normpath(f"{base.group(1)}/{vm}/backup" if base else f"{directory}/backup")


def _fetch(host: str, directory: str, target: Path) -> int:
    """Copy a directory of a host; its size in MiB, which needs a disk in it."""
    quoted = shlex.quote(directory)
    counted = _run("ssh", host, f"ls {quoted}/disk.* >/dev/null && du -sm {quoted}").decode()
    with subprocess.Popen(["ssh", host, f"tar -C {quoted} -cSf - ."], stdout=subprocess.PIPE) as sent:
        subprocess.run(["tar", "-C", str(target), "-xSf", "-"], stdin=sent.stdout, check=True, capture_output=True)
    if sent.returncode:
        raise ScriptFailed(f"Error copying backup: ssh {host} exited with {sent.returncode}")
    return int(counted.split()[0])


def _by_disk(folders: Sequence[Path]) -> list[list[Path]]:
    """The files of each disk, from the oldest."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.glob("disk.*")):
            found.setdefault(path.name.split(".")[1], []).append(path)
    return list(found.values())


def _merge(files: Sequence[Path]) -> int:
    """Commit increments to the first, which takes the place of the last; bytes that it takes."""
    if len(files) > 1:
        _rebase(files)
        _run("qemu-img", "commit", "-f", "qcow2", "-b", str(files[0]), str(files[-1]))
        files[0].rename(files[-1])
    return int(json.loads(_run("qemu-img", "info", "--output", "json", str(files[-1])))["actual-size"])


def _rebase(files: Sequence[Path]) -> None:
    for base, file in zip(files, files[1:]):
        _run("qemu-img", "rebase", "-u", "-F", "qcow2", "-b", str(base), str(file))


def _run(*command: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout


def _allocate(document: Element, name: str, kind: str, url: str) -> int:
    home = Path.home() / ".one"
    session = (home / "one_auth").read_text(encoding="utf-8").strip()
    backups = document.findtext("DATASTORE/ID")
    template = f'NAME = "{name}"\nTYPE = "{kind}"\nPATH = "{url}"\nFROM_BACKUP_DS = "{backups}"\n'
    oned: Any = xmlrpc.client.ServerProxy((home / "one_endpoint").read_text(encoding="utf-8").strip())
    answer = oned.one.image.allocate(session, template, int(document.findtext("DESTINATION_DS_ID", "-1")), False)
    if not answer[0]:
        raise ScriptFailed(f"Error restoring disk image: {answer[1]}")
    return int(answer[1])
