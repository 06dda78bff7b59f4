"""A LINSTOR controller, satellites and hosts in a box, for tests and for trying things out.

It speaks LINSTOR's REST API as real controllers do, keeps real bytes in sparse files, and has hosts with ssh, virsh,
drbdsetup and block devices of their own. python-linstor cannot tell it from a controller.
"""

from __future__ import annotations

from .faults import Fault, Faults
from .model import Pool
from .openings import Opening
from .sandbox import Sandbox
from .server import Exchange, Recorded
from .storage import OLD_DATA

__all__ = ["OLD_DATA", "Exchange", "Fault", "Faults", "Opening", "Pool", "Recorded", "Sandbox"]
