"""`./dev bench`: what the driver costs, and what has become worse since another run."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import budgets, comparison, figures, report
from bench.cluster import POOL, NotPossible, real
from bench.figures import Results
from bench.parts import actions, clone, crowd, data, monitor, startup
from bench.setting import Setting, Table
from bench.world import CHECKOUT

COMMAND = "./dev bench"
PARTS = {module.PART.name: module.PART for module in (startup, actions, data, clone, monitor, crowd)}
_MARK = "<!-- written by ./dev bench --table -->"
_KEPT = CHECKOUT / "build" / "bench.json"
# Where there is such a place: it is not the speed of this machine's disk that is to be measured.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main(arguments: list[str]) -> int:
    """Measure what is asked for; 1 where something became worse, 2 where it cannot be measured, 130 interrupted."""
    options = _options(arguments)
    try:
        old = figures.read(options.against) if options.against else None
        kept = figures.read(options.json) if options.keep and options.json.exists() else Results({}, {})
        results = Results(_circumstances(options, arguments), _measured(options)).beside(kept)
    except (NotPossible, OSError, ValueError) as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{COMMAND}: interrupted", file=sys.stderr)
        return 130
    results.write(options.json)
    tables = [table for name in PARTS if name in results.parts for table in PARTS[name].tables(results.parts[name])]
    tables += budgets.tables(results)
    report.show(tables)
    print(f"\n{_told(results)}\nKept in {options.json}.")
    if options.table:
        _put(options.table, tables, results)
    return _compare(old, results) if old else 0


def _measured(options: argparse.Namespace) -> dict[str, list[figures.Row]]:
    """The rows of every part that is asked for."""
    with tempfile.TemporaryDirectory(prefix="linstor-un-bench-", dir=_MEMORY) as folder, ExitStack() as stack:
        setting = Setting(
            Path(folder),
            options.driver.resolve(),
            stack.enter_context(real(options.controller, options.nodes, options.pool)) if options.controller else None,
            options.runs,
            options.size,
            options.large,
            options.at_once,
            options.vms,
            options.workers,
            options.volumes,
            lambda text: print(f"{COMMAND}: {text}", file=sys.stderr, flush=True),
        )
        return {name: PARTS[name].measure(setting) for name in options.parts or PARTS}


def _circumstances(options: argparse.Namespace, arguments: Sequence[str]) -> dict[str, str]:
    """What figures depend on."""
    asked = ["git", "-C", str(options.driver), "describe", "--always", "--dirty"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "command": " ".join([COMMAND, *arguments]),
        "commit": commit or "none",
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("python-linstor", "lxml")},
        "processors": f"{os.cpu_count()} processors {_processor()}",
        "cluster": options.controller or "sandbox",
        **{name: str(getattr(options, name)) for name in ("runs", "size", "at_once", "vms", "workers")},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _told(results: Results) -> str:
    parts = [part for part in results.parts if part not in results.kept]
    runs = [(results.made, parts)]
    for part, made in results.kept.items():
        known = next((run for run in runs if run[0] == made), None)
        if known is None:
            runs.append((made, [part]))
        else:
            known[1].append(part)
    return "\n\n".join((f"{', '.join(of)}: " if len(runs) > 1 else "") + _run(made) for made, of in runs)


def _run(made: Mapping[str, str]) -> str:
    return (
        f"`{made['command']}`: {made['when']}, commit {made['commit']}, Python {made['python']}, python-linstor "
        f"{made['python-linstor']}, lxml {made['lxml']}, {made['processors']}. Medians of {made['runs']} runs (the "
        "least–the most)."
    )


def _put(page: Path, tables: Sequence[Table], results: Results) -> None:
    """Replace what is behind the mark of a page."""
    text = page.read_text(encoding="utf-8").partition(_MARK)[0]
    page.write_text(f"{text}{_MARK}\n\n{_told(results)}\n\n{report.markdown(tables)}\n", encoding="utf-8")


def _compare(old: Results, new: Results) -> int:
    """Say what became worse; 1 where anything did."""
    print(f"\nAgainst commit {old.made.get('commit')} of {old.made.get('when')}:")
    for remark in comparison.remarks(old, new):
        print(f"  note: {remark}")
    worse = comparison.regressions(old, new)
    for line in worse:
        print(f"  worse: {line}")
    print(f"{len(worse) or 'Nothing'} became worse.")
    return 1 if worse else 0


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in _words(text))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parts = "\n".join(f"  {part.name:<10}{part.meaning}" for part in PARTS.values())
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description=__doc__,
        epilog=f"parts:\n{parts}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what is measured (all, which takes an hour)")
    parser.add_argument("--runs", type=int, default=5, help="how often; figures are medians (5)")
    parser.add_argument(
        "--json", type=Path, default=_KEPT, metavar="FILE", help="where figures are kept (build/bench.json)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the figures of other parts that are in that file")
    parser.add_argument("--against", type=Path, metavar="FILE", help="name what became worse since those figures")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="put the tables at the end of this page")
    parser.add_argument(
        "--driver", type=Path, default=CHECKOUT, metavar="FOLDER", help="another checkout, or a remotes folder"
    )
    sizes = parser.add_argument_group("sizes")
    sizes.add_argument("--size", type=int, default=1024, metavar="MIB", help="of images that are copied (1024)")
    sizes.add_argument(
        "--large", type=int, default=0, metavar="GIB", help="of a sparse image whose memory counts (none)"
    )
    sizes.add_argument("--at-once", type=int, default=15, metavar="COUNT", help="disks cloned at one time (15)")
    sizes.add_argument("--vms", type=int, default=300, metavar="COUNT", help="of the crowd (300)")
    sizes.add_argument("--workers", type=int, default=15, metavar="COUNT", help="of the crowd (15)")
    sizes.add_argument(
        "--volumes", type=_numbers, default=(100, 1000, 10000), help="there when monitoring (100,1000,10000)"
    )
    place = parser.add_argument_group("a real cluster, instead of sandboxes; what is made there is removed")
    place.add_argument("--controller", metavar="URL", help="its address, without TLS")
    place.add_argument("--nodes", type=_words, default=(), metavar="NODE,...", help="two for replicas, one without")
    place.add_argument("--pool", default=POOL, help=f"the storage pool ({POOL})")
    options = parser.parse_args(arguments)
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}: use {', '.join(PARTS)}")
    if bool(options.controller) != bool(options.nodes):
        parser.error("--controller and --nodes go together")
    if options.controller and options.volumes != parser.get_default("volumes"):
        parser.error("--volumes needs a sandbox: a real cluster is measured with the volumes that it has")
    if not (options.driver / "tm" / "linstor_un" / "clone").exists():
        parser.error(f"{options.driver} has no tm/linstor_un/clone: name a checkout or a remotes folder")
    if min(options.runs, options.size, options.at_once, options.vms, options.workers) < 1:
        parser.error("counts and sizes are at least 1")


if __name__ == "__main__":
    # The entry scripts keep their bytecode, as an installation does.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Whatever ends it, what it has made is removed.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
