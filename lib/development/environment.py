"""The checkout's own environment: Python packages in .venv, programs from the system or unpacked into .venv/tools."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from development import debian
from development.errors import NotPossible

CHECKOUT = Path(__file__).resolve().parents[2]
_OWN = CHECKOUT / ".venv"
# Another interpreter has one of its own. What is run in it may set up other checkouts, and is not told.
VENV = Path(os.environ.pop("LINSTOR_UN_VENV", _OWN))
PYTHON = VENV / "bin" / "python"
SHELLCHECK = VENV / "bin" / "shellcheck"
TOOLS = _OWN / "tools"

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_STAMP = VENV / "prepared"
# A program here may be missing from an ordinary user's PATH although it is installed.
_SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def prepare() -> dict[str, str]:
    """Set up what is missing, once; the environment in which programs of .venv and of the system are found."""
    found = {
        "PATH": os.pathsep.join(_path()),
        "VIRTUAL_ENV": str(VENV),
        # The sandbox's hosts have a clean PATH: what is unpacked here has to be named to them.
        "LINSTOR_SANDBOX_PATH": f"{TOOLS / 'bin'}{os.pathsep}",
    }
    if not _is_prepared():
        _make_directory()
        with _locked():
            if not _is_prepared():
                _set_up()
    return found


def _path() -> list[str]:
    inherited = os.environ.get("PATH", os.defpath).split(os.pathsep)
    own = [str(PYTHON.parent), str(TOOLS / "bin")]
    path = own + [folder for folder in inherited if folder not in own]
    return path + [folder for folder in _SYSTEM_PATHS if folder not in path]


def _is_prepared() -> bool:
    try:
        return _STAMP.read_text(encoding="utf-8") == _key()
    except OSError:
        return False


def _key() -> str:
    """What the environment was made of: another key means that it has to be brought up to date."""
    parts = [_REQUIREMENTS.read_text(encoding="utf-8"), repr(debian.PROGRAMS), str(CHECKOUT), os.path.realpath(PYTHON)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _set_up() -> None:
    started = time.monotonic()
    _say("setting up what this checkout needs, once; it takes a minute or two")
    missing = debian.missing(os.pathsep.join(_path()))
    needs_pip = not _runs() and not _has_ensurepip()
    if missing or needs_pip:
        debian.install(missing, needs_pip, TOOLS, _say)
    still = debian.missing(os.pathsep.join(_path()))
    if still:
        raise NotPossible(f"these programs are still missing after their packages were installed: {', '.join(still)}")
    if not _runs():
        _make_venv()
    _install_requirements()
    _STAMP.write_text(_key(), encoding="utf-8")
    _say(f"ready after {time.monotonic() - started:.0f} s")


def _make_directory() -> None:
    try:
        VENV.mkdir(parents=True, exist_ok=True)
        (VENV / "lock").touch()
    except OSError as error:
        raise NotPossible(f"cannot write {VENV} ({error.strerror}): run ./dev in a checkout that you own") from error


@contextmanager
def _locked() -> Iterator[None]:
    """Let only one ./dev set up at a time."""
    with (VENV / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _runs() -> bool:
    """The environment's Python starts and is the version that its packages are for."""
    probe = "import sys; print(sys.prefix); print('python%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([str(PYTHON), "-I", "-c", probe], capture_output=True, text=True, check=False)
    except OSError:
        return False
    if done.returncode != 0:
        return False
    prefix, version = done.stdout.splitlines()
    return Path(prefix).resolve() == VENV.resolve() and (VENV / "lib" / version).is_dir()


def _has_ensurepip() -> bool:
    """This Python can put pip into a new environment: Debian has that in a package of its own."""
    probe = [sys.executable, "-I", "-c", "import ensurepip; ensurepip.version()"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _make_venv() -> None:
    _say(f"Python {sys.version.split()[0]}: a virtual environment in {VENV}")
    for name in ("bin", "include", "lib", "lib64", "share", "pyvenv.cfg"):
        _remove(VENV / name)
    with_pip = _has_ensurepip()
    command = [sys.executable, "-I", "-m", "venv", *([] if with_pip else ["--without-pip"]), str(VENV)]
    _run(command, "cannot make a virtual environment: install Python's venv module (Debian, Ubuntu: python3-venv)")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _install_requirements() -> None:
    _say("Python packages: the driver's, then pytest, mypy, ruff (some 50 MB)")
    remedy = "cannot install the Python packages: make a package index reachable for pip, then run ./dev again"
    options = ["--quiet", "--disable-pip-version-check", "--no-warn-script-location"]
    _run([str(PYTHON), "-m", "pip", "install", *options, "-r", str(_REQUIREMENTS)], remedy, with_pip())


def with_pip() -> dict[str, str]:
    """The environment in which Python finds a pip: its own, or the wheels that Debian has for ensurepip."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if subprocess.run([str(PYTHON), "-I", "-c", "import pip"], capture_output=True, check=False).returncode == 0:
        return inherited
    folders = [TOOLS / "root" / "usr" / "share" / "python-wheels", Path("/usr/share/python-wheels")]
    wheels = [str(wheel) for folder in folders for wheel in sorted(folder.glob("*.whl"))]
    if not wheels:
        raise NotPossible("there is no pip for the environment: install python3-venv (Debian, Ubuntu) or pip")
    return {**inherited, "PYTHONPATH": os.pathsep.join(wheels)}


def _run(command: list[str], remedy: str, environment: Optional[dict[str, str]] = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    if done.returncode != 0:
        told = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise NotPossible(f"{remedy}\n{told}")


def _say(text: str) -> None:
    print(f"./dev: {text}", file=sys.stderr, flush=True)
