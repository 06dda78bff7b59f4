"""linstor_un.conf and datastore attributes, parsed once into one typed, frozen object.

Order: built-in default, linstor_un.conf, datastore template. The attributes are those of linstor_un since 2019, with
AUTO_PLACE and CHECKPOINT_AUTO_PLACE as older names of REPLICA_COUNT and CHECKPOINT_REPLICA_COUNT.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Callable, NamedTuple, Optional

from linstor_un import hiding
from linstor_un.errors import InvalidSetting
from linstor_un.naming import Names

LAYERS = ("DRBD", "LUKS", "STORAGE", "CACHE", "WRITECACHE", "BCACHE", "NVME")
PROVIDERS = ("LVM", "LVM_THIN", "ZFS", "ZFS_THIN", "FILE", "FILE_THIN", "SPDK", "REMOTE_SPDK", "EBS_TARGET",
             "STORAGE_SPACES", "STORAGE_SPACES_THIN")  # fmt: skip
ALIASES = {"AUTO_PLACE": "REPLICA_COUNT", "CHECKPOINT_AUTO_PLACE": "CHECKPOINT_REPLICA_COUNT"}
# Settings of the bash scripts for the tools that they called: an old linstor_un.conf stays valid.
OBSOLETE = frozenset({"LINSTOR", "JQ", "DD_BLOCK_SIZE", "DD_CONV", "LEGACY_MONITORING"})

# What names a file with which the driver shows LINSTOR who it is, or knows LINSTOR.
FILES = ("LS_CERTFILE", "LS_KEYFILE", "LS_CAFILE", "LS_TOKEN_FILE")

# Values that no message may show.
SECRET = frozenset({"LS_TOKEN"})


class Settings(NamedTuple):
    """All that an operator can decide, for one action."""

    controllers: tuple[str, ...] = ()
    certificate_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    token: str = ""
    token_file: str = ""
    resource_group: str = ""
    node_list: tuple[str, ...] = ()
    replica_count: Optional[int] = None
    checkpoint_replica_count: Optional[int] = None
    storage_pools: tuple[str, ...] = ()
    diskless_pool: str = ""
    layer_list: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    replicas_on_same: tuple[str, ...] = ()
    replicas_on_different: tuple[str, ...] = ()
    do_not_place_with: tuple[str, ...] = ()
    do_not_place_with_regex: str = ""
    prefer_node: bool = False
    clone_mode: str = "copy"
    thin_pool_zero: bool = True
    encryption: bool = False
    bridge_list: tuple[str, ...] = ()
    staging_directory: str = "/var/tmp"
    restricted_directories: tuple[str, ...] = ()
    safe_directories: tuple[str, ...] = ()
    no_decompress: bool = False
    limit_transfer_bandwidth: str = ""
    prefix: str = "one"
    supported_file_systems: tuple[str, ...] = ("ext2", "ext3", "ext4", "xfs")
    lock_directory: str = ""
    lock_timeout_seconds: int = 120
    connect_timeout_seconds: int = 5
    failover_timeout_seconds: int = 60
    request_timeout_seconds: int = 180
    device_timeout_seconds: int = 20
    in_use_timeout_seconds: int = 10
    freeze_timeout_seconds: int = 10
    hold_timeout_seconds: int = 30
    command_timeout_seconds: int = 300
    backup_compare: bool = False
    oned_timeout_seconds: int = 30
    source_timeout_seconds: int = 600
    ssh: tuple[str, ...] = ("ssh",)
    ssh_connect_timeout_seconds: int = 10
    frontend_hostname: str = ""
    datastore_location: str = "/var/lib/one/datastores"

    def __repr__(self) -> str:
        """Say nothing of the token, which must reach no log and no error."""
        shown = (f"{name}={value!r}" for name, value in zip(self._fields, self) if name != "token")
        return f"Settings({', '.join(shown)})"

    @property
    def names(self) -> Names:
        """Return the names that this OpenNebula gives in LINSTOR."""
        return Names(self.prefix)

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the layer stack that is asked for, with ENCRYPTION applied; empty leaves it to the resource group."""
        if not self.encryption or "LUKS" in self.layer_list:
            return self.layer_list
        stack = self.layer_list or ("DRBD", "STORAGE")
        return (*stack[:-1], "LUKS", stack[-1])


