"""datastore/stat: the size of the disk in an image, in MiB, before there is an image."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Optional

import pytest

from linstor_un.actions.datastore import stat as verb
from linstor_un.driver import Call
from linstor_un.errors import UnusableImage
from tests.conftest import World
from tests.linstor_un.actions.datastore.material import (
    MIB,
    image_element,
    in_form,
    noise,
    nothing_left,
    stat,
    succeeded,
)
from tests.linstor_un.hosts.web import serving


def test_the_size_is_a_whole_number_of_mib_rounded_up(world: World) -> None:
    for length, size in ((1, 1), (MIB, 1), (MIB + 1, 2), (5 * MIB - 1, 5)):
        path = world.file("disk", bytes(length))
        succeeded(stat(world, path), f"{size}\n")
        succeeded(stat(world, world.file("package", gzip.compress(bytes(length)))), f"{size}\n")


def test_the_size_is_that_of_the_disk_and_not_of_the_file(world: World) -> None:
    raw = Path(world.file("disk", noise(1, MIB) + bytes(99 * MIB)))
    for form in ("qcow2", "compressed qcow2", "vmdk", "stream-optimised vmdk", "vhdx", "vdi"):
        image = in_form(raw, form)
        assert image.stat().st_size < 50 * MIB
        succeeded(stat(world, str(image)), "100\n")


def test_a_download_is_not_waited_for_where_its_length_is_told(world: World) -> None:
    with serving() as web:
        web.files["disk"] = noise(1, 12 * MIB)
        succeeded(stat(world, web.url("stall", "disk")), "12\n")


def test_nothing_is_asked_of_linstor_or_of_a_host(world: World) -> None:
    call = stat(world, world.file("disk", b"disk"))
    succeeded(call, "1\n")
    assert call.counts == {"rest": 0, "ssh": 0}
    nothing_left(world)


@pytest.mark.parametrize(("size", "answer"), [("7", "7\n"), ("", None)])
def test_a_source_that_stalls_is_given_up_before_oned_gives_up(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: str, answer: Optional[str]
) -> None:
    monkeypatch.setattr(verb, "_DEADLINE_SECONDS", 1)
    with serving() as web:
        web.files["disk.gz"] = gzip.compress(noise(1, 12 * MIB))
        image = image_element(None, {"PATH": web.url("stall", "disk.gz"), "SIZE": size})
        arguments, standard_input = world.cloud.action_arguments(image + world.images.xml(), 3)
        call = Call(tuple(arguments), standard_input.encode(), {})
        if answer:
            verb.run(call)
        else:
            with pytest.raises(UnusableImage, match="takes more than 1 s: give the image a SIZE"):
                verb.run(call)
    assert capsys.readouterr().out == (answer or "")
