"""`./dev demo`: the command line of the demonstration."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn, Optional

from linstor_sandbox.demo.images import prepare
from linstor_sandbox.demo.report import Report
from linstor_sandbox.demo.story import Story
from linstor_sandbox.opennebula import Refused

CHECKOUT = Path(__file__).resolve().parents[3]


def main(arguments: list[str]) -> int:
    """Tell the story; 0 when everything was right, 1 when something was wrong, 130 when it was interrupted."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    report = Report()
    # Image datastores without SAFE_DIRS take images from /var/tmp only, so the image has to lie there.
    folder = Path(tempfile.mkdtemp(prefix="linstor-un-demo-", dir="/var/tmp"))
    try:
        with report.working("preparing the image"):
            image = prepare(options.image, folder)
        Story(CHECKOUT, folder, image, report).tell()
    except (RuntimeError, OSError, Refused) as error:
        report.failed(str(error))
    except KeyboardInterrupt:
        report.failed("interrupted")
        return 130
    finally:
        if options.keep:
            report.note(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    report.conclude(time.monotonic() - started)
    return 1 if report.failures else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument(
        "--image",
        metavar="FILE|URL",
        help="import this image, raw, qcow2, vmdk, vhdx or vdi, also inside gz, bz2, xz or zst (default: one is made)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the sandbox's files afterwards")
    return parser.parse_args(arguments)


def _interrupt(_signal: int, _frame: Optional[FrameType]) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
