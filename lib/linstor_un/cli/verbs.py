"""The command `linstor-un` itself: its verbs are loaded when they are called, and errors are the driver's sentences."""

from __future__ import annotations

import errno
import importlib
from typing import Any, Optional

import click

from linstor_un import __version__, driver, hiding
from linstor_un.errors import DriverError

# Verb, module and test have the same name; the words are what --help says of each.
VERBS = {
    "check": "Look for everything that is wrong, and say what to do.",
    "install": "Put the driver into OpenNebula and edit its configuration.",
    "upgrade": "Replace an older version, or the bash linstor_un, in place.",
    "uninstall": "Put back, to the byte, what was there before the driver.",
    "datastore": "Make the datastores, for images and for VMs, in OpenNebula.",
    "adopt": "Take over datastores of LINBIT's add-on, or a volume as an image.",
    "move": "Bring images, and disks of VMs, from other datastores into one of linstor_un.",
    "status": "Show datastores with what still fits, nodes, volumes and snapshots.",
    "map": "Draw what is where, in the terminal or as a page for a browser.",
    "audit": "Find, and mend, what OpenNebula, LINSTOR and the hosts do not agree on.",
    "actions": "Show which actions of the driver run now, and what they do.",
    "place": "Put a replica of a volume on a node, or take it from there.",
    "replicas": "Give a volume so many replicas: LINSTOR places more, or some are taken.",
    "evacuate": "Move the replicas of all volumes off a node.",
    "replay": "Show the calls of actions that a log holds, and what one would do now.",
}
_HELP = """\
The operators' command of linstor_un, OpenNebula's storage driver on LINSTOR.

\b
Examples:
  linstor-un install --dry-run    show what an installation would change
  linstor-un status               show what is where, and what still fits
  linstor-un audit                show what is wrong or left over
  linstor-un check                look for everything that is wrong
  journalctl -t linstor_un | linstor-un replay -

\b
Exit codes:
  0  done, and nothing is wrong
  1  failed: the sentence on stderr says why, and what to do
  2  the command line was not understood
  3  something was found that has to be mended

\b
Completion in the shell, for instance in ~/.bashrc (or zsh_source, fish_source),
of volumes, nodes, images and VMs too (before click 8 of verbs and options only,
and with source_bash):
  eval "$(_LINSTOR_UN_COMPLETE=bash_source linstor-un)"
"""


class Verbs(click.Group):
    """A group that loads the module of a verb when that verb is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        """Return a verb's command, None where there is no such verb, or a shell asks for one that cannot be loaded."""
        if cmd_name not in VERBS:
            return None
        try:
            command: click.Command = importlib.import_module(f"linstor_un.cli.{cmd_name}").command
        except ModuleNotFoundError:
            if ctx.resilient_parsing:
                return None
            raise
        # By which click 7 completes.
        command.name = cmd_name
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; an error of the driver, and Ctrl-C, is a sentence on stderr and exit code 1."""
        try:
            return super().invoke(ctx)
        except DriverError as error:
            raise click.ClickException(hiding.urls(str(error))) from None
        except ModuleNotFoundError as error:
            raise click.ClickException(str(driver.missing(error))) from None
        except OSError as error:
            # Who reads no further wants to hear no more, and click says nothing.
            if error.errno == errno.EPIPE:
                raise
            raise click.ClickException(
                f"The system refused an operation ({error}): mend that, and run it again"
            ) from None
        except KeyboardInterrupt:
            click.echo(err=True)
            raise click.ClickException("Interrupted: run it again, and what was begun goes on") from None


@click.group(cls=Verbs, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="linstor-un")
def command() -> None:
    """Run a verb."""