class _Reader:
    """Reads attributes one by one and says which one makes no sense, where it came from, and what is allowed."""

    def __init__(self, values: Mapping[str, str], origin: str) -> None:
        self.values = values
        self.origin = origin

    def refuse(self, key: str, allowed: str) -> InvalidSetting:
        shown = "(hidden)" if key in SECRET else hiding.urls(self.values[key])
        return InvalidSetting(f'{key}="{shown}" of {self.origin} is not valid: set it to {allowed}')

    def text(self, key: str) -> str:
        return self.values[key].strip()

    def token(self, key: str) -> str:
        token = self.text(key)
        if not re.fullmatch(r"[!-~]*", token):
            raise self.refuse(key, "a token of printable characters without blanks")
        return token

    def command(self, key: str) -> tuple[str, ...]:
        words = self.words(key)
        if not words:
            raise self.refuse(key, "a command such as ssh, with its options")
        return words

    def absolute_path(self, key: str) -> str:
        path = self.text(key)
        if path and (not path.startswith("/") or _has_control_characters(path)):
            raise self.refuse(key, "an absolute path")
        return path

    def staging(self, key: str) -> str:
        # A marketplace's driver splits the command that removes an exported file from it at blanks, without a shell.
        path = self.text(key)
        if path and not re.fullmatch(r"/[\w./+-]*", path):
            raise self.refuse(key, "an absolute path of letters, digits, '.', '_', '+' and '-'")
        return path

    def words(self, key: str) -> tuple[str, ...]:
        return tuple(self.values[key].split())

    def items(self, key: str) -> tuple[str, ...]:
        return tuple(item for item in re.split(r"[,\s]+", self.values[key]) if item)

    def names(self, key: str) -> tuple[str, ...]:
        names = self.items(key)
        if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", name) for name in names):
            raise self.refuse(key, "names of letters, digits, '.', '_' and '-', separated by blanks")
        return names

    def name(self, key: str) -> str:
        names = self.names(key)
        if len(names) > 1:
            raise self.refuse(key, "one name")
        return names[0] if names else ""

    def upper_names(self, key: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.upper() for name in self.items(key))
        if not set(names) <= set(allowed) or len(set(names)) != len(names):
            raise self.refuse(key, f"a comma-separated list of {', '.join(allowed)}")
        return names

    def layer_list(self, key: str) -> tuple[str, ...]:
        layers = self.upper_names(key, LAYERS)
        if layers and layers[-1] != "STORAGE":
            raise self.refuse(key, "a stack that ends in STORAGE, for example DRBD,STORAGE")
        return layers

    def properties(self, key: str) -> tuple[str, ...]:
        properties = self.items(key)
        if not all(re.fullmatch(r"[\w./+-]+(=[\w./+-]*)?", item) for item in properties):
            raise self.refuse(key, "node properties such as rack or rack=1, separated by blanks")
        return tuple(item if item.startswith("Aux/") else f"Aux/{item}" for item in properties)

    def regular_expression(self, key: str) -> str:
        expression = self.text(key)
        try:
            re.compile(expression)
        except re.error:
            raise self.refuse(key, "a regular expression") from None
        return expression

    def yes_or_no(self, key: str) -> bool:
        value = self.text(key).lower()
        if value in ("yes", "true", "1", "on"):
            return True
        if value in ("no", "false", "0", "off", ""):
            return False
        raise self.refuse(key, "yes or no")

    def clone_mode(self, key: str) -> str:
        mode = self.text(key).lower() or "copy"
        if mode not in ("copy", "snapshot"):
            raise self.refuse(key, "copy or snapshot")
        return mode

    def replicas(self, key: str) -> Optional[int]:
        return self._number(key, 32, "replicas") if self.text(key) else None

    def seconds(self, key: str) -> int:
        return self._number(key, 99999, "seconds")

    def seconds_or_none(self, key: str) -> int:
        return self._number(key, 99999, "seconds", least=0)

    def freeze_seconds(self, key: str) -> int:
        # Longer than this, and LINSTOR's connection would have to be made again while the VM stands still.
        return self._number(key, 15, "seconds")

    def _number(self, key: str, most: int, what: str, least: int = 1) -> int:
        text = self.text(key)
        if not re.fullmatch(rf"[0-9]{{1,{len(str(most))}}}", text) or not least <= int(text) <= most:
            raise self.refuse(key, f"a number of {what} from {least} to {most}")
        return int(text)

    def bandwidth(self, key: str) -> str:
        value = self.text(key)
        if not re.fullmatch(r"|[0-9]+[kKmMgG]?", value):
            raise self.refuse(key, "bytes per second such as 500k or 10m")
        return value

    def controllers(self, key: str) -> tuple[str, ...]:
        controllers = self.items(key)
        for controller in controllers:
            if not re.fullmatch(
                r"(?:(?:linstor(?:\+ssl)?|https?)://)?(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?", controller
            ):
                raise self.refuse(key, "controllers such as 10.0.0.1 or linstor+ssl://name:3371, separated by commas")
        return controllers

    def prefix(self, key: str) -> str:
        value = self.text(key)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,9}", value):
            raise self.refuse(key, "one to ten letters, digits or '_', beginning with a letter")
        return value


