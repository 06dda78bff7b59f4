"""What users, operators and broken surroundings can give to an action: one sentence, and nothing changed."""

from __future__ import annotations

import base64
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Optional

import pytest

from tests.conftest import CHECKOUT
from tests.linstor_un.bench import SECRETS, SYSDIR, TOKEN, Bench, Case, Outcome, bench, document, elements, line, on
from tests.linstor_un.hosts.test_formats import SPARSE, vmdk

SOURCE = "/dev/drbd/by-res/one-image-0/0"
DISK = f"node1:{SYSDIR}/0/disk.2"


def attribute(name: str, value: str, *says: str, verb: str = "mkfs", **more: Optional[str]) -> Case:
    """Return the case of a datastore that has this attribute."""
    xml = document(datastore={name: value, **more})
    return on(verb, f"{name}={value}", says or (f'{name}="{value}"', "datastore 101", "set it to"), xml)


def transfer_attribute(name: str, value: str, *says: str) -> Case:
    """Return the case of a system datastore, as oned tells of it, that has this attribute."""
    says = says or (f'{name}="{value}"', "datastore 100", "set it to")
    return line(f"mkimage 8 raw {DISK} 0 100", f"oned says {name}={value}", says, system={name: value})


LAUGHS = b"<!DOCTYPE d [<!ENTITY a0 'ha'>" + b"".join(
    b"<!ENTITY a%d '%s'>" % (number, b"&a%d;" % (number - 1) * 10) for number in range(1, 10)
)
DEEP = b"<DS_DRIVER_ACTION_DATA>" + b"<A>" * 5000 + b"</A>" * 5000 + b"</DS_DRIVER_ACTION_DATA>"
HUGE = b"<DS_DRIVER_ACTION_DATA><IMAGE><NAME>" + b"x" * 11_000_000 + b"</NAME></IMAGE></DS_DRIVER_ACTION_DATA>"


def with_entity(declaration: bytes, name: bytes = b"&e;") -> bytes:
    """Return a document whose NAME is an entity."""
    return b"<!DOCTYPE d [" + declaration + b"]>" + document().replace(b"debian", name)


XML = [
    Case("empty stdin", "datastore/cp", ("7",), ("got no XML", "call it as OpenNebula does")),
    Case("blank stdin", "datastore/mkfs", ("7",), ("got no XML", "call it"), b" \n"),
    Case("empty stdin, monitor", "tm/monitor", ("100",), ("got no XML", "call it")),
    Case("not base64", "datastore/cp", ("7",), ("neither XML nor base64", "call it"), b"%%% not base64 %%%"),
    Case("base64 cut short", "datastore/rm", ("7",), ("base64", "call it"), base64.b64encode(document())[:-3]),
    Case("not base64 in argv", "datastore/cp", ("$(touch @CANARY@)", "7"), ("neither XML nor base64", "call it")),
    Case("argv is not UTF-8", "datastore/cp", ("\udcff\udcfe", "7"), ("neither XML nor base64", "call it")),
    Case("no arguments", "datastore/mkfs", (), ("got 0 arguments", "call it as one_datastore does")),
    Case("three arguments", "datastore/mkfs", ("a", "b", "c"), ("got 3 arguments", "call it as one_datastore does")),
    Case("no arguments, monitor", "tm/monitor", (), ("got 0 arguments", "call it as one_datastore does")),
    on("cp", "XML cut short", ("cannot be read", "call it"), document()[:-30]),
    on("rm", "XML cut in the first tag", ("cannot be read", "call it"), document()[:10]),
    on("stat", "no XML in the base64", ("cannot be read", "call it"), b"\x00\x01\x02\xff\xfe not XML"),
    on("mkfs", "JSON", ("cannot be read", "call it"), b'{"IMAGE": {"ID": 7}}'),
    on("mkfs", "a control character", ("cannot be read", "call it"), document({"NAME": "\x0b"})),
    on(
        "mkfs", "billion laughs", ("cannot be read", "call it"), LAUGHS + b"]>" + document().replace(b"debian", b"&a9;")
    ),
    on(
        "mkfs",
        "a file as entity",
        ("document type", "not read"),
        with_entity(b"<!ENTITY e SYSTEM 'file:///etc/passwd'>"),
    ),
    on("mkfs", "http as entity", ("document type", "not read"), with_entity(b"<!ENTITY e SYSTEM 'http://127.0.0.1/'>")),
    on(
        "mkfs",
        "parameter entity",
        ("document type", "not read"),
        with_entity(b"<!ENTITY % e SYSTEM 'file:///etc/passwd'> %e;", b"debian"),
    ),
    on(
        "cp", "a document type", ("document type", "not read"), b"<!DOCTYPE d SYSTEM 'file:///etc/passwd'>" + document()
    ),
    on("mkfs", "an entity that is not declared", ("cannot be read", "call it"), document().replace(b"debian", b"&e;")),
    on("mkfs", "a text of 11 MB", ("cannot be read", "call it"), HUGE),
    on("mkfs", "elements 5000 deep", ("cannot be read", "call it"), DEEP),
    on("mkfs", "UTF-16", ("cannot be read", "call it"), document().decode().encode("utf-16")),
    on("mkfs", "another root", ("<VM>", "<DS_DRIVER_ACTION_DATA>", "call it"), b"<VM><ID>0</ID></VM>"),
    on("monitor", "another root", ("<A>", "<DS_DRIVER_ACTION_DATA>", "call it"), b"<A/>", "101"),
    on("cp", "no IMAGE", ("<IMAGE>", "missing", "call it"), document(image_xml="")),
    on("stat", "no IMAGE", ("<IMAGE>", "missing", "call it"), document(image_xml="")),
    on("cp", "no DATASTORE", ("<DATASTORE>", "missing", "call it"), document(datastore_xml="")),
    on(
        "monitor",
        "no DATASTORE",
        ("<DATASTORE>", "missing", "call it"),
        document(image_xml="", datastore_xml=""),
        "101",
    ),
    on("mkfs", "no ID", ("<ID>", "missing", "call it"), document({"ID": None})),
    on(
        "mkfs",
        "no datastore ID",
        ("<ID>", "missing", "call it"),
        document(datastore_xml="<DATASTORE><TEMPLATE/></DATASTORE>"),
    ),
    on(
        "mkfs",
        "no TEMPLATE",
        ("STORAGE_POOL is missing", "datastore 101", "set it"),
        document(datastore_xml="<DATASTORE><ID>101</ID></DATASTORE>"),
    ),
    on(
        "cp",
        "no SIZE",
        ("<IMAGE/SIZE> is missing", "give the image a SIZE"),
        document({"SIZE": None, "PATH": "@IMAGES@/plain.raw"}),
    ),
    on("mkfs", "no SIZE", ("<IMAGE/SIZE> is missing", "give the datablock a SIZE"), document({"SIZE": ""})),
    on("clone", "no SIZE", ("<IMAGE/SIZE> is missing", "has a size"), document({"SIZE": None, "PATH": SOURCE})),
    on("cp", "no PATH", ("<IMAGE/PATH> is missing", "give the image a PATH"), document()),
    on("clone", "no PATH", ("SOURCE ''", "should look like"), document()),
]

