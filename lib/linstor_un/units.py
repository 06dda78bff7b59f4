"""Sizes: OpenNebula counts in MiB, LINSTOR in KiB, devices in bytes."""

from __future__ import annotations

BYTES_PER_KIB = 1024
KIB_PER_MIB = 1024
KIB_PER_GIB = 1024 * KIB_PER_MIB
MIB = 1 << 20

# What pools add to a volume, and so to its device, by rounding its size up to their extents.
ROUNDED_MIB = 32