# Attribute of a datastore or of linstor_un.conf -> field of Settings and how its value is read.
_Parser = Callable[["_Reader", str], object]
ATTRIBUTES: dict[str, tuple[str, _Parser]] = {
    "LS_CONTROLLERS": ("controllers", _Reader.controllers),
    "LS_CERTFILE": ("certificate_file", _Reader.absolute_path),
    "LS_KEYFILE": ("key_file", _Reader.absolute_path),
    "LS_CAFILE": ("ca_file", _Reader.absolute_path),
    "LS_TOKEN": ("token", _Reader.token),
    "LS_TOKEN_FILE": ("token_file", _Reader.absolute_path),
    "RESOURCE_GROUP": ("resource_group", _Reader.name),
    "NODE_LIST": ("node_list", _Reader.names),
    "REPLICA_COUNT": ("replica_count", _Reader.replicas),
    "CHECKPOINT_REPLICA_COUNT": ("checkpoint_replica_count", _Reader.replicas),
    "STORAGE_POOL": ("storage_pools", _Reader.names),
    "DISKLESS_POOL": ("diskless_pool", _Reader.name),
    "LAYER_LIST": ("layer_list", _Reader.layer_list),
    "PROVIDERS": ("providers", lambda reader, key: reader.upper_names(key, PROVIDERS)),
    "REPLICAS_ON_SAME": ("replicas_on_same", _Reader.properties),
    "REPLICAS_ON_DIFFERENT": ("replicas_on_different", _Reader.properties),
    "DO_NOT_PLACE_WITH": ("do_not_place_with", _Reader.names),
    "DO_NOT_PLACE_WITH_REGEX": ("do_not_place_with_regex", _Reader.regular_expression),
    "BACKUP_COMPARE": ("backup_compare", _Reader.yes_or_no),
    "PREFER_NODE": ("prefer_node", _Reader.yes_or_no),
    "THIN_POOL_ZERO": ("thin_pool_zero", lambda reader, key: not reader.text(key) or reader.yes_or_no(key)),
    "CLONE_MODE": ("clone_mode", _Reader.clone_mode),
    "ENCRYPTION": ("encryption", _Reader.yes_or_no),
    "BRIDGE_LIST": ("bridge_list", _Reader.names),
    "STAGING_DIR": ("staging_directory", _Reader.staging),
    "RESTRICTED_DIRS": ("restricted_directories", _Reader.words),
    "SAFE_DIRS": ("safe_directories", _Reader.words),
    "NO_DECOMPRESS": ("no_decompress", _Reader.yes_or_no),
    "LIMIT_TRANSFER_BW": ("limit_transfer_bandwidth", _Reader.bandwidth),
}
# What concerns the front-end and not one datastore.
CONFIGURATION_ONLY: dict[str, tuple[str, _Parser]] = {
    "PREFIX": ("prefix", _Reader.prefix),
    "SUPPORTED_FS": ("supported_file_systems", _Reader.names),
    "LOCK_DIR": ("lock_directory", _Reader.absolute_path),
    "LOCK_TIMEOUT": ("lock_timeout_seconds", _Reader.seconds),
    "CONNECT_TIMEOUT": ("connect_timeout_seconds", _Reader.seconds),
    "FAILOVER_TIMEOUT": ("failover_timeout_seconds", _Reader.seconds_or_none),
    "REQUEST_TIMEOUT": ("request_timeout_seconds", _Reader.seconds),
    "DEVICE_TIMEOUT": ("device_timeout_seconds", _Reader.seconds),
    "IN_USE_TIMEOUT": ("in_use_timeout_seconds", _Reader.seconds),
    "FREEZE_TIMEOUT": ("freeze_timeout_seconds", _Reader.freeze_seconds),
    "HOLD_TIMEOUT": ("hold_timeout_seconds", _Reader.seconds),
    "COMMAND_TIMEOUT": ("command_timeout_seconds", _Reader.seconds),
    "ONED_TIMEOUT": ("oned_timeout_seconds", _Reader.seconds),
    "SOURCE_TIMEOUT": ("source_timeout_seconds", _Reader.seconds),
    "SSH": ("ssh", _Reader.command),
    "SSH_CONNECT_TIMEOUT": ("ssh_connect_timeout_seconds", _Reader.seconds),
    "FRONTEND_HOSTNAME": ("frontend_hostname", _Reader.name),
    "DATASTORE_LOCATION": ("datastore_location", _Reader.absolute_path),
}