NUMBERS = [
    on("mkfs", f"SIZE {size}", (f"{size[:40]}", "must be"), document({"SIZE": size}))
    for size in (
        "-1",
        "-9223372036854775808",
        "9223372036854775808",
        "1073741825",
        "1" + "0" * 30,
        "1.5",
        "10M",
        "1e3",
        "1_0",
        "٣",
        "0x10",
        "$(touch x)",
        "8 8",
    )
] + [
    on("mkfs", "SIZE 0", ("<IMAGE/SIZE> is missing or 0", "give the datablock a SIZE"), document({"SIZE": "0"})),
    on("mkfs", "1 PiB", ("one-image-7", "free space"), document({"SIZE": str(1 << 30)})),
    *(
        on("mkfs", f"ID {value}", (value[:40], "must"), document({"ID": value}))
        for value in ("-1", "1.0", "seven", "1" + "0" * 30, "7;touch x")
    ),
    on("mkfs", "REGTIME is a word", ("<REGTIME> is 'soon'", "whole number"), document({"REGTIME": "soon"})),
    on("mkfs", "another image's id", ("image 8", "image 7"), document(), "8"),
    on("mkfs", "the action's id is a word", ("'x'", "must be a number"), document(), "x"),
    on("mkfs", "the action's id is negative", ("'-7'", "must be a number"), document(), "-7"),
    on(
        "mkfs",
        "datastore ID is a word",
        ("'x'", "whole number"),
        document(datastore_xml="<DATASTORE><ID>x</ID></DATASTORE>"),
    ),
]

PATHS = (
    [
        on("cp", f"PATH {path}", (path[:100], remedy), document({"PATH": path}))
        for path, remedy in (
            ("@IMAGES@/none.raw", "correct PATH"),
            ("@IMAGES@", "must name a file"),
            ("plain.raw", "correct PATH"),
            ("/etc/passwd", "SAFE_DIRS"),
            ("@IMAGES@/../linstor_un.conf", "a file of the driver itself"),
            ("@IMAGES@/../locks", "SAFE_DIRS"),
            ("@IMAGES@x/plain.raw", "SAFE_DIRS"),
            ("/dev/zero", "SAFE_DIRS"),
            ("/proc/self/environ", "SAFE_DIRS"),
            ("file:///etc/passwd", "scheme that is not allowed"),
            ("gopher://127.0.0.1/", "scheme that is not allowed"),
            ("://", "correct PATH"),
            ("ssh://-oProxyCommand=touch$IFS@CANARY@/x", "is no plain ssh:// URL"),
            ("http://-oProxyCommand=x/", "correct PATH"),
            ("s3://bucket/$(touch @CANARY@)", "is no plain s3:// URL"),
            ("s3://bucket/image.raw", "downloader.sh"),
            ("@NOBODY@/image.raw", "correct PATH"),
            ("http://[::1/image", "correct PATH"),
            ("http://127.0.0.1:99999/image", "correct PATH"),
            ("$(touch @CANARY@)", "correct PATH"),
            ("`touch @CANARY@`", "correct PATH"),
            ("/$(touch @CANARY@)", "SAFE_DIRS"),
            ("@IMAGES@/a;touch @CANARY@", "correct PATH"),
            ("-", "correct PATH"),
        )
    ]
    + [
        on("stat", f"stat of {path}", (path, remedy), document({"PATH": path}))
        for path, remedy in (
            ("/etc/passwd", "SAFE_DIRS"),
            ("@IMAGES@/none.raw", "correct PATH"),
            ("ssh://-oProxyCommand=x/y", "is no plain ssh:// URL"),
        )
    ]
    + [
        on(
            verb,
            f"{name} as an image, {verb}",
            (path, "a file of the driver itself"),
            document({"PATH": path}, {"RESTRICTED_DIRS": None, **allowed, **given}),
            configuration=configuration,
        )
        for verb in ("cp", "stat")
        for allowed in ({"SAFE_DIRS": None}, {"SAFE_DIRS": "/"})
        for name, path, given, configuration in (
            ("the token's file", "@IMAGES@/two_lines", {"LS_TOKEN_FILE": "@IMAGES@/two_lines"}, ""),
            ("the key of linstor_un.conf", "@IMAGES@/plain.raw", {}, 'LS_KEYFILE="@IMAGES@/plain.raw"\n'),
            ("linstor_un.conf", "@IMAGES@/../linstor_un.conf", {}, ""),
        )
    ]
    + [
        on(verb, f"a secret in {url}, {verb}", (shown,), document({"PATH": url.replace("SECRET", TOKEN)}))
        for verb in ("cp", "stat")
        for url, shown in (
            ("http://user:SECRET@@NOBODY_ADDRESS@/x", "http://(hidden)@@NOBODY_ADDRESS@/x"),
            ("@NOBODY@/x?X-Amz-Signature=SECRET", "@NOBODY@/x?(hidden)"),
            ("http://user:a SECRET@@NOBODY_ADDRESS@/", "'http://(hidden)@@NOBODY_ADDRESS@/'"),
            ("ftp://user:SECRET@@NOBODY_ADDRESS@/", "'ftp://(hidden)@@NOBODY_ADDRESS@/'"),
            (f"http://user:{TOKEN}/x@NOBODY_ADDRESS/", "http://(hidden)@NOBODY_ADDRESS/"),
            ("s3://bucket/image?a=b&aws_secret=SECRET", "s3://bucket/image?(hidden)"),
            ("ssh://user:SECRET@host/x", "ssh://(hidden)@host/x"),
        )
    ]
    + [
        on("cp", "PATH with a newline", ("PATH", "control characters", "correct PATH"), document({"PATH": "/a\nb"})),
        on("cp", "PATH with a tab", ("PATH", "control characters", "correct PATH"), document({"PATH": "/a\tb"})),
        on("cp", "an empty file", ("empty", "provide another file"), document({"PATH": "@IMAGES@/empty.raw"})),
        on(
            "cp",
            "an image that does not fit",
            ("does not fit into 1 MiB", "SIZE of at least 2 MiB"),
            document({"PATH": "@IMAGES@/large.raw", "SIZE": "1"}),
        ),
        on(
            "cp",
            "a qcow2 that names a file",
            ("backing file", "flatten it"),
            document({"PATH": "@IMAGES@/backing.qcow2"}),
        ),
        *(
            on(verb, f"a vmdk that names a file where qemu looks, {verb}", ("has a parent", "flatten it"), xml)
            for verb in ("cp", "stat")
            for xml in (document({"PATH": "@IMAGES@/two_descriptors.vmdk"}),)
        ),
        on(
            "cp",
            "a gzip cut short",
            ("cannot be decompressed", "provide the whole file"),
            document({"PATH": "@IMAGES@/cut.gz"}),
        ),
        on(
            "cp",
            "a wrong MD5",
            ("MD5", "$(touch x)", "correct the checksum"),
            document({"PATH": "@IMAGES@/plain.raw"}).replace(b"<DEV_PREFIX>sd</DEV_PREFIX>", b"<MD5>$(touch x)</MD5>"),
        ),
        on("cp", "a download that ends early", ("cut short", "fetch it again"), document({"PATH": "@HTML@/cut-short"})),
        *(
            on("clone", f"SOURCE {source[:60]}", (source[:200], "should look like"), document({"PATH": source}))
            for source in (
                "/etc/passwd",
                "/dev/drbd/by-res/../0",
                "/dev/drbd/by-res/a b/0",
                "/dev/drbd/by-res/one.image/0",
                f"/dev/drbd/by-res/{'x' * 49}/0",
                "-oProxyCommand=touch",
                "/dev/drbd/by-res/$(touch @CANARY@)/0",
                "/dev/drbd/by-res/one-image-0/1",
                "/dev/drbd1000",
                "all",
            )
        ),
        on(
            "clone",
            "a volume that is not there",
            ("one-image-999", "linstor resource list"),
            document({"PATH": "/dev/drbd/by-res/one-image-999/0"}),
        ),
        on(
            "clone",
            "an image into itself",
            ("Image 7", "into itself"),
            document({"PATH": "/dev/drbd/by-res/one-image-7/0"}),
        ),
        *(
            on("mkfs", f"FS {kind}", (kind, "SUPPORTED_FS"), document({"FS": kind}))
            for kind in ("ntfs", "$(touch x)", "ext4;touch x", "ext4 -O x", "../sh", "-h", "swap")
        ),
    ]
)

