"""The commands of ./dev. The first run, with whatever Python there is, prepares .venv; the second is inside it."""

from __future__ import annotations

import os
import sys

from development import commands, environment
from development.errors import NotPossible


def main(arguments: list[str]) -> int:
    """Run one command; the exit code is that of what it runs."""
    command = commands.COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        print(commands.usage(), file=sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"], ["help"]) else 2
    try:
        prepared = environment.prepare()
    except NotPossible as error:
        print(f"./dev: {error}", file=sys.stderr)
        return 1
    os.environ.update(prepared)
    return command.run(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
