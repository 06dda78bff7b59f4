"""An image datastore of linstor_un beside system datastores of OpenNebula's own drivers."""

from __future__ import annotations

from linstor_sandbox.opennebula.datastores import Datastore
from linstor_un.cli.installation.mixed_modes import MODES
from tests.conftest import IMAGE_TEMPLATE, World
from tests.linstor_un.scenes import share_directories

SYSTEM_DRIVERS = ("ssh", "local", "shared")


def mixed(world: World, driver: str = "ssh", **changed: str) -> Datastore:
    """Let VMs with the world's images be in a system datastore of this driver, which is returned.

    `changed` are other values for what oned.conf says of that.
    """
    world.install_other_storages()
    conf = world.cloud.tm_mad_confs["linstor_un"]
    conf["TM_MAD_SYSTEM"] = ",".join(SYSTEM_DRIVERS)
    for name in SYSTEM_DRIVERS:
        conf.update(MODES[name].keys)
    conf.update(changed)
    if driver == "shared":
        first, *others = world.cloud.hosts
        for node in others:
            share_directories(world, first, node)
        seen = world.frontend / "datastores"
        seen.symlink_to(world.sandbox.host(first) / "var/lib/one/datastores")
    template = IMAGE_TEMPLATE.replace("linstor-images", "mixed-images")
    world.images = world.cloud.create_datastore(f'{template} SAFE_DIRS="{world.folder}"')
    return world.cloud.create_datastore(f'NAME="sys-{driver}" TYPE="SYSTEM_DS" TM_MAD="{driver}"')
