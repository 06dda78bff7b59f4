"""The OpenNebula storage driver that keeps images and VM disks as LINSTOR volumes."""

import os
import sys

__version__ = "3.0.0.dev0"

# Packages bring python-linstor along, as no distribution has it; a checkout and pip have no such folder.
_VENDORED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vendored")
if os.path.isdir(_VENDORED) and _VENDORED not in sys.path:
    sys.path.insert(0, _VENDORED)