ATTRIBUTES = [
    *(attribute("REPLICA_COUNT", value) for value in ("0", "-1", "two", "33", "1.5", "2;id", "1" + "0" * 30)),
    attribute("AUTO_PLACE", "many", 'AUTO_PLACE="many"', "1 to 32", REPLICA_COUNT=None),
    attribute("CHECKPOINT_REPLICA_COUNT", "0"),
    attribute("CLONE_MODE", "fast"),
    *(
        attribute("LAYER_LIST", value)
        for value in ("DRBD", "STORAGE,DRBD", "FOO", "DRBD,FOO,STORAGE", "DRBD,DRBD,STORAGE")
    ),
    attribute("LAYER_LIST", "LUKS,STORAGE", 'LAYER_LIST="LUKS,STORAGE"', "no DRBD", "REPLICA_COUNT to 1"),
    attribute("PROVIDERS", "FOO"),
    attribute("PROVIDERS", "ZFS_THIN", "one-image-7", "placement attributes"),
    attribute("ENCRYPTION", "maybe"),
    attribute("ENCRYPTION", "yes", "one-image-7", "linstor encryption create-passphrase"),
    attribute("PREFER_NODE", "node1"),
    attribute("NO_DECOMPRESS", "perhaps"),
    *(
        attribute("LS_CONTROLLERS", value)
        for value in (
            "http://a/some path",
            "linstor://",
            "ftp://a",
            "-oProxyCommand=x",
            "a:port",
            "$(touch @CANARY@)",
            "http://a/path",
        )
    ),
    attribute("LS_CONTROLLERS", f"http://operator:{TOKEN}@a:3370", "LS_CONTROLLERS", "a:3370", "controllers such as"),
    attribute("LS_CONTROLLERS", "http://127.0.0.1:99999", "http://127.0.0.1:99999", "correct LS_CONTROLLERS"),
    attribute("LS_CAFILE", "ca.crt"),
    attribute("LS_CERTFILE", "../crt"),
    attribute("LS_KEYFILE", "~/key"),
    *(
        attribute(
            name,
            "/nowhere/a",
            f"{name}=/nowhere/a",
            "let oneadmin read",
            LS_CONTROLLERS="linstor+ssl://127.0.0.1:1",
            LS_TOKEN=None,
        )
        for name in ("LS_CAFILE", "LS_CERTFILE", "LS_TOKEN_FILE")
    ),
    attribute(
        "LS_CAFILE",
        "@IMAGES@/plain.raw",
        "LS_CAFILE=@IMAGES@/plain.raw",
        "PEM",
        LS_CONTROLLERS="linstor+ssl://127.0.0.1:1",
    ),
    attribute("LS_TOKEN", f"{TOKEN} and\x7f more", "LS_TOKEN", "datastore 101"),
    attribute("LS_TOKEN", f"{TOKEN}\nX-Header: 1", "LS_TOKEN", "datastore 101"),
    attribute(
        "LS_CERTFILE",
        "@IMAGES@/plain.raw",
        "LS_CERTFILE=@IMAGES@/plain.raw",
        "PEM",
        LS_CONTROLLERS="linstor+ssl://127.0.0.1:1",
    ),
    attribute("LS_TOKEN_FILE", "@IMAGES@/two_lines", "LS_TOKEN_FILE=@IMAGES@/two_lines", "in one line", LS_TOKEN=None),
    attribute("LIMIT_TRANSFER_BW", "fast"),
    attribute("LIMIT_TRANSFER_BW", "10mb"),
    attribute("BRIDGE_LIST", ";rm"),
    attribute("BRIDGE_LIST", "-oProxyCommand=x"),
    attribute("BRIDGE_LIST", "$(touch @CANARY@)"),
    attribute("STAGING_DIR", "tmp"),
    attribute("STAGING_DIR", "/var/my tmp"),
    attribute("STORAGE_POOL", "", "STORAGE_POOL is missing", "datastore 101", "RESOURCE_GROUP"),
    attribute("STORAGE_POOL", "data;id"),
    attribute("STORAGE_POOL", "none", "none", "STORAGE_POOL"),
    attribute("REPLICA_COUNT", "", "REPLICA_COUNT is missing", "datastore 101", "NODE_LIST"),
    attribute("REPLICA_COUNT", "4", "4 replicas", "one-image-7", "REPLICA_COUNT"),
    attribute("NODE_LIST", "node1 node2 node3", 'REPLICA_COUNT="2"', 'NODE_LIST="node1 node2 node3"', "remove one"),
    attribute("NODE_LIST", "node1 node9", "node9", "linstor node list"),
    attribute("NODE_LIST", "node1 node1", 'NODE_LIST="node1 node1"', "twice"),
    attribute("NODE_LIST", "node1,$(id)"),
    attribute("RESOURCE_GROUP", "none", "resource group none", "correct RESOURCE_GROUP"),
    attribute("RESOURCE_GROUP", "one two"),
    attribute("DISKLESS_POOL", "a/b"),
    attribute("DO_NOT_PLACE_WITH", "one-image-*"),
    attribute("DO_NOT_PLACE_WITH_REGEX", "one-(image"),
    attribute("REPLICAS_ON_SAME", "rack;id"),
    attribute("REPLICAS_ON_DIFFERENT", "$(touch @CANARY@)"),
    on(
        "monitor",
        "a pool that is not there",
        ("datastore 101", "STORAGE_POOL"),
        document(image_xml="", datastore={"STORAGE_POOL": "none"}),
        "101",
    ),
    on(
        "monitor",
        "a group that is not there",
        ("none", "linstor"),
        document(image_xml="", datastore={"RESOURCE_GROUP": "none"}),
        "101",
    ),
    on(
        "monitor",
        "CLONE_MODE=fast, monitor",
        ('CLONE_MODE="fast"', "copy or snapshot"),
        document(image_xml="", datastore={"CLONE_MODE": "fast"}),
        "101",
    ),
    on(
        "mkfs",
        "a name with everything",
        ('CLONE_MODE="fast"', "datastore 101", "copy or snapshot"),
        document(datastore={"CLONE_MODE": "fast"}, name="a\n`touch x`'\"<&$(touch x)"),
    ),
    transfer_attribute("CLONE_MODE", "fast"),
    transfer_attribute("LAYER_LIST", "STORAGE,DRBD"),
    transfer_attribute("STORAGE_POOL", "", "STORAGE_POOL is missing", "datastore 100", "set it"),
    transfer_attribute("LS_CONTROLLERS", "@NOBODY@", "@NOBODY@", "correct LS_CONTROLLERS"),
    *(
        line(
            text,
            f"oned says CLONE_MODE=fast, {text.split()[0]}",
            ('CLONE_MODE="fast"', "datastore 100", "copy or snapshot"),
            system={"CLONE_MODE": "fast"},
        )
        for text in (
            f"clone onefe:{SOURCE} node1:{SYSDIR}/0/disk.0 0 101",
            f"ln onefe:{SOURCE} node1:{SYSDIR}/0/disk.1 0 101",
            f"mkswap 8 {DISK} 0 100",
            f"mv {DISK} node2:{SYSDIR}/0/disk.2 0 100",
            f"mvds node1:{SYSDIR}/0/disk.1 {SOURCE} 0 101",
            f"delete {DISK} 0 100",
            f"delete node1:{SYSDIR}/0 0 100",
            f"resize {DISK} 16 0 100",
        )
    ),
]

