"""`./dev crowd`: many users at once, with faults, and whether what exists is what should."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.crowd.crowd import Crowd, crowd

_COMMAND = "./dev crowd"
_SHRINKING_SECONDS = 60
_RATE = 0.1


def attempt(options: argparse.Namespace, deeds: int, actions: int = 0, tells: bool = True) -> tuple[list[str], int]:
    """Run so many deeds or actions and return what was wrong, and after how many deeds."""
    started = time.monotonic()
    with crowd(options.workers, options.seed, options.rate if options.faults else 0, options.per_round) as running:
        wrong = running.run(deeds, actions)
        if tells:
            tell(running, (time.monotonic() - started) / 60)
    return wrong, running.done


def tell(running: Crowd, minutes: float) -> None:
    """Say what was done."""
    counted = ", ".join(f"{count} {name}" for name, count in sorted(running.counts.items()))
    faults = ", ".join(f"{count} {name}" for name, count in sorted(running.trouble.made.items()))
    cloud = running.world.cloud
    print(f"{counted}\nfaults: {faults or 'none'}")
    print("".join(f"left, as it may be: {line}\n" for line in sorted(running.excused)), end="")
    print(
        f"{running.done} deeds by {running.workers} workers, seed {running.seed}: {running.actions} actions, "
        f"{cloud.next_vm_id} VMs, {cloud.next_image_id} images, {len(running.wrong)} differences, "
        f"{minutes:.1f} minutes, {running.actions / minutes:.0f} actions per minute",
        flush=True,
    )


def shrink(options: argparse.Namespace, failing: int) -> int:
    """The fewest deeds that still fail, as far as they can be found in a minute."""
    deadline = time.monotonic() + _SHRINKING_SECONDS
    good = 0
    while failing - good > 1 and time.monotonic() < deadline:
        middle = (good + failing) // 2
        if attempt(options, middle, tells=False)[0]:
            failing = middle
        else:
            good = middle
    return failing


def main(arguments: list[str]) -> int:
    """Run what is asked for; 0 when there was no difference."""
    options = _options(arguments)
    # The entry scripts keep their bytecode, as an installation does.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    wrong, deeds = attempt(options, options.deeds, 0 if options.deeds else options.actions)
    if wrong:
        if options.workers == 1:
            deeds = shrink(options, deeds)
        faults = f"--faults --rate {options.rate}" if options.faults else "--no-faults"
        print("\n".join(f"\n{difference}" for difference in wrong))
        print(f"\nagain: {_COMMAND} --deeds {deeds} --workers {options.workers} --seed {options.seed} {faults}")
    return 1 if wrong else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__)
    parser.add_argument("--actions", type=int, default=20000, help="how often oned calls the driver in all (20000)")
    parser.add_argument("--deeds", type=int, default=0, help="how much users and operators do, instead of --actions")
    parser.add_argument("--workers", type=int, default=15, help="by how many at once (15); 1 can be repeated exactly")
    parser.add_argument("--seed", default="1", help="what decides all that is drawn (1)")
    parser.add_argument("--faults", action=argparse.BooleanOptionalAction, default=True, help="let things go wrong")
    parser.add_argument("--rate", type=float, default=_RATE, help=f"faults per deed ({_RATE})")
    parser.add_argument("--per-round", type=int, default=200, help="deeds between two comparisons (200)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
