"""`python3 -m linstor_un.cli`, and where the scripts named linstor-un begin."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command on this process's arguments and exit with its code."""
    try:
        import click  # noqa: F401  (the driver does without it)
    except ModuleNotFoundError:
        sys.exit(
            f"Error: The Python package click is missing for {sys.executable}: install it with "
            f"`{sys.executable} -m pip install click`, or from the distribution's packages"
        )
    try:
        from linstor_un.cli.verbs import command

        command(prog_name="linstor-un")
    except KeyboardInterrupt:
        sys.exit("Error: Interrupted before it had begun")
    raise AssertionError("click exits")


if __name__ == "__main__":
    main()
