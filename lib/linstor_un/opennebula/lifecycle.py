"""The life-cycle states (LCM_STATE) that a storage driver branches on (opennebula-contract.md, 9.2)."""

from __future__ import annotations

# PROLOG, PROLOG_FAILURE: none of the VM's disks is in use yet.
STARTING = frozenset({1, 39})
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
# STATE of a VM that holds no disks yet: INIT, PENDING, HOLD, CLONING, CLONING_FAILURE.
UNBORN_STATES = frozenset({0, 1, 2, 10, 11})
# STATE of a VM whose memory is kept (STOPPED, SUSPENDED), of one that has left its host (STOPPED, UNDEPLOYED), and of
# one that is at rest on it (SUSPENDED, POWEROFF).
SAVED_STATES = frozenset({4, 5})
PARKED_STATES = frozenset({4, 9})
RESTING_STATES = frozenset({5, 8})
POWERED_OFF_STATE = 8
# LCM_STATE while a disk is attached or detached: of a running VM, and both of one that is powered off.
PLUGGING = frozenset({17, 33, 34})
# LCM_STATE of a VM on a host that no action works on: RUNNING, UNKNOWN; and where one has failed, so that its disks
# may be there or not.
RUNNING = 3
STEADY = frozenset({3, 16})
FAILED = frozenset({36, 37, 38, 39, 40, 41, 42, 44, 46, 47, 48, 49, 50, 61})
