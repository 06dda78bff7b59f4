"""The crowd at work: rounds of deeds by several workers, and after each a quiet point at which all must agree."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Callable, Optional, TypeVar

from linstor_sandbox import Pool
from linstor_sandbox.hosts.guests import GuestHeld
from linstor_sandbox.opennebula import (
    ActionFailed,
    BootFailed,
    HypervisorFailed,
    ImageState,
    LcmState,
    Refused,
    VirtualMachine,
    VmState,
)
from linstor_sandbox.opennebula.scripts import Call
from linstor_un.naming import Names
from tests.conftest import CHECKOUT, World, build_world
from tests.crowd import comparison, deeds
from tests.crowd.excuses import is_excused
from tests.crowd.model import Model
from tests.crowd.trouble import Trouble
from tests.faults.picture import differences
from tests.faults.stage import _MEMORY, _free_port, stage_of
from tests.forks import forks

T = TypeVar("T")
# Those that can go back to any snapshot, in pools that have snapshots.
_REST_VERSIONS = ("1.27.0", "1.28.0", "1.29.1")
_KINDS = ("LVM_THIN", "ZFS_THIN", "ZFS")
_POOL_MIB = 1 << 20
NODES = ("node1", "node2", "node3", "node4")
_FAILED = (ActionFailed, BootFailed, GuestHeld, HypervisorFailed)
_LONGEST_CALL_SECONDS = 180
_SETTLING_SECONDS = 15
_TOLD = 20
_CALLS_TOLD = 10
_CHARACTERS_TOLD = 2000
_SETTINGS = (
    'CONNECT_TIMEOUT="5"\nFAILOVER_TIMEOUT="10"\nREQUEST_TIMEOUT="20"\nDEVICE_TIMEOUT="20"\nIN_USE_TIMEOUT="5"\n'
    'LOCK_TIMEOUT="90"\nSSH_CONNECT_TIMEOUT="3"\nFREEZE_TIMEOUT="10"\nHOLD_TIMEOUT="20"\n'
)


@dataclass
class Crowd:
    """Some workers on one OpenNebula; `wrong` is what they and the comparisons have found."""

    world: World
    workers: int
    seed: str
    rate: float
    per_round: int = 200
    excused: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    done: int = 0

    def __post_init__(self) -> None:
        self.model = Model(self.world)
        self.trouble = Trouble(self.world, self.rate)
        self.world.cloud.scripts.timeout = _LONGEST_CALL_SECONDS
        self.stage = stage_of(self.world)

    @property
    def actions(self) -> int:
        """How often oned has called the driver."""
        return sum(call.kind != "onevm" for call in self.world.cloud.calls)

    def run(self, deeds: int = 0, actions: int = 0) -> list[str]:
        """So many deeds at least, of users and operators, and of actions of the driver for them, in rounds.

        Ends at the first quiet point with a difference, else when all is deleted.
        """
        while (self.done < deeds or self.actions < actions) and not self.wrong:
            self._round(min(self.per_round, deeds - self.done) if self.done < deeds else self.per_round)
            self._quiet_point()
        if not self.wrong:
            self._delete_everything()
        return self.wrong

    # --- at work ------------------------------------------------------------------------------------------------------

    def _round(self, count: int) -> None:
        numbers = itertools.count(self.done)
        end = self.done + count
        lock = threading.Lock()

        def next_number() -> int:
            with lock:
                return next(numbers)

        def work(worker: int) -> None:
            draw = random.Random(f"{self.seed} {worker} {self.done}")
            while (number := next_number()) < end and not self.wrong:
                self._deed(draw, number)

        with ThreadPoolExecutor(self.workers) as pool:
            for result in [pool.submit(work, worker) for worker in range(self.workers)]:
                result.result()
        self.done = end

    def _deed(self, draw: random.Random, number: int) -> None:
        self.trouble.draw(draw, number)
        deed = None
        while deed is None:
            deed = deeds.choose(self.model, draw)
            if deed is not None:
                self._do(deed, None)
                return
            with self.model.reserved(draw) as vm:
                deed = None if vm is None else deeds.choose_for(self.model, draw, vm)
                if deed is not None:
                    self._do(deed, vm)

    def _do(self, deed: deeds.Deed, vm: Optional[VirtualMachine]) -> None:
        name = deed.__qualname__.split(".")[0].strip("_")
        self.counts[name] += 1
        if vm is not None:
            self.model.again.pop(vm.identifier, None)
        try:
            deed()
        except Refused:
            self.counts["refused"] += 1
        except _FAILED as failure:
            self.counts["failed"] += 1
            if not self.rate:
                self.wrong.append(f"{name} failed: {_reason(failure)}")
            if vm is not None and not vm.lcm_state.name.endswith("_FAILURE"):
                self.model.again[vm.identifier] = deed
                self._find_running(vm)

    # --- at rest ------------------------------------------------------------------------------------------------------

    def _quiet_point(self) -> None:
        """Mend all, let operators do what is left for them, and compare."""
        if self.wrong:
            return
        self.trouble.mend()
        self._settle()
        self._recover()
        if self.rate:
            self.world.sandbox.run_balance()
        self._compare()

    def _settle(self) -> None:
        """Wait for what still runs of scripts whose ssh was cut off."""
        deadline = time.monotonic() + _SETTLING_SECONDS
        while (left := self.stage.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.wrong += [f"process {number} is left: {command}" for number, command in left.items()]

    def _recover(self) -> None:
        cloud = self.world.cloud
        self._end_zombies()
        for vm in self.model.machines():
            self._try_again(vm)
            self._monitor(vm)
            if vm.lcm_state.name.endswith("_FAILURE"):
                self._must(f"VM {vm.identifier}, {vm.lcm_state.name}, retried", cloud.recover_retry, vm)
        for image in self.model.images(ImageState.ERROR):
            if image.persistent and image.source and image.identifier not in self.model.doomed:
                cloud.enable_image(image)
            else:
                self._must(f"image {image.identifier}, deleted", cloud.delete_image, image)
        self.model.doomed.clear()
        self._end_zombies()

    def _end_zombies(self) -> None:
        """What operators do with domains of VMs that oned has ended without their hosts: monitoring reports them."""
        domains = self.world.sandbox.domains
        on_hosts = {f"one-{vm.identifier}" for vm in self.model.machines() if not _is_to_come(vm)}
        for domain in list(domains.all.values()):
            if domain.name not in on_hosts:
                domains.stop(domain)

    def _try_again(self, vm: VirtualMachine) -> None:
        deed = self.model.again.pop(vm.identifier, None)
        if deed is None:
            return
        try:
            deed()
        except (Refused, *_FAILED) as failure:
            if self._monitor(vm) or isinstance(failure, Refused):
                return
            if "detach-disk" not in str(failure):
                self.wrong.append(f"VM {vm.identifier}, the same again: {_reason(failure)}")
                return
            # The guest has let go of it before: what is left to do is done while it is off.
            self.world.cloud.poweroff(vm)
            self._must(f"VM {vm.identifier}, the same powered off", lambda _: deed(), vm)

    def _monitor(self, vm: VirtualMachine) -> bool:
        """What oned's monitoring finds out about a VM; whether that is not what oned had believed."""
        if vm.lcm_state in (LcmState.RUNNING, LcmState.UNKNOWN) and vm.host not in self._hosts(vm):
            self.world.cloud.poweroff(vm)
            return True
        return self._find_running(vm)

    def _find_running(self, vm: VirtualMachine) -> bool:
        """Whether a VM runs that oned has believed at rest: its monitoring says so long before anybody uses the VM."""
        if vm.state not in (VmState.POWEROFF, VmState.SUSPENDED) or vm.host not in self._hosts(vm):
            return False
        vm.is_saved = False
        self.world.cloud.hypervisor.restored(vm)
        vm.become(VmState.ACTIVE, LcmState.RUNNING)
        return True

    def _hosts(self, vm: VirtualMachine) -> list[str]:
        domains = list(self.world.sandbox.domains.all.values())
        return [domain.node for domain in domains if domain.name == f"one-{vm.identifier}"]

    def _must(self, what: str, act: Callable[[T], object], whom: T) -> None:
        try:
            act(whom)
        except (Refused, *_FAILED) as failure:
            self.wrong.append(f"{what}: {_reason(failure)}")

    def _compare(self, excuses: Callable[[str, Sequence[Call]], bool] = is_excused) -> None:
        expected, found = comparison.expected(self.model), comparison.found(self.model)
        for line in differences(found, expected):
            calls = self._story(line)
            if self.rate and excuses(line, calls):
                self.excused.add(line)
            elif len(self.wrong) < _TOLD:
                self.wrong.append("\n".join([line, *(_shown(call) for call in calls[-_CALLS_TOLD:])]))
        if not self.rate:
            self.wrong += [_shown(call) for call in self.world.cloud.calls if not call.succeeded]
        self.wrong += [f"the sandbox itself has failed: {trace}" for trace in self.world.sandbox.exceptions]

    def _story(self, line: str) -> list[Call]:
        """The calls that had to do with the volume, the VM or the image that a difference is about, in their order."""
        numbers = re.search(r"one-(vm-|image-)?(\d+)", line)
        if numbers is None:
            return self.world.cloud.calls
        vms, images = ({numbers[2]}, set()) if numbers[1] != "image-" else (set(), {numbers[2]})
        link = re.search(r": link \S+:\d+/(\d+)/", line)
        vms |= {link[1]} if link else set()
        # Most calls for a VM do not say which images it has: the one that has linked it did.
        linked = [call for call in self.world.cloud.calls if call.verb == "ln" and _names_image(call, images)]
        vms |= {call.argv[-2] for call in linked}
        return [call for call in self.world.cloud.calls if _names_image(call, images) or _names_vm(call, vms)]

    def _delete_everything(self) -> None:
        """Have users delete all they have; then operators mend what that cannot, and nothing may be left."""
        cloud = self.world.cloud
        for vm in self.model.machines():
            self._must(f"VM {vm.identifier}, terminated", cloud.terminate, vm)
        for image in list(cloud.images):
            self._must(f"image {image.identifier}, deleted", cloud.delete_image, image)
        self._compare(partial(is_excused, at_end=True))
        if self.rate and not self.wrong:
            self._audit()
            self._compare(lambda _line, _calls: False)

    def _audit(self) -> None:
        """Have an operator repair what the audit finds, and the front-end started again: locks live in its memory."""
        done = self._linstor_un("audit", "--hosts", "--repair", "--yes")
        # What is complete may be the last copy of data: the operator names it.
        known = {line.partition(":")[0] for line in self.excused}
        named = [name for name in re.findall(r"--delete (\S+)", done.stdout) if Names().first_name(name) in known]
        if named:
            wanted = itertools.chain.from_iterable(("--delete", name) for name in named)
            done = self._linstor_un("audit", "--hosts", "--repair", "--yes", *wanted)
        if done.returncode:
            self.wrong.append(f"the audit has not repaired all:\n{done.stdout}{done.stderr}")
        for lock in (self.world.folder.parent / "locks").iterdir():
            lock.unlink()

    def _linstor_un(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command, environment = str(CHECKOUT / "linstor-un"), dict(self.world.cloud.scripts.environment)
        return subprocess.run(
            [sys.executable, command, *arguments], env=environment, capture_output=True, text=True, check=False
        )


def _is_to_come(vm: VirtualMachine) -> bool:
    """Whether no host can have a VM yet, at least not in this life of it."""
    return vm.state == VmState.PENDING or vm.lcm_state == LcmState.PROLOG_FAILURE


def _names_image(call: Call, images: Collection[str]) -> bool:
    """Whether a call's arguments name one of the images, or its data does that it copies from."""
    if call.kind == "datastore" and call.verb not in ("monitor", "stat") and call.argv[-1] in images:
        return True
    texts = [*call.argv, call.action_data] if call.kind == "datastore" else call.argv
    return any(f"/one-image-{image}/" in text for image in images for text in texts)


def _names_vm(call: Call, vms: Collection[str]) -> bool:
    """Whether a call is for one of the VMs: all but images' have its id in the last place but one."""
    return call.kind != "datastore" and len(call.argv) > 1 and call.argv[-2] in vms


def _shown(call: Call) -> str:
    return f"    {call.verb} {' '.join(call.argv_shown)}: {call.exit_code} {call.stderr.strip()[-_CHARACTERS_TOLD:]}"


def _reason(failure: Exception) -> str:
    return str(failure)[-600:]


@contextmanager
def crowd(workers: int, seed: str, rate: float, per_round: int = 200) -> Iterator[Crowd]:
    """A crowd in a world of its own, in memory where there is room."""
    with tempfile.TemporaryDirectory(prefix="linstor-un-crowd-", dir=_MEMORY) as name, ExitStack() as stack:
        folder, port = Path(name) / "world", _free_port()
        draw = random.Random(seed)
        pools = (Pool("data", draw.choice(_KINDS), _POOL_MIB),)
        world = build_world(
            stack, folder, NODES, pools, draw.choice(_REST_VERSIONS), configuration=_SETTINGS, port=port
        )
        for temporary in ("oned", "temporary"):
            (folder / temporary).mkdir(exist_ok=True)
        world.cloud.scripts.environment = {**world.cloud.scripts.environment, "TMPDIR": str(folder / "temporary")}
        forked = stack.enter_context(forks(folder, world.cloud.scripts.environment))
        world.cloud.scripts.launch = forked
        running = Crowd(world, workers, seed, rate, per_round)
        running.stage.server = forked.server
        yield running