CONFIGURATION = [
    *(
        on(
            "monitor",
            f"linstor_un.conf: {text!r}",
            ("linstor_un.conf", *says),
            document(image_xml=""),
            "101",
            configuration=text,
        )
        for text, says in (
            ('LOCK_TIMEOUTS="3"\n', ("LOCK_TIMEOUTS", "did you mean LOCK_TIMEOUT?", "remove the line")),
            ('FOO="3"\n', ("FOO", "remove the line")),
            ("this is no assignment\n", ("line 6", "'this is no assignment'", 'write KEY="value"')),
            ('LOCK_TIMEOUT="3\n', ("line 6", 'write KEY="value"')),
            ('LOCK_TIMEOUT="$(touch x)"\n', ('LOCK_TIMEOUT="$(touch x)"', "a number of seconds")),
            ('LOCK_TIMEOUT="soon"\n', ('LOCK_TIMEOUT="soon"', "a number of seconds")),
            ('REQUEST_TIMEOUT="0"\n', ('REQUEST_TIMEOUT="0"', "a number of seconds")),
            ('PREFIX="a-b"\n', ('PREFIX="a-b"', "letters")),
            ('PREFIX=""\n', ('PREFIX=""', "letters")),
            ('CLONE_MODE="fast"\n', ('CLONE_MODE="fast"', "copy or snapshot")),
            ('LOCK_DIR="locks"\n', ('LOCK_DIR="locks"', "an absolute path")),
            ('SSH=""\n', ('SSH=""', "command")),
            (f"LS_TOKEN={TOKEN} and more\n", ("line 6", "LS_TOKEN", 'write KEY="value"')),
        )
    ),
    line(
        f"mkimage 8 raw {DISK} 0 100",
        "LOCK_DIR is not there",
        ("/nowhere", "LOCK_DIR"),
        configuration='LOCK_DIR="/nowhere"\n',
    ),
    line(
        f"mkimage 8 raw {DISK} 0 100",
        "LOCK_DIR is a file",
        ("plain.raw", "LOCK_DIR"),
        configuration='LOCK_DIR="@IMAGES@/plain.raw"\n',
    ),
    line(
        f"delete {DISK} 0 100",
        "ssh is not installed",
        ("/nowhere/ssh", "install it"),
        configuration='SSH="/nowhere/ssh"\n',
    ),
    on(
        "mkfs",
        "linstor_un.conf is a directory",
        ("@IMAGES@", "make it readable"),
        document(),
        environment={"LINSTOR_UN_CONF": "@IMAGES@"},
    ),
    on(
        "mkfs",
        "linstor_un.conf is binary",
        ("binary.conf", "make it readable"),
        document(),
        environment={"LINSTOR_UN_CONF": "@IMAGES@/binary.conf"},
    ),
]

