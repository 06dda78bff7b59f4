"""The house's own rules: who may know whom, what an action may load, and how long a function may be."""

from __future__ import annotations

import ast
import base64
import importlib.util
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from linstor_un import settings
from linstor_un.settings import ATTRIBUTES, CONFIGURATION_ONLY, Settings
from tests.conftest import CHECKOUT
from tests.linstor_un.bench import SYSDIR, Bench, bench, document

LIBRARY = CHECKOUT / "lib" / "linstor_un"
MODULES = sorted(LIBRARY.rglob("*.py"))
# Where the entry scripts of each kind of action lie.
FOLDERS = {"datastore": "datastore/linstor_un", "tm": "tm/linstor_un", "vmm": "vmm/kvm"}
# What takes longer to load than an action's work, and is needed for TLS, for http images and for nothing at all.
FORBIDDEN = {
    *("click", "pyone", "requests", "rich", "xmlrpc.client", "urllib.request"),
    *("configparser", "dataclasses", "inspect", "ipaddress", "locale", "logging", "shutil", "ssl"),
    *("xml.etree.ElementTree", "linstor.resource", "linstor.kv", "linstor.resourcegroup", "linstor.config"),
}
# The ISO's messages go into a file without a name.
NEEDED = {"context": {"shutil"}}


def name_of(path: Path) -> str:
    """Return a module's dotted name."""
    return ".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    """Return the dotted names of all that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def in_room(path: Path, room: str) -> bool:
    return below(name_of(path), f"linstor_un.{room}")


ROOMS = ("opennebula", "cluster", "hosts")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_dependencies_point_downwards_only(path: Path) -> None:
    found = imported(path)
    for room in ROOMS:
        if in_room(path, room):
            others = [f"linstor_un.{other}" for other in ROOMS if other != room]
            assert [name for name in found if below(name, *others)] == []
    if not in_room(path, "actions") and not in_room(path, "cli"):
        assert [name for name in found if below(name, "linstor_un.actions", "linstor_un.cli")] == []
    if in_room(path, "actions"):
        assert [name for name in found if below(name, "linstor_un.cli")] == []
    assert [name for name in found if below(name, "linstor_sandbox", "development", "tests")] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_what_an_installation_has_is_imported(path: Path) -> None:
    if not hasattr(sys, "stdlib_module_names"):
        pytest.skip("Python 3.9 does not say what its standard library is")
    allowed = {*sys.stdlib_module_names, "linstor_un", "lxml", "linstor"}
    if in_room(path, "cli"):
        allowed.add("click")
    assert {name.partition(".")[0] for name in imported(path)} <= allowed


