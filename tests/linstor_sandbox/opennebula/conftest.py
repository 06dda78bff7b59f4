"""A stand-in oned whose driver is a stub that answers as the recording driver of the captures did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from linstor_sandbox.opennebula import Cloud
from tests.linstor_sandbox.opennebula.captured import (
    CAPTURED_CONF,
    CAPTURED_DATASTORES,
    StubDriver,
    captured_capacity,
    write_script,
)


@pytest.fixture
def driver(tmp_path: Path) -> StubDriver:
    return StubDriver(tmp_path / "remotes")


@pytest.fixture
def cloud(driver: StubDriver, tmp_path: Path) -> Iterator[Cloud]:
    write_script(tmp_path / "bin" / "ssh", "#!/bin/sh\ncat >/dev/null\n")
    with Cloud(
        driver.remotes,
        tmp_path / "var",
        hosts=("kvm1", "kvm2", "kvm3"),
        environment={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        release="7.4",
        tm_mad_conf=CAPTURED_CONF,
    ) as cloud:
        for template in CAPTURED_DATASTORES:
            captured_capacity(cloud.create_datastore(template))
        yield cloud