GOOD_LINES = (
    f"clone onefe:{SOURCE} node1:{SYSDIR}/0/disk.0 0 101",
    f"ln onefe:{SOURCE} node1:{SYSDIR}/0/disk.1 0 101",
    f"mkimage 8 raw {DISK} 0 100",
    f"mkswap 8 {DISK} 0 100",
    f"mv {DISK} node2:{SYSDIR}/0/disk.2 0 100",
    f"mvds node1:{SYSDIR}/0/disk.1 /dev/drbd/by-res/one-image-1/0 0 101",
    f"delete {DISK} 0 100",
    f"resize {DISK} 16 0 100",
)
ARGUMENTS = [
    *(line(text.split()[0], f"{text.split()[0]} without arguments", ("got 0", "takes")) for text in GOOD_LINES),
    *(
        line(f"{text} more", f"{text.split()[0]} with one more", ("more)", "takes", "a value with a blank"))
        for text in GOOD_LINES
    ),
    *(
        line(text.rpartition(" ")[0], f"{text.split()[0]} with one less", ("takes", "a value with a blank"))
        for text in GOOD_LINES
    ),
    line("context", "context without arguments", ("got 0", "takes")),
    line(f"context {DISK} 0 100", "context without a file", ("got 3", "takes")),
    line("monitor 1 2 3", "monitor with three", ("got 3 arguments", "call it as one_datastore does")),
    line(f"mkimage 8 raw evil:/x {DISK} 0 100", "FORMAT with a blank", ("got 6", "evil:/x", "a value with a blank")),
    line(f"mvds {DISK} /dev/a b 0 100", "SOURCE with a blank", ("got 5", "a value with a blank")),
    line(f"mkimage 8 qcow2 {DISK} 0 100", "FORMAT qcow2", ("'qcow2'", "use raw")),
    line(f"mkimage 8 $(touch${{IFS}}@CANARY@) {DISK} 0 100", "FORMAT is a command", ("$(touch", "use raw")),
    *(
        line(f"delete {place} 0 100", f"place {place}", (place.partition(":")[0] or "''", remedy))
        for place, remedy in (
            (f"node1:{SYSDIR}/1/disk.2", "not a path of VM 0"),
            (f"node1:{SYSDIR}/0/../1/disk.2", "is not HOST:/path"),
            (f"node1:{SYSDIR}/0/disk.2/..", "is not HOST:/path"),
            ("node1:100/0/disk.2", "is not HOST:/path"),
            (f"{SYSDIR}/0/disk.2", "is not HOST:/path"),
            ("node1:/etc/passwd", "not below a datastore"),
            ("node1:/", "not below a datastore"),
            ("node1:/0/disk.2", "not below a datastore"),
            (f"node1:{SYSDIR}/0/disk.x", "not below a datastore"),
            (f"node1:{SYSDIR}/0/disk.-1", "not below a datastore"),
            (f"node1:{SYSDIR}/0/disk.2;rm", "not below a datastore"),
            ("node1:/var/lib/$(touch${IFS}@CANARY@)/100/0/disk.2", "not below a datastore"),
            (f"node1:/{'1' * 5000}/0", "not below a datastore"),
            (f":{SYSDIR}/0/disk.2", "not the name of a host"),
            (f"-oProxyCommand=touch$IFS@CANARY@:{SYSDIR}/0/disk.2", "not the name of a host"),
            (f"node1;touch$IFS@CANARY@:{SYSDIR}/0/disk.2", "not the name of a host"),
            (f"$(touch$IFS@CANARY@):{SYSDIR}/0/disk.2", "not the name of a host"),
            (f"oneadmin@node1:{SYSDIR}/0/disk.2", "not the name of a host"),
        )
    ),
    line(f"delete node\udcff:{SYSDIR}/0/disk.2 0 100", "a host that is not UTF-8", ("udcff", "not the name of a host")),
    line(f"delete {DISK} x 100", "VMID is a word", ("VMID is 'x'", "must be a number")),
    line(f"delete {DISK} -1 100", "VMID is negative", ("VMID is '-1'", "must be a number")),
    line(f"delete {DISK} 0 x", "DSID is a word", ("DSID is 'x'", "must be a number")),
    line(f"delete {DISK} 0 1.0", "DSID is a fraction", ("DSID is '1.0'", "must be a number")),
    line(f"delete {DISK} {'1' * 30} 100", "VMID is huge", ("VMID is", "must be a number")),
    *(
        line(text.format(size), f"{text.split()[0]} of {size[:30]} MiB", (size[:30], "must be a number of MiB"))
        for text in (f"mkimage {{}} raw {DISK} 0 100", f"mkswap {{}} {DISK} 0 100", f"resize {DISK} {{}} 0 100")
        for size in ("0", "-1", "1.5", "8M", "9223372036854775808", "1" + "0" * 30)
    ),
    line(f"mkimage 8 raw node1:{SYSDIR}/0 0 100", "a directory for a disk", ("must end in disk.<id>",)),
    line(f"mv {DISK} node2:{SYSDIR}/0/disk.1 0 100", "two disks", ("disk.2", "disk.1", "not the same disk")),
    line(f"mv {DISK} node2:{SYSDIR}/0 0 100", "a disk and a directory", ("not the same disk",)),
    line(
        f"context {SYSDIR}/none.sh node1:{SYSDIR}/0/disk.9 0 100",
        "a context file that is not there",
        ("none.sh", "correct CONTEXT/FILES"),
    ),
    line(
        f"context none.sh node1:{SYSDIR}/0/disk.9 0 100",
        "a relative context file",
        ("none.sh", "correct CONTEXT/FILES"),
    ),
    line(
        f"context @IMAGES@/plain.raw:../x node1:{SYSDIR}/0/disk.9 0 100",
        "a context file's name with ..",
        ("../x", "correct CONTEXT/FILES"),
    ),
]

