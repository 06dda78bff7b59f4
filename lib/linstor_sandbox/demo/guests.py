"""What a guest does with its disk, done from its host: reading and writing the device behind disk.N over ssh."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from linstor_sandbox.demo.images import MIB, run

if TYPE_CHECKING:
    from linstor_sandbox import Sandbox
    from linstor_sandbox.opennebula import VirtualMachine

BLOCK = 64 * 1024


class Guest:
    """One disk of a VM, and a reference file with the bytes that must be in it."""

    def __init__(self, sandbox: Sandbox, vm: VirtualMachine, disk_id: int, image: Path, reference: Path) -> None:
        """The reference begins as the bytes of `image`."""
        self._sandbox = sandbox
        self.vm = vm
        self.disk_id = disk_id
        self.reference = reference
        run("cp", "--sparse=always", "--reflink=auto", str(image), str(reference))
        self.grow(vm.disk(disk_id).size)

    def link(self, host: str = "") -> Path:
        """The disk.N in the VM's directory on a host, as this machine sees it."""
        directory = self.vm.directory.replace("//", "/").lstrip("/")
        return self._sandbox.host(host or self.vm.host) / directory / f"disk.{self.disk_id}"

    def device(self) -> str:
        """Where disk.N leads, as its host names it."""
        target = str(self.link().readlink())
        return target.replace(str(self._sandbox.host(self.vm.host)), "")

    def size(self) -> int:
        """Bytes of the device on its host."""
        return int(self._ssh(f"blockdev --getsize64 {self.device()}").stdout)

    def grow(self, size_mib: int) -> None:
        """The disk is larger now: what is new must read as zeroes."""
        os.truncate(self.reference, max(size_mib * MIB, self.reference.stat().st_size))

    def keep(self) -> Path:
        """A copy of the reference as it is now."""
        copy = self.reference.with_suffix(".kept")
        run("cp", "--sparse=always", "--reflink=auto", str(self.reference), str(copy))
        return copy

    def take(self, copy: Path) -> None:
        """The disk is again as it was when this copy was made."""
        copy.replace(self.reference)

    def write_file(self, name: str, content: bytes) -> None:
        """Put a file into the disk's ext4 file system, as a guest that has it mounted."""
        changed, local = self.reference.with_suffix(".new"), self.reference.with_suffix(".file")
        run("cp", "--sparse=always", "--reflink=auto", str(self.reference), str(changed))
        local.write_bytes(content)
        run("debugfs", "-w", "-R", f"write {local} {name}", str(changed))
        for offset, block in _differences(self.reference, changed):
            self.write(offset, block)
        changed.unlink()
        local.unlink()

    def write(self, offset: int, content: bytes) -> None:
        """Write whole blocks to the device and to the reference."""
        command = f"dd of={self.device()} bs={BLOCK} seek={offset // BLOCK} conv=notrunc iflag=fullblock status=none"
        self._ssh(command, content)
        with self.reference.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def read_file(self, name: str) -> bytes:
        """A file of the disk's ext4 file system, read from the device on its present host."""
        dump = self.dump()
        done = subprocess.run(["debugfs", "-R", f"cat {name}", str(dump)], capture_output=True, check=False)
        dump.unlink()
        return done.stdout

    def file_system_faults(self) -> str:
        """What e2fsck has to complain about; empty when there is nothing."""
        dump = self.dump()
        done = subprocess.run(["e2fsck", "-f", "-n", str(dump)], capture_output=True, text=True, check=False)
        dump.unlink()
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def difference(self) -> str:
        """Compare every byte of the device with the reference; empty when they are the same."""
        with self._reading() as device:
            return compare(iter(lambda: device.read(MIB), b""), self.reference)

    def dump(self) -> Path:
        """All bytes of the device, read on its present host, in a sparse file."""
        target = self.reference.with_suffix(".dump")
        with self._reading() as device, target.open("wb") as file:
            while block := device.read(MIB):
                if block.count(0) == len(block):
                    file.seek(len(block), os.SEEK_CUR)
                else:
                    file.write(block)
            file.truncate()
        return target

    @contextmanager
    def _reading(self) -> Iterator[IO[bytes]]:
        """The device's bytes as dd on its host reads them."""
        command = f"dd if={self.device()} bs={MIB} status=none"
        with subprocess.Popen(
            ["ssh", self.vm.host, command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            yield process.stdout
            process.stdout.close()
            told = process.stderr.read().decode(errors="replace").strip()
        # A reader that has seen a difference stops early, and dd with it.
        if process.returncode not in (0, -signal.SIGPIPE, 128 + signal.SIGPIPE):
            raise RuntimeError(f"{command} on {self.vm.host} failed: {told}")

    def _ssh(self, command: str, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            ["ssh", self.vm.host, command], input=content, capture_output=True, env=self._environment(), check=False
        )
        if done.returncode != 0:
            told = done.stderr.decode(errors="replace").strip()
            raise RuntimeError(f"{command} on {self.vm.host} failed: {told}")
        return done

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, **self._sandbox.environment()}


def compare(found: Iterable[bytes], expected: Path) -> str:
    """The first difference of blocks and a file, in words; what was found may go on with zeroes."""
    position = 0
    with expected.open("rb") as file:
        for block in found:
            wanted = file.read(len(block)).ljust(len(block), b"\0")
            if block != wanted:
                where = next(index for index, byte in enumerate(block) if byte != wanted[index])
                return f"the bytes differ from offset {position + where} on"
            position += len(block)
    size = expected.stat().st_size
    return "" if position >= size else f"there are {position} bytes and {size} were expected"


def _differences(before: Path, after: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and new content of every block that is not as before."""
    with before.open("rb") as old, after.open("rb") as new:
        offset = 0
        while block := new.read(BLOCK):
            if block != old.read(BLOCK):
                yield offset, block
            offset += BLOCK
