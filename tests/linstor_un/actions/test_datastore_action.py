"""What all datastore actions begin with: the same action in the form of every release of OpenNebula."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from linstor_sandbox.opennebula.releases import Release
from tests.conftest import World
from tests.linstor_un.actions.datastore.material import (
    act,
    disk,
    holds,
    image_element,
    nothing_left,
    refused,
    source,
    succeeded,
)

MakeWorld = Callable[..., World]
CONTENT = disk(1, 2_500_000)
DOCUMENT = b"<DS_DRIVER_ACTION_DATA>"


@pytest.mark.parametrize(
    ("release", "shape"),
    [
        (Release((5, 12)), ["XML", "ID"]),
        (Release((6, 6), stdin_option=True), ["-", "ID"]),
        (Release((7, 4)), ["ID"]),
    ],
)
def test_every_release_is_served(release: Release, shape: list[str], make_world: MakeWorld) -> None:
    world = make_world(release=f"{release.version[0]}.{release.version[1]}")
    cloud = world.cloud
    cloud.release = release
    image = cloud.create_image(world.images, world.file("disk", CONTENT))
    block = cloud.create_datablock(world.images, 4, "ext4")
    clone = cloud.clone_image(image)
    assert [image.source, block.source, clone.source] == [source(number) for number in range(3)]
    holds(world, "one-image-0", CONTENT)
    holds(world, "one-image-2", CONTENT)
    assert world.sandbox.read("one-image-1", 1080, 2) == b"\x53\xef"
    assert world.images.total_mb == 30720
    for made in (image, block, clone):
        cloud.delete_image(made)
    nothing_left(world)
    for call in cloud.calls:
        assert ["XML" if len(word) > 100 else word if word == "-" else "ID" for word in call.argv] == shape
        assert call.stderr == ""
    printed = {call.verb: call.stdout for call in cloud.calls if call.verb != "monitor"}
    assert printed == {
        "stat": "3\n",
        "cp": f"{source(0)} raw\n",
        "mkfs": f"{source(1)}\n",
        "clone": f"{source(2)}\n",
        "rm": "",
    }
    monitored = [call.stdout.splitlines() for call in cloud.calls if call.verb == "monitor"]
    assert {tuple(line.partition("=")[0] for line in lines) for lines in monitored} == {
        ("USED_MB", "TOTAL_MB", "FREE_MB")
    }


def test_the_arguments_alone_tell_the_release(world: World) -> None:
    image = image_element(7, {"PATH": world.file("disk", CONTENT), "SIZE": 3})
    document = f"<DS_DRIVER_ACTION_DATA>{image}{world.images.xml()}</DS_DRIVER_ACTION_DATA>"
    encoded = base64.b64encode(document.encode()).decode()
    run = world.cloud.scripts.datastore
    printed = f"{source(7)} raw\n"
    wrapped = "\n".join(encoded[start : start + 76] for start in range(0, len(encoded), 76))
    calls = [
        run("linstor_un", "cp", ["7"], encoded),
        # Releases with stdin that leave something there for others, and those with a line's end behind it.
        run("linstor_un", "cp", [encoded, "7"], "not the XML"),
        run("linstor_un", "cp", ["-", "7"], encoded + "\n"),
        run("linstor_un", "cp", ["7"], wrapped),
        run("linstor_un", "cp", ["7"], document),
    ]
    succeeded(calls[0], printed)
    for call in calls[1:]:
        succeeded(call, printed, "discarding one-image-7")
    wrong = {
        "got no XML": (["7"], ""),
        "neither XML nor base64": (["7"], "%%%"),
        "got 0 arguments": ([], encoded),
        "got 3 arguments": (["-", "7", "8"], encoded),
        "called for image 8 and its XML is of image 7": (["8"], encoded),
        "must be a number": (["seven"], encoded),
    }
    before = world.sandbox.snapshot_of_state()
    for reason, (arguments, text) in wrong.items():
        refused(run("linstor_un", "cp", arguments, text), reason)
    assert world.sandbox.snapshot_of_state() == before


def test_the_format_of_an_image_has_the_name_that_its_release_gives_it(world: World) -> None:
    for identifier, elements in enumerate(({"FSTYPE": "ext4"}, {"FORMAT": "raw", "FS": "ext4"}, {"FS": "ext4"})):
        image = image_element(identifier, {"SIZE": 4, **elements})
        succeeded(act(world, "mkfs", world.images, image, identifier), f"{source(identifier)}\n")
        assert world.sandbox.read(f"one-image-{identifier}", 1080, 2) == b"\x53\xef"