HOSTILE = [
    line(
        f"clone onefe:{SOURCE} node1:{SYSDIR}/66/disk.0 66 101",
        "SIZE below the image's",
        ("SIZE 4 MiB", "8 MiB", "cannot be smaller"),
    ),
    line(f"clone onefe:{SOURCE} node1:{SYSDIR}/66/disk.3 66 101", "SIZE 0", ("no SIZE", "correct the VM's template")),
    line(
        f"clone onefe:/etc/passwd node1:{SYSDIR}/66/disk.0 66 101",
        "clone of a file",
        ("/etc/passwd", "should look like"),
    ),
    line(
        f"clone onefe:{SOURCE} node1:{SYSDIR}/66/disk.99 66 101",
        "clone to a disk that oned does not know",
        ("disk 99", "VM 66"),
    ),
    line(
        f"clone onefe:{SOURCE} node1:{SYSDIR}/77/disk.0 77 101",
        "clone for a VM that oned does not know",
        ("VM 77", "call the action"),
    ),
    line(f"ln onefe:/etc/passwd node1:{SYSDIR}/66/disk.1 66 101", "ln of a file", ("/etc/passwd", "no LINSTOR volume")),
    line(
        f"ln onefe:/dev/drbd/by-res/../../sda/0 node1:{SYSDIR}/66/disk.2 66 101",
        "ln to another device",
        ("../../sda", "no LINSTOR volume"),
    ),
    line(
        f"ln onefe:{SOURCE} node1:{SYSDIR}/66/disk.1 66 101",
        "ln of somebody else's image",
        ("/etc/passwd", SOURCE, "no image but its own"),
    ),
    line(
        f"ln onefe:{SOURCE} node1:{SYSDIR}/66/disk.0 66 101",
        "ln of a disk to be cloned",
        ("CLONE=YES", "no image but its own"),
    ),
    line(
        f"ln onefe:/dev/drbd/by-res/{'x' * 49}/0 node1:{SYSDIR}/66/disk.4 66 101",
        "a name of 49 characters",
        ("x" * 49, "no LINSTOR volume"),
    ),
    line(
        f"ln onefe:/dev/drbd/by-res/one.image/0 node1:{SYSDIR}/66/disk.5 66 101",
        "a name with a dot",
        ("one.image", "no LINSTOR volume"),
    ),
    line(
        f"mkimage 8 raw node1:{SYSDIR}/66/disk.6 66 100",
        "FS of a volatile disk is a command",
        ("$(touch x)", "SUPPORTED_FS"),
    ),
    line(f"mkimage 8 raw node1:{SYSDIR}/66/disk.7 66 100", "FS that is not supported", ("btrfs", "SUPPORTED_FS")),
    line(
        f"mkimage 8 raw node1:{SYSDIR}/77/disk.0 77 100",
        "mkimage for a VM that oned does not know",
        ("VM 77", "call the action"),
    ),
    line(
        f"mv node1:{SYSDIR}/77 node2:{SYSDIR}/77 77 100",
        "mv of a VM that oned does not know",
        ("VM 77", "call the action"),
    ),
    line(
        f"snap_create_live node1:{SYSDIR}/66/disk.0 0 66 101",
        "a domain that virsh takes for an option",
        ("'--domain=$(id)'", "not the name of a domain"),
    ),
    line(f"resize node1:{SYSDIR}/0/disk.99 16 0 100", "resize of a disk that is not there", ("disk 99", "VM 0")),
    line(
        f"resize node1:{SYSDIR}/66/disk.0 16 66 101",
        "resize of a volume that is not there",
        ("one-vm-66-disk-0", "linstor resource list"),
    ),
    line(
        f"mkimage 8 raw node1:{SYSDIR.replace('100', '999')}/0/disk.2 0 100",
        "a datastore that oned does not know",
        ("datastore 999", "onedatastore list"),
    ),
    line(f"delete {DISK} 0 999", "an image datastore that oned does not know", ("datastore 999", "onedatastore list")),
    line(
        f"mkimage 8 raw node9:{SYSDIR}/66/disk.8 66 100",
        "mkimage on an unknown host, no such disk",
        ("disk 8", "VM 66"),
    ),
    line(
        f"mkswap 8 node9:{SYSDIR}/66/disk.8 66 100",
        "a host that LINSTOR does not know",
        ("node9", "linstor node create node9"),
    ),
    line(
        f"mv node1:{SYSDIR}/0/disk.1 node9:{SYSDIR}/0/disk.1 0 101",
        "mv to a host that LINSTOR does not know",
        ("node9", "linstor node create"),
    ),
    line(f"mv node1:{SYSDIR}/67 node9:{SYSDIR}/67 67 100", "mv to a host that ssh does not know", ("node9", "ssh")),
    line(
        f"context @IMAGES@/plain.raw node9:{SYSDIR}/0/disk.9 0 100",
        "context to a host that ssh does not know",
        ("node9", "ssh"),
    ),
]

