"""The life-cycle states (LCM_STATE) that a storage driver branches on (opennebula-contract.md, 9.2)."""

from __future__ import annotations

# stop and undeploy: the VM leaves its host and is parked, known only to the front-end.
PARKING = frozenset({10, 30, 41, 42})
# resume of a stopped or undeployed VM: it comes from the front-end.
UNPARKING = frozenset({9, 31, 49, 50})
# migration of a VM in UNKNOWN: its host is dead.
SOURCE_DEAD = frozenset({60, 61})
# EPILOG, CLEANUP_RESUBMIT, CLEANUP_DELETE, EPILOG_FAILURE: nothing of the VM runs, nor is it being made again.
ENDING = frozenset({11, 15, 23, 40})
# VM states (STATE) in which it will never run again.
DONE_STATES = frozenset({6})
# HOTPLUG_SAVEAS: the disk is written to while it is saved; in the other save-as states it is not.
SAVING_LIVE = frozenset({26})
# STATE of a VM that is on a host; DISK_RESIZE of a running one.
ACTIVE_STATE = 3
RESIZING_LIVE = frozenset({62})
