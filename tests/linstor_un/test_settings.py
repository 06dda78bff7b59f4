"""What an operator may set: every attribute, where it may stand, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

import pytest

from linstor_sandbox.opennebula import templates
from linstor_un import settings
from linstor_un.errors import InvalidSetting
from linstor_un.settings import ATTRIBUTES, CONFIGURATION_ONLY, Settings, for_datastore, from_configuration
from tests.conftest import IMAGE_TEMPLATE, SYSTEM_TEMPLATE

GOOD: dict[str, tuple[str, object]] = {
    "LS_CONTROLLERS": (
        "10.0.0.1, linstor+ssl://name:3371,http://[::1]:3370/",
        ("10.0.0.1", "linstor+ssl://name:3371", "http://[::1]:3370/"),
    ),
    "LS_CERTFILE": ("/etc/linstor/our own.crt", "/etc/linstor/our own.crt"),
    "LS_KEYFILE": ("/etc/linstor/ssl/our.key", "/etc/linstor/ssl/our.key"),
    "LS_CAFILE": ("/etc/linstor/ssl/ca.crt", "/etc/linstor/ssl/ca.crt"),
    "LS_TOKEN": (" eyJh.bGci-_~+/= ", "eyJh.bGci-_~+/="),
    "LS_TOKEN_FILE": ("/var/lib/one/.one/token", "/var/lib/one/.one/token"),
    "RESOURCE_GROUP": ("fast", "fast"),
    "NODE_LIST": ("node1 node2.example,node-3", ("node1", "node2.example", "node-3")),
    "REPLICA_COUNT": ("3", 3),
    "CHECKPOINT_REPLICA_COUNT": ("1", 1),
    "STORAGE_POOL": ("data ssd", ("data", "ssd")),
    "DISKLESS_POOL": ("DfltDisklessStorPool", "DfltDisklessStorPool"),
    "LAYER_LIST": ("drbd,luks,storage", ("DRBD", "LUKS", "STORAGE")),
    "PROVIDERS": ("LVM_THIN,zfs_thin", ("LVM_THIN", "ZFS_THIN")),
    "REPLICAS_ON_SAME": ("rack=1 Aux/room", ("Aux/rack=1", "Aux/room")),
    "REPLICAS_ON_DIFFERENT": ("rack", ("Aux/rack",)),
    "DO_NOT_PLACE_WITH": ("one-image-1 one-image-2", ("one-image-1", "one-image-2")),
    "DO_NOT_PLACE_WITH_REGEX": ("one-image-(1|2)", "one-image-(1|2)"),
    "PREFER_NODE": ("yes", True),
    "THIN_POOL_ZERO": ("no", False),
    "CLONE_MODE": ("Snapshot", "snapshot"),
    "ENCRYPTION": ("YES", True),
    "BRIDGE_LIST": ("node1\tnode2\nnode3", ("node1", "node2", "node3")),
    "STAGING_DIR": ("/var/tmp/stage", "/var/tmp/stage"),
    "RESTRICTED_DIRS": ("/ /etc", ("/", "/etc")),
    "SAFE_DIRS": ("/var/tmp", ("/var/tmp",)),
    "NO_DECOMPRESS": ("true", True),
    "LIMIT_TRANSFER_BW": ("10M", "10M"),
    "PREFIX": ("two", "two"),
    "SUPPORTED_FS": ("ext4 btrfs", ("ext4", "btrfs")),
    "LOCK_DIR": ("/run/one", "/run/one"),
    "LOCK_TIMEOUT": ("1", 1),
    "CONNECT_TIMEOUT": ("2", 2),
    "FAILOVER_TIMEOUT": ("0", 0),
    "REQUEST_TIMEOUT": ("99999", 99999),
    "DEVICE_TIMEOUT": ("4", 4),
    "IN_USE_TIMEOUT": ("5", 5),
    "FREEZE_TIMEOUT": ("6", 6),
    "HOLD_TIMEOUT": ("6", 6),
    "COMMAND_TIMEOUT": ("8", 8),
    "BACKUP_COMPARE": ("yes", True),
    "ONED_TIMEOUT": ("9", 9),
    "SOURCE_TIMEOUT": ("9", 9),
    "SSH": ("ssh -p 2222 -i /key", ("ssh", "-p", "2222", "-i", "/key")),
    "SSH_CONNECT_TIMEOUT": ("7", 7),
    "FRONTEND_HOSTNAME": ("one.example", "one.example"),
    "DATASTORE_LOCATION": ("/srv/one/datastores", "/srv/one/datastores"),
}
ALL = {**ATTRIBUTES, **CONFIGURATION_ONLY}


def field(configured: Settings, key: str) -> object:
    """Return the value that an attribute has led to."""
    return getattr(configured, ALL[key][0])


def test_this_file_knows_every_attribute() -> None:
    assert set(GOOD) == set(ALL)


def test_every_field_is_set_by_exactly_one_attribute() -> None:
    fields = [name for name, _ in ALL.values()]
    assert sorted(fields) == sorted(Settings._fields)


@pytest.mark.parametrize("key", sorted(GOOD))
def test_an_attribute_is_read(key: str) -> None:
    text, wanted = GOOD[key]
    assert field(from_configuration({key: text}), key) == wanted
    assert field(Settings(), key) != wanted


@pytest.mark.parametrize("key", sorted(ATTRIBUTES))
def test_a_datastore_wins_over_the_configuration(key: str) -> None:
    text, wanted = GOOD[key]
    default = str(field(Settings(), key))
    below = {"CLONE_MODE": "copy", "STAGING_DIR": "/other", "REPLICA_COUNT": "9"}.get(key, "")
    assert field(for_datastore({key: below}, {key: text}, "datastore 1"), key) == wanted, default
    assert field(for_datastore({key: text}, {}, "datastore 1"), key) == wanted


@pytest.mark.parametrize("key", sorted(CONFIGURATION_ONLY))
def test_a_datastore_cannot_set_what_concerns_the_front_end(key: str) -> None:
    assert for_datastore({}, {key: GOOD[key][0]}, "datastore 1") == Settings()


@pytest.mark.parametrize("key", sorted(set(ATTRIBUTES) - {"REPLICA_COUNT", "CHECKPOINT_REPLICA_COUNT"}))
def test_an_empty_attribute_is_as_good_as_none(key: str) -> None:
    assert for_datastore({}, {key: ""}, "datastore 1") == Settings()


@pytest.mark.parametrize(
    ("attributes", "count", "checkpoints"),
    [
        ({"AUTO_PLACE": "2"}, 2, None),
        ({"CHECKPOINT_AUTO_PLACE": "3"}, None, 3),
        ({"AUTO_PLACE": "2", "REPLICA_COUNT": "3"}, 3, None),
        ({"REPLICA_COUNT": "3", "AUTO_PLACE": "many"}, 3, None),
        ({"CHECKPOINT_AUTO_PLACE": "1", "CHECKPOINT_REPLICA_COUNT": "2", "AUTO_PLACE": "2"}, 2, 2),
    ],
)
def test_old_names_are_understood_and_the_new_ones_win(
    attributes: dict[str, str], count: Optional[int], checkpoints: Optional[int]
) -> None:
    configured = for_datastore({}, attributes, "datastore 1")
    assert (configured.replica_count, configured.checkpoint_replica_count) == (count, checkpoints)


def test_an_old_name_in_a_datastore_wins_over_the_new_one_in_the_configuration() -> None:
    assert for_datastore({"REPLICA_COUNT": "3"}, {"AUTO_PLACE": "2"}, "datastore 1").replica_count == 2


def test_the_articles_datastores_work_letter_by_letter() -> None:
    system = for_datastore({}, templates.single(templates.parse(SYSTEM_TEMPLATE)), "datastore 100")
    images = for_datastore({}, templates.single(templates.parse(IMAGE_TEMPLATE)), "datastore 101")
    nodes = ("node1", "node2", "node3")
    assert system == Settings(
        storage_pools=("data",),
        replica_count=2,
        clone_mode="snapshot",
        checkpoint_replica_count=1,
        bridge_list=nodes,
    )
    assert images == Settings(storage_pools=("data",), replica_count=2, bridge_list=nodes)


def test_attributes_of_others_are_none_of_our_business() -> None:
    attributes = {"DRIVER": "raw", "CEPH_HOST": "$(x)", "TM_MAD": "linstor_un", "SHARED": "YES\x7f"}
    assert for_datastore({}, attributes, "datastore 1") == Settings()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("REPLICA_COUNT", "00"),
        ("REPLICA_COUNT", "+2"),
        ("REPLICA_COUNT", "\u0662"),
        ("LOCK_TIMEOUT", ""),
        ("LOCK_TIMEOUT", "100000"),
        ("LOCK_TIMEOUT", "1.5"),
        ("PREFIX", "1one"),
        ("PREFIX", "elevenchars"),
        ("NODE_LIST", "node/1"),
        ("NODE_LIST", "x" * 256),
        ("BRIDGE_LIST", ".hidden"),
        ("STORAGE_POOL", "pool\x00"),
        ("FRONTEND_HOSTNAME", "two names"),
        ("LAYER_LIST", "DRBD STORAGE STORAGE"),
        ("PROVIDERS", "LVM,LVM"),
        ("REPLICAS_ON_SAME", "=1"),
        ("LIMIT_TRANSFER_BW", "-1"),
        ("LS_CONTROLLERS", "10.0.0.1;x"),
        ("LS_CONTROLLERS", "http://a:123456"),
        ("LS_CONTROLLERS", "file:///etc/passwd"),
        ("SSH", " "),
        ("LS_TOKEN", "two words"),
        ("LS_TOKEN", "t\u00f6ken"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_name_and_what_is_allowed(key: str, value: str) -> None:
    with pytest.raises(InvalidSetting) as refusal:
        from_configuration({key: value})
    sentence = str(refusal.value)
    assert sentence.startswith(f'{key}="')
    assert "of linstor_un.conf is not valid: set it to " in sentence
    assert ("hidden" if key == "LS_TOKEN" else value) in sentence


def test_a_refusal_names_the_datastore_and_shows_no_secret() -> None:
    with pytest.raises(InvalidSetting, match=r"LS_TOKEN.* of datastore 7 \(x\)") as refusal:
        for_datastore({}, {"LS_TOKEN": "secret\x07"}, "datastore 7 (x)")
    assert "secret" not in str(refusal.value)
    with pytest.raises(InvalidSetting) as refusal:
        for_datastore({}, {"LS_CONTROLLERS": "http://me:secret@a"}, "datastore 7 (x)")
    assert "secret" not in str(refusal.value)


def test_the_token_is_in_no_representation() -> None:
    assert "eyJh" not in repr(Settings(token="eyJh"))


@pytest.mark.parametrize(
    ("attributes", "layers"),
    [
        ({}, ()),
        ({"ENCRYPTION": "no"}, ()),
        ({"ENCRYPTION": "yes"}, ("DRBD", "LUKS", "STORAGE")),
        ({"ENCRYPTION": "yes", "LAYER_LIST": "STORAGE"}, ("LUKS", "STORAGE")),
        ({"ENCRYPTION": "yes", "LAYER_LIST": "DRBD,LUKS,STORAGE"}, ("DRBD", "LUKS", "STORAGE")),
        ({"LAYER_LIST": "DRBD,STORAGE"}, ("DRBD", "STORAGE")),
    ],
)
def test_encryption_is_a_layer(attributes: dict[str, str], layers: tuple[str, ...]) -> None:
    assert for_datastore({}, attributes, "datastore 1").layers == layers


def write(folder: Path, text: str) -> str:
    """Return the path of a linstor_un.conf."""
    path = folder / "linstor_un.conf"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_configuration_file_that_is_not_there_is_an_empty_one(tmp_path: Path) -> None:
    assert settings.read_configuration(str(tmp_path / "none")) == {}


def test_the_old_bash_configuration_stays_valid(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "# linstor_un driver configuration\n"
        "LINSTOR='linstor'\n"
        "JQ=jq\n"
        "\n"
        "DD_BLOCK_SIZE=${DD_BLOCK_SIZE:-64k}\n"
        'DD_CONV="sparse"   # default\n'
        "LEGACY_MONITORING=no\n"
        "export CLONE_MODE=snapshot\n"
        "AUTO_PLACE='2'\n",
    )
    read = settings.read_configuration(path)
    assert read == {"CLONE_MODE": "snapshot", "AUTO_PLACE": "2"}
    assert from_configuration(read) == Settings(clone_mode="snapshot", replica_count=2)


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ('  PREFIX = "two"  # ours', {"PREFIX": "two"}),
        ("PREFIX=two#ours", {"PREFIX": "two#ours"}),
        ("PREFIX=two # ours", {"PREFIX": "two"}),
        ("PREFIX= # ours", {"PREFIX": ""}),
        ("PREFIX=", {"PREFIX": ""}),
        ('BRIDGE_LIST="a b # c"', {"BRIDGE_LIST": "a b # c"}),
        ("SSH='ssh -o \"X=Y\"'", {"SSH": 'ssh -o "X=Y"'}),
        ('#PREFIX="three"', {}),
        ("DD_CONV=${DD_CONV:-a b}", {}),
        ('PREFIX="two"\nPREFIX=three', {"PREFIX": "three"}),
    ],
)
def test_lines_are_read_as_a_shell_reads_them(tmp_path: Path, line: str, read: dict[str, str]) -> None:
    assert settings.read_configuration(write(tmp_path, f"{line}\n")) == read


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("PREFIXX=one", ("no setting PREFIXX", "did you mean PREFIX?")),
        ("QUITE_ANOTHER_THING=1", ("no setting QUITE_ANOTHER_THING", "remove the line")),
        ("PREFIX", ("'PREFIX'", 'KEY="value"')),
        ('PREFIX="one', ("line 2", 'KEY="value"')),
        ("PREFIX=one two", ("line 2", 'KEY="value"')),
        ("PREFIX=$(id)x y", ("line 2", 'KEY="value"')),
        (". /etc/other.conf", ("line 2", 'KEY="value"')),
    ],
)
def test_a_line_that_is_not_understood_is_named(tmp_path: Path, line: str, words: tuple[str, ...]) -> None:
    path = write(tmp_path, f"\n{line}\n")
    with pytest.raises(InvalidSetting) as refusal:
        settings.read_configuration(path)
    assert path in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("line", ['LS_TOKEN="secret', "LS_TOKEN=a secret", "ls_token = a secret", "LS_TOCKEN=a secret"])
def test_a_broken_line_shows_no_token(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidSetting) as refusal:
        settings.read_configuration(write(tmp_path, f"{line}\n"))
    assert "secret" not in str(refusal.value)
    assert repr(line.partition("=")[0].strip()) in str(refusal.value)


def test_locks_live_where_they_are_told_to() -> None:
    assert settings.lock_directory(Settings(lock_directory="/x")) == "/x"


def test_locks_live_in_opennebulas_directory_or_in_one_that_only_we_can_enter() -> None:
    directory = Path(settings.lock_directory(Settings()))
    mode = directory.stat().st_mode & 0o777
    assert str(directory) == "/var/lock/one" or (mode, directory.stat().st_uid) == (0o700, os.getuid())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_nobody_else_says_by_a_link_where_locks_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = 424242
    monkeypatch.setattr(os, "getuid", lambda: ours)
    monkeypatch.setattr(os, "access", lambda *_: False)
    os.chown(tmp_path, ours, -1)
    link = Path(f"/tmp/linstor_un-{ours}")
    link.symlink_to(tmp_path)
    try:
        with pytest.raises(InvalidSetting, match="belongs to somebody else: set LOCK_DIR"):
            settings.lock_directory(Settings())
    finally:
        link.unlink()


@pytest.mark.parametrize("seconds", ["0", "16", "1.5"])
def test_the_agents_time_is_bounded(seconds: str) -> None:
    with pytest.raises(InvalidSetting, match="a number of seconds from 1 to 15"):
        settings.from_configuration({"FREEZE_TIMEOUT": seconds})


def test_a_file_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 'SSH="sh -c"\n')
    Path(path).chmod(0o666)
    with pytest.raises(InvalidSetting, match=f"chmod o-w {path}"):
        settings.read_configuration(path)
    Path(path).chmod(0o664)
    assert settings.read_configuration(path) == {"SSH": "sh -c"}


def test_a_self_contained_opennebula_has_its_datastores_below_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_LOCATION", "/srv/one")
    assert settings.from_configuration({}).datastore_location == "/srv/one/var/datastores"
    assert settings.for_datastore({}, {}, "it").datastore_location == "/srv/one/var/datastores"
    said = {"DATASTORE_LOCATION": "/data"}
    assert settings.for_datastore(said, {}, "it").datastore_location == "/data"
    monkeypatch.delenv("ONE_LOCATION")
    assert settings.from_configuration({}).datastore_location == "/var/lib/one/datastores"