SURROUNDINGS = [
    line(
        f"mkimage 8 raw {DISK} 0 100",
        "oned is down",
        ("@NOBODY@/RPC2", "start opennebula"),
        environment={"ONE_XMLRPC": "@NOBODY@/RPC2"},
    ),
    line(
        f"mkimage 8 raw {DISK} 0 100",
        "something else answers for oned",
        ("@HTML@/RPC2", "oned.log"),
        environment={"ONE_XMLRPC": "@HTML@/RPC2"},
    ),
    line(
        f"mkimage 8 raw {DISK} 0 100",
        "ONE_XMLRPC has a word for a port",
        ("http://localhost:x/RPC2", "ONE_XMLRPC"),
        environment={"ONE_XMLRPC": "http://localhost:x/RPC2"},
    ),
    line(
        f"mkimage 8 raw {DISK} 0 100",
        "ONE_XMLRPC is no URL",
        ("nonsense", "ONE_XMLRPC"),
        environment={"ONE_XMLRPC": "nonsense"},
    ),
    line(
        f"mkimage 8 raw {DISK} 0 100",
        "wrong credentials",
        ("oned refused", "ONE_AUTH"),
        environment={"ONE_AUTH": "@IMAGES@/wrong_auth"},
    ),
    line(
        f"mkimage 8 raw {DISK} 0 100",
        "no credentials",
        ("credentials", "run the driver as oneadmin"),
        environment={"HOME": "/nowhere", "ONE_XMLRPC": "@NOBODY@"},
    ),
    *(
        on(
            "mkfs",
            f"the controller {title}",
            (uri, "correct LS_CONTROLLERS"),
            document(datastore={"LS_CONTROLLERS": uri}),
        )
        for title, uri in (
            ("is down", "@NOBODY@"),
            ("is another program", "@HTML@"),
            ("hangs", "@HANGING@"),
            ("has a name that nobody knows", "linstor://controller.invalid"),
            ("speaks no TLS", "linstor+ssl://@HTML_ADDRESS@"),
        )
    ),
    on(
        "mkfs",
        "both controllers are down",
        ("@NOBODY@", "@HTML@", "correct LS_CONTROLLERS"),
        document(datastore={"LS_CONTROLLERS": "@NOBODY@,@HTML@"}),
    ),
    on(
        "monitor",
        "LS_CONTROLLERS of the environment",
        ("@NOBODY@", "correct LS_CONTROLLERS"),
        document(image_xml=""),
        "101",
        environment={"LS_CONTROLLERS": "@NOBODY@"},
    ),
    line(
        f"ln onefe:/dev/drbd/by-res/one-image-1/0 node1:{SYSDIR}/0/disk.1 0 101",
        "the controller is down, ln",
        ("@NOBODY@", "LS_CONTROLLERS"),
        environment={"LS_CONTROLLERS": "@NOBODY@"},
    ),
]

TABLE = [*XML, *NUMBERS, *PATHS, *ATTRIBUTES, *CONFIGURATION, *ARGUMENTS, *HOSTILE, *SURROUNDINGS]


class _Html(BaseHTTPRequestHandler):
    """A server that is neither LINSTOR nor oned, and whose downloads end early."""

    def do_GET(self) -> None:
        body = b"<html><body>It works!</body></html>"
        length = 1 << 20 if self.path == "/cut-short" else len(body)
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Return the cluster that all cases of this module are called against."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Html)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    silent = socket.create_server(("127.0.0.1", 0))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = taken.getsockname()[1]
        # Bound and not listening: connections are refused, and nobody else gets the port meanwhile.
        with bench(tmp_path_factory.mktemp("bench")) as made:
            address = f"127.0.0.1:{server.server_address[1]}"
            made.places.update(
                NOBODY=f"http://127.0.0.1:{nobody}",
                NOBODY_ADDRESS=f"127.0.0.1:{nobody}",
                HTML=f"http://{address}",
                HTML_ADDRESS=address,
                HANGING=f"http://127.0.0.1:{silent.getsockname()[1]}",
            )
            made.image("empty.raw", b"")
            made.image("large.raw", b"x" * (1 << 21))
            made.image("cut.gz", b"\x1f\x8b\x08\x00\x00")
            made.image("wrong_auth", b"oneadmin:wrong")
            (made.images_folder / "plain.raw").chmod(0o600)
            Path(made.image("two_lines", f"{TOKEN}\nX-Header: 1\n".encode())).chmod(0o600)
            made.image("binary.conf", b"\xff\xfe\x00")
            made.image("backing.qcow2", b"QFI\xfb" + (3).to_bytes(4, "big") + (112).to_bytes(8, "big") + bytes(200))
            made.image("two_descriptors.vmdk", vmdk(8, SPARSE + b'parentFileNameHint="/etc/passwd"\n', harmless=SPARSE))
            yield made
    silent.close()
    server.shutdown()
    server.server_close()


def check(outcome: Outcome) -> None:
    """Check what oned and a person see of any failure."""
    assert outcome.status == 1
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    assert "Unexpected" not in outcome.stderr, "a person must not be told of a defect"
    assert not re.match(r"(ERROR|INFO|WARN|DEBUG):", outcome.sentence), "oned takes such a line for its log"
    assert [
        line for line in outcome.stderr.splitlines()[:-1] if not re.match(r"(ERROR|INFO|WARN): [a-z]+/[a-z_]+: ", line)
    ] == []
    for secret in SECRETS:
        assert secret not in outcome.stderr


@pytest.mark.parametrize("case", TABLE, ids=[case.title[:70] for case in TABLE])
def test_bad_input_gives_one_sentence_and_changes_nothing(place: Bench, case: Case) -> None:
    before = place.state()
    outcome = place.run(case)
    check(outcome)
    for word in case.says:
        assert place.filled(word) in outcome.sentence
    assert place.state() == before


TRANSFER_VERBS = sorted(path.name for path in (CHECKOUT / "tm" / "linstor_un").iterdir())


@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize("verb", TRANSFER_VERBS)
def test_every_transfer_action_refuses_what_no_release_passes(place: Bench, verb: str, count: int) -> None:
    before = place.state()
    check(place.run(Case(verb, f"tm/{verb}", ("$(touch${IFS}@CANARY@)",) * count, ())))
    assert place.state() == before


ODD_NAMES = (
    "a blank.raw",
    " leading and trailing ",
    "two\u00a0blanks",
    "quotes'\"`.raw",
    "$(touch @NAME@)",
    "`touch @NAME@`",
    "a;touch @NAME@;",
    "a&&touch @NAME@",
    "a|b>c<d",
    "*?[x]{a,b}~",
    "-oProxyCommand=x",
    "--help",
    "%s%n%d",
    "<&>]]>",
    "\u65e5\u672c\u8a9e \u00e9",
    "back\\slash",
    "key=value#comment",
)


