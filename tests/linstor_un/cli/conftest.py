"""The estate that the operators' commands are tried on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from linstor_sandbox import Pool
from tests.conftest import build_world
from tests.linstor_un.cli.clouds import NODES, Estate
from tests.linstor_un.cli.planted import build


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """Four nodes and one OpenNebula for all tests; this process is a command of an operator there."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        pools = (Pool("data", size_mib=1 << 20),)
        world = build_world(stack, tmp_path_factory.mktemp("audit"), nodes=NODES, pools=pools)
        for name, value in world.cloud.scripts.environment.items():
            environment.setenv(name, value)
        yield Estate(world.sandbox, world.cloud, world.system, world.images)
        assert world.sandbox.exceptions == []


@pytest.fixture
def estate(cloud: Estate) -> Estate:
    """The estate, made anew."""
    sandbox = cloud.sandbox
    sandbox.repair()
    for node in NODES:
        sandbox.openings.drop_host(node)
    for node in NODES:
        if not sandbox.cluster.nodes[node].online:
            sandbox.set_node(node, online=True)
    cloud.clear()
    build(cloud)
    return cloud
