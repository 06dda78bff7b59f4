"""The failures that a person is told of: one class per remedy, each a sentence that carries it."""

from __future__ import annotations


class DriverError(Exception):
    """A failure whose text is the sentence that the user of OpenNebula reads.

    `code` is LINSTOR's return code where LINSTOR is the one that refused, else 0.
    """

    code = 0


class InvalidInput(DriverError):
    """The call, its XML or a value in it is not what OpenNebula's contract promises: nothing was changed."""


class InvalidSetting(DriverError):
    """A datastore attribute or a line of linstor_un.conf makes no sense: correct that attribute."""


class ForbiddenPath(DriverError):
    """The image's path is not allowed: move the file, or change SAFE_DIRS or RESTRICTED_DIRS."""


class UnusableImage(DriverError):
    """The bytes of the image are not what was promised: provide another file."""


class MissingDependency(DriverError):
    """A program or a Python package is not installed on the named host: install it."""


class AnswerUnread(DriverError):
    """oned does not read the answer any more: what was made is taken back, since nobody would know of it."""


class OnedUnreachable(DriverError):
    """oned did not answer: start it, or correct its endpoint or the credentials."""


class OnedRefused(DriverError):
    """oned does not do what it was asked: its own words say why."""


class ControllerUnreachable(DriverError):
    """No LINSTOR controller answered: start one, or correct LS_CONTROLLERS."""


class AnswerLost(ControllerUnreachable):
    """The connection broke after a request was sent: whether it happened must be looked up."""


class AnswerOverdue(ControllerUnreachable):
    """LINSTOR has a request and does not answer it: look for a node that hangs."""


class ControllerFailed(DriverError):
    """LINSTOR tried and failed: read its error report."""


class NotFound(DriverError):
    """LINSTOR does not know the object that was named: create it, or correct its name."""


class AlreadyExists(DriverError):
    """The name is taken: remove what has it."""


class NoRoom(DriverError):
    """LINSTOR found no place for a volume: free space, bring nodes back, or change the placement attributes."""


class InUse(DriverError):
    """Somebody has the volume open: close it there."""


class NotReady(DriverError):
    """A replica or a node is not (yet) in the state that is needed: wait for it or bring it back."""


class ChangesUnknown(DriverError):
    """Nobody says what has changed since the increment before: let the pool be asked, compare, or begin a new chain."""


class Busy(DriverError):
    """Another action holds the volume: wait for it to end."""


class HostUnreachable(DriverError):
    """The host `host` did not answer over ssh: bring it back or correct the ssh set-up."""

    def __init__(self, sentence: str, host: str) -> None:
        super().__init__(sentence)
        self.host = host


class CommandFailed(DriverError):
    """A command on a host failed: what it printed says why."""


class OpenNebulaMissing(DriverError):
    """There is no OpenNebula where it was looked for: name its folder."""


class UnreadableConfiguration(DriverError):
    """A configuration file of OpenNebula is not what its syntax allows: correct it."""


class NotInstalled(DriverError):
    """The driver is not where it should be: install it."""


class ManagedByPackage(DriverError):
    """The driver's files are a distribution's package's: change them with its package manager."""


class NotWritable(DriverError):
    """A file that has to be changed cannot be: become root, or change its rights."""