def test_python_linstor_is_used_in_one_room() -> None:
    users = {name_of(path) for path in MODULES if any(below(name, "linstor") for name in imported(path))}
    assert users == {f"linstor_un.cluster.{module}" for module in ("connection", "controllers", "gateway")}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_and_all_that_others_use_of_it_says_what_it_is(path: Path) -> None:
    assert (ast.get_docstring(tree(path)) or "").endswith((".", ")"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_but_the_frame_writes_to_stdout_and_no_shell_parses_a_value(path: Path) -> None:
    if in_room(path, "cli"):
        pytest.skip("a command of operators, not an action")
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id == "print"), f"line {node.lineno}"
            shells = [keyword for keyword in node.keywords if keyword.arg == "shell"]
            assert shells == [], f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("os", "sys"):
            allowed = name_of(path) == "linstor_un.driver"
            assert allowed or node.attr not in ("system", "popen", "stdout"), f"line {node.lineno}"


def functions() -> list[tuple[int, str]]:
    """Return the lines of code of every function, without its docstring, and its name."""
    found = []
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                if ast.get_docstring(node) is not None:
                    documentation = node.body[0]
                    assert documentation.end_lineno is not None
                    length -= documentation.end_lineno - documentation.lineno + 1
                found.append((length, f"{name_of(path)}.{node.name}"))
    return found


def test_functions_fit_on_a_screen_and_half_of_them_into_twelve_lines() -> None:
    assert [(length, name) for length, name in functions() if length > 45] == []
    assert statistics.median(length for length, _ in functions()) <= 12


def scripts(kind: str) -> dict[str, Path]:
    return {path.name: path for path in (CHECKOUT / FOLDERS[kind]).iterdir()}


SCRIPTS = [path for kind in FOLDERS for path in sorted(scripts(kind).values())]
SCRIPT_NAMES = [f"{path.parts[-3]}-{path.name}" for path in SCRIPTS]


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_action_has_an_entry_script_and_every_script_an_action(kind: str) -> None:
    actions = {path.stem for path in (LIBRARY / "actions" / kind).glob("*.py")} - {"__init__"}
    assert set(scripts(kind)) == actions


@pytest.mark.parametrize("path", SCRIPTS, ids=SCRIPT_NAMES)
def test_an_entry_script_names_its_action_and_nothing_else(path: Path) -> None:
    text = path.read_text()
    assert os.access(path, os.X_OK)
    assert len(text.splitlines()) <= 10
    assert text.startswith("#!/usr/bin/env python3\n")
    assert f'\nmain("{path.parts[-3]}", "{path.name}")\n' in text
    # All are the same but for that.
    other = scripts("datastore")["mkfs"].read_text()
    assert text == other.replace('"datastore", "mkfs"', f'"{path.parts[-3]}", "{path.name}"')


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Return the cluster that actions are run against."""
    with bench(tmp_path_factory.mktemp("house")) as made:
        made.image("plain.raw", b"x" * 4096)
        # A VM that runs has its disks open, and nobody makes them again then.
        made.cloud.poweroff(made.machine)
        # mv leads to a host that oned has noted for the VM.
        made.machine.place("node2", 1, made.system)
        yield made


SOURCE = "/dev/drbd/by-res/one-image-0/0"
PERSISTENT = "/dev/drbd/by-res/one-image-1/0"
IMAGE_CALLS = {
    "cp": {"PATH": "@IMAGES@/plain.raw"},
    "stat": {"PATH": "@IMAGES@/plain.raw"},
    "mkfs": {"FS": "ext4"},
    "clone": {"PATH": SOURCE},
    "rm": {"SOURCE": "/dev/drbd/by-res/one-image-7/0"},
    "monitor": {},
}
TRANSFER_CALLS = {
    "clone": f"onefe:{SOURCE} node1:{SYSDIR}/0/disk.0 0 101",
    "ln": f"onefe:{PERSISTENT} node1:{SYSDIR}/0/disk.1 0 101",
    "mkimage": f"8 raw node1:{SYSDIR}/0/disk.2 0 100",
    "mkswap": f"8 node1:{SYSDIR}/0/disk.2 0 100",
    "mv": f"node1:{SYSDIR}/0/disk.2 node2:{SYSDIR}/0/disk.2 0 100",
    "mvds": f"node1:{SYSDIR}/0/disk.1 {PERSISTENT} 0 101",
    "resize": f"node1:{SYSDIR}/0/disk.2 8 0 100",
    "delete": f"node1:{SYSDIR}/0/disk.2 0 100",
    "context": f"@IMAGES@/plain.raw node1:{SYSDIR}/0/disk.9 0 100",
}
GOOD_CALLS = [
    *(("datastore", verb) for verb in IMAGE_CALLS),
    *(("tm", verb) for verb in TRANSFER_CALLS),
    ("tm", "monitor"),
]


def loaded(place: Bench, command: Sequence[object], stdin: bytes = b"") -> tuple[int, set[str], str]:
    """Run Python with these arguments; return its status, the modules that it has loaded, and what else it printed."""
    environment = place.cloud.scripts.environment
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *map(str, command)],
        input=stdin,
        capture_output=True,
        # What measures the tests' coverage loads much by itself.
        env={name: value for name, value in environment.items() if not name.startswith("COVERAGE")},
        cwd=place.cloud.scripts.directory,
        timeout=60,
        check=False,
    )
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    names = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    said = [line for line in lines if not line.startswith("import time:")]
    return done.returncode, names, "\n".join(said)


@pytest.fixture(scope="module")
def bare(place: Bench) -> set[str]:
    """Return what Python itself loads, before any script."""
    return loaded(place, ["-c", "pass"])[1]


def is_there(package: str) -> bool:
    """Tell whether there is such a package: what was only looked for is listed too."""
    return importlib.util.find_spec(package) is not None


def foreign(names: set[str]) -> set[str]:
    """Return the packages of these modules that no action may load."""
    allowed = {*sys.stdlib_module_names, "linstor_un", "lxml", "linstor"}
    return {package for package in {name.partition(".")[0] for name in names} - allowed if is_there(package)}


def good_call(place: Bench, verb: str, kind: str) -> tuple[tuple[str, ...], bytes]:
    """Return a call of the action that goes all the way."""
    if kind == "tm" and verb != "monitor":
        return tuple(place.filled(TRANSFER_CALLS[verb]).split()), b""
    xml = document(IMAGE_CALLS[verb], image_xml="" if verb == "monitor" else None).decode()
    return ("101" if verb == "monitor" else "7",), base64.b64encode(place.filled(xml).encode())


@pytest.mark.skipif(not hasattr(sys, "stdlib_module_names"), reason="Python 3.9 does not say what its library is")
@pytest.mark.parametrize("script", SCRIPTS, ids=SCRIPT_NAMES)
def test_an_action_loads_only_what_it_uses(place: Bench, bare: set[str], script: Path) -> None:
    status, names, _ = loaded(place, [script, *"xxxxxxxxxxx"])
    assert status == 1 and "linstor_un.opennebula.arguments" in names
    assert foreign(names - bare) == set()
    assert names & FORBIDDEN <= NEEDED.get(script.name, set())
    assert not any(below(name, "linstor") for name in names), "what fails on its arguments has nothing to send"


@pytest.mark.skipif(not hasattr(sys, "stdlib_module_names"), reason="Python 3.9 does not say what its library is")
@pytest.mark.parametrize(("kind", "verb"), GOOD_CALLS)
def test_an_action_that_does_its_work_loads_only_what_it_uses(
    place: Bench, bare: set[str], kind: str, verb: str
) -> None:
    arguments, stdin = good_call(place, verb, kind)
    status, names, said = loaded(place, [scripts(kind)[verb], *arguments], stdin)
    assert status == 0, said
    assert foreign(names - bare) == set()
    assert names & FORBIDDEN <= NEEDED.get(verb, set())
    assert ("linstor.linstorapi" in names) is (verb not in ("stat", "context"))


def documented() -> dict[str, str]:
    """Return the settings that etc/linstor_un.conf shows, with the value in its comment."""
    return dict(re.findall(r'^#([A-Z_]+)="([^"]*)"$', (CHECKOUT / "etc" / "linstor_un.conf").read_text(), re.MULTILINE))


def test_the_configuration_as_it_comes_sets_nothing() -> None:
    assert settings.read_configuration(str(CHECKOUT / "etc" / "linstor_un.conf")) == {}


def test_the_configuration_shows_what_can_be_set_there(tmp_path: Path) -> None:
    shown = documented()
    assert set(shown) <= {*ATTRIBUTES, *CONFIGURATION_ONLY}
    assert set(CONFIGURATION_ONLY) <= set(shown)
    shared = {"LS_CONTROLLERS", "LS_CERTFILE", "LS_KEYFILE", "LS_CAFILE", "LS_TOKEN_FILE", "BRIDGE_LIST", "STAGING_DIR"}
    assert shared | {"CLONE_MODE"} <= set(shown), "what concerns all datastores of a front-end"
    path = tmp_path / "all.conf"
    path.write_text("".join(f'{key}="{value}"\n' for key, value in shown.items()))
    read = settings.read_configuration(str(path))
    assert read == shown
    settings.from_configuration(read)


def test_the_values_that_the_configuration_shows_are_the_defaults() -> None:
    # These have no default of their own, so that an example is shown.
    examples = {"LOCK_DIR", "FRONTEND_HOSTNAME", "BRIDGE_LIST"} | {key for key in documented() if key.startswith("LS_")}
    shown = {key: value for key, value in documented().items() if key not in examples}
    assert settings.from_configuration(shown) == Settings()


def test_every_setting_in_the_configuration_is_explained() -> None:
    for paragraph in (CHECKOUT / "etc" / "linstor_un.conf").read_text().split("\n\n"):
        lines = paragraph.strip().splitlines()
        if any(re.match("#[A-Z_]+=", line) for line in lines):
            assert lines[0].startswith("# "), lines
