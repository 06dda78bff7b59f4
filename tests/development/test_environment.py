"""How ./dev finds and arranges what a checkout needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from development import commands, debian, environment
from development.errors import NotPossible


def test_an_empty_path_misses_every_package_once(tmp_path: Path) -> None:
    missing = debian.missing(str(tmp_path))
    assert missing == list(dict.fromkeys(package for _, package in debian.PROGRAMS))
    assert "qemu-utils" in missing


def test_one_of_several_programs_is_enough(tmp_path: Path) -> None:
    program = tmp_path / "xorriso"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    assert "genisoimage" not in debian.missing(str(tmp_path))


def test_elsewhere_than_on_debian_the_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotPossible, match="neither Debian nor Ubuntu.*qemu-utils, python3-venv"):
        debian.install(["qemu-utils"], True, tmp_path, print)


def test_unpacked_programs_find_their_libraries(tmp_path: Path) -> None:
    root = tmp_path / "it's" / "root"
    program = root / "usr" / "bin" / "tool"
    program.parent.mkdir(parents=True)
    (root / "usr" / "lib" / "x86_64-linux-gnu").mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH|$1"\n', encoding="utf-8")
    program.chmod(0o755)
    debian._wrap_programs(root, tmp_path / "bin")
    done = subprocess.run([tmp_path / "bin" / "tool", "a b"], capture_output=True, text=True, check=True, env={})
    assert done.stdout == f"{root}/usr/lib/x86_64-linux-gnu|a b\n"


def test_what_is_needed_decides_whether_it_is_set_up_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stamp, requirements = tmp_path / "prepared", tmp_path / "requirements.txt"
    requirements.write_text("click\n", encoding="utf-8")
    monkeypatch.setattr(environment, "_STAMP", stamp)
    monkeypatch.setattr(environment, "_REQUIREMENTS", requirements)
    assert not environment._is_prepared()
    stamp.write_text(environment._key(), encoding="utf-8")
    assert environment._is_prepared()
    requirements.write_text("click>=99\n", encoding="utf-8")
    assert not environment._is_prepared()


def test_a_checkout_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(environment, "VENV", tmp_path / "file" / ".venv")
    with pytest.raises(NotPossible, match="run ./dev in a checkout that you own"):
        environment._make_directory()


def test_scripts_for_shellcheck_are_those_of_a_shell() -> None:
    scripts = commands._shell_scripts()
    assert "dev" in scripts
    assert ".ci/run" in scripts
    assert not [script for script in scripts if script.endswith(".py")]


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("--help",), 0), (("deploy",), 2)])
def test_usage_names_every_command(arguments: tuple[str, ...], code: int) -> None:
    done = subprocess.run([environment.CHECKOUT / "dev", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code
    for name in commands.COMMANDS:
        assert f"./dev {name}" in done.stderr


def test_an_old_python_is_named(tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("dirname", "sh"):
        (bin_folder / name).symlink_to(Path("/usr/bin") / name)
    done = subprocess.run(
        ["/bin/sh", environment.CHECKOUT / "dev", "test"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(bin_folder)},
    )
    assert done.returncode == 1
    assert "needs Python 3.9 or newer" in done.stderr