def _has_control_characters(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)


def _parse(values: Mapping[str, str], origin: str, known: Mapping[str, tuple[str, _Parser]]) -> dict[str, object]:
    reader = _Reader(values, origin)
    fields: dict[str, object] = {}
    for key in values:
        name = ALIASES.get(key, key)
        # The newer name wins where a template has both.
        if name in known and not (name != key and name in values):
            attribute, parser = known[name]
            if _has_control_characters(values[key].replace("\n", " ").replace("\t", " ")):
                raise reader.refuse(key, "text without control characters")
            fields[attribute] = parser(reader, key)
    return fields


def read_configuration(path: str) -> dict[str, str]:
    """Return the `KEY=value` lines of linstor_un.conf; a missing file is an empty one.

    Raises InvalidSetting for a line that is no assignment, for a key that does not exist, and for a file that anybody
    may write to: it names commands and controllers.
    """
    try:
        with open(path, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise InvalidSetting(f"{path} may be written to by everybody: take that right away (chmod o-w {path})")
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as failure:
        raise InvalidSetting(f"{path} cannot be read ({failure}): make it readable for oneadmin") from None
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if line and not line.startswith("#"):
            key, value = _assignment(line, f"{path}, line {number}")
            if key not in OBSOLETE:
                values[key] = value
    return values


def _assignment(line: str, place: str) -> tuple[str, str]:
    match = re.fullmatch(
        r"(?:export\s+)?(\w+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|((?:[^\s#\"'][^\s\"']*)?(?:\$\{[^}]*\})?[^\s#\"']*))\s*(?:#.*)?",
        line,
    )
    if not match:
        # Without the value, which may be a secret whatever its key is spelt like.
        raise InvalidSetting(f'{place} is not valid: {line.partition("=")[0].rstrip()!r}; write KEY="value"')
    key = match.group(1)
    if key not in OBSOLETE and key not in ATTRIBUTES and key not in CONFIGURATION_ONLY and key not in ALIASES:
        raise InvalidSetting(
            f"{place}: there is no setting {key}{_suggestion(key)}; remove the line or correct the name"
        )
    return key, next((group for group in match.groups()[1:] if group is not None), "")


def _suggestion(key: str) -> str:
    import difflib  # only a mistake pays for it

    near = difflib.get_close_matches(key, [*ATTRIBUTES, *CONFIGURATION_ONLY], 1)
    return f" (did you mean {near[0]}?)" if near else ""


def from_configuration(configuration: Mapping[str, str]) -> Settings:
    """Return the settings of linstor_un.conf alone, for what does not belong to one datastore."""
    return _settings(_parse(configuration, "linstor_un.conf", {**ATTRIBUTES, **CONFIGURATION_ONLY}))


def for_datastore(configuration: Mapping[str, str], attributes: Mapping[str, str], origin: str) -> Settings:
    """Return the settings of one datastore.

    Arguments: `configuration` from read_configuration; `attributes` of the datastore's template; `origin` names the
    datastore in errors, for example `datastore 100 (linstor-images)`.

    Raises InvalidSetting naming the attribute, its value and what is allowed.
    """
    fields = _parse(configuration, "linstor_un.conf", {**ATTRIBUTES, **CONFIGURATION_ONLY})
    fields.update(_parse(attributes, origin, ATTRIBUTES))
    if not fields.get("staging_directory", "/"):
        del fields["staging_directory"]
    return _settings(fields)


def _settings(fields: Mapping[str, object]) -> Settings:
    """Return settings; where OpenNebula is self-contained its datastores are below ONE_LOCATION if nobody says else."""
    own = os.environ.get("ONE_LOCATION", "")
    default = {"datastore_location": os.path.join(own, "var/datastores")} if own.startswith("/") else {}
    return Settings(**{**default, **fields})  # type: ignore[arg-type]


def lock_directory(settings: Settings) -> str:
    """Return where lock files live: LOCK_DIR, or OpenNebula's, or one of our own below /tmp."""
    if settings.lock_directory:
        return settings.lock_directory
    if os.access("/var/lock/one", os.W_OK):
        return "/var/lock/one"
    own = f"/tmp/linstor_un-{os.getuid()}"
    os.makedirs(own, mode=0o700, exist_ok=True)
    # Not what a link leads to: everybody may make one there.
    if os.lstat(own).st_uid != os.getuid():
        raise InvalidSetting(f"{own} belongs to somebody else: set LOCK_DIR in linstor_un.conf")
    return own