@pytest.fixture
def imported(place: Bench) -> Iterator[None]:
    """Let a test import image 7, and remove it again."""
    yield
    done = place.run(on("rm", "remove", (), document({"SOURCE": "/dev/drbd/by-res/one-image-7/0"})))
    assert (done.status, done.stderr) == (0, "")


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_image_file_may_have_any_name(place: Bench, name: str) -> None:
    before = place.state()
    name = name.replace("@NAME@", "canary")
    path = place.image(name.strip() if name.strip() != name else name, name.encode())
    xml = document({"PATH": path, "NAME": name, "FS": ""}, name=name)
    stat = place.run(on("stat", name, (), xml))
    assert (stat.status, stat.stdout, stat.stderr) == (0, "1\n", "")
    copied = place.run(on("cp", name, (), xml))
    assert (copied.status, copied.stdout) == (0, "/dev/drbd/by-res/one-image-7/0 raw\n"), copied.stderr
    assert place.sandbox.read("one-image-7", 0, len(name.encode())) == name.encode()
    after = place.state()
    assert after["front-end"] == before["front-end"]
    assert not (place.images_folder / "canary").exists() and not place.canary.exists()
    assert files(after) == files(before), "a file has appeared on a host"


def files(state: dict[str, object]) -> object:
    """Return the files of all hosts."""
    cluster = state["cluster"]
    assert isinstance(cluster, dict)
    return cluster["files"]


@pytest.mark.usefixtures("imported")
def test_a_name_that_is_not_utf8_is_no_obstacle(place: Bench) -> None:
    xml = document({"NAME": "a\udcff\udcc3 b"}, name="\udcfe")
    assert b"\xff\xc3" in xml
    made = place.run(on("mkfs", "not UTF-8", (), xml))
    assert (made.status, made.stdout, made.stderr) == (0, "/dev/drbd/by-res/one-image-7/0\n", "")


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("form", ["5.12", "6.6 with -i", "7.4", "plain", "wrapped"])
def test_every_form_of_the_call_is_understood(place: Bench, form: str) -> None:
    encoded = base64.b64encode(place.filled(document().decode()).encode())
    forms = {
        "5.12": ((encoded.decode(), "7"), b""),
        "6.6 with -i": (("-", "7"), encoded),
        "7.4": (("7",), encoded),
        "plain": (("7",), base64.b64decode(encoded)),
        "wrapped": (("7",), b"\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76)) + b"\n"),
    }
    arguments, stdin = forms[form]
    made = place.run(Case(form, "datastore/mkfs", arguments, (), stdin))
    assert (made.status, made.stdout, made.stderr) == (0, "/dev/drbd/by-res/one-image-7/0\n", "")


@pytest.mark.usefixtures("imported")
def test_elements_that_nobody_knows_and_any_order_are_no_obstacle(place: Bench) -> None:
    template = elements({"STORAGE_POOL": "data", "REPLICA_COUNT": "1", "FUTURE": "$(x)"})
    datastore = f"<DATASTORE><TEMPLATE>{template}</TEMPLATE><ID>101</ID></DATASTORE>"
    image = "<IMAGE><FUTURE><ID>9</ID></FUTURE><SIZE><![CDATA[ 8 ]]></SIZE><!-- 7 --><ID>7</ID></IMAGE><MONITOR/>"
    made = place.run(on("mkfs", "future", (), document(image_xml=image, datastore_xml=datastore)))
    assert (made.status, made.stdout, made.stderr) == (0, "/dev/drbd/by-res/one-image-7/0\n", "")


@pytest.fixture
def remotes(tmp_path: Path) -> Path:
    """Return a remotes folder with the driver, as an operator copies it."""
    for name in ("datastore", "tm", "lib"):
        (tmp_path / name).symlink_to(CHECKOUT / name) if name == "lib" else (tmp_path / name).mkdir()
    for name in ("datastore", "tm"):
        folder = tmp_path / name / "linstor_un"
        folder.mkdir()
        for script in (CHECKOUT / name / "linstor_un").iterdir():
            (folder / script.name).write_bytes(script.read_bytes())
            (folder / script.name).chmod(0o755)
    return tmp_path


FAILING = line(f"mkswap 8 node9:{SYSDIR}/66/disk.8 66 100", "", ())
SENTENCE = (
    "Host node9 is not a node of LINSTOR, so that one-vm-66-disk-8 cannot be attached there: register it with `linstor "
    "node create node9`, under the same name that OpenNebula has for it"
)


@pytest.mark.parametrize("release", ["5.12.0", "5.12.0.4\n", "6.0.0", "6.0.2"])
def test_releases_that_look_for_marks_get_them(place: Bench, remotes: Path, release: str) -> None:
    (remotes / "VERSION").write_text(release)
    outcome = place.run(FAILING, remotes)
    assert outcome == Outcome(1, "", f"ERROR MESSAGE --8<------\n{SENTENCE}\nERROR MESSAGE ------>8--\n")


@pytest.mark.parametrize("release", ["6.0.3", "6.4.0", "6.10.0\n"])
def test_releases_that_show_all_of_stderr_get_the_sentence_alone(place: Bench, remotes: Path, release: str) -> None:
    (remotes / "VERSION").write_text(release)
    assert place.run(FAILING, remotes) == Outcome(1, "", f"{SENTENCE}\n")


@pytest.mark.parametrize("release", ["6.99.80", "7.0.0", "7.4.1\n", "", "\udcff\udcfe", None])
def test_releases_that_sort_stderr_get_the_log_and_the_sentence(
    place: Bench, remotes: Path, release: Optional[str]
) -> None:
    if release is not None:
        (remotes / "VERSION").write_bytes(release.encode("utf-8", "surrogateescape"))
    outcome = place.run(FAILING, remotes)
    check(outcome)
    *log, last = outcome.stderr.splitlines()
    assert last == SENTENCE
    assert "INFO: tm/mkswap: took back: volume one-vm-66-disk-8" in log
    assert all(re.match(r"(INFO|WARN|ERROR): tm/mkswap: \D", line) for line in log), (
        "a number would name another VM's log"
    )
