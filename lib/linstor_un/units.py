"""Sizes: OpenNebula counts in MiB, LINSTOR in KiB, devices in bytes."""

from __future__ import annotations

BYTES_PER_KIB = 1024
KIB_PER_MIB = 1024
KIB_PER_GIB = 1024 * KIB_PER_MIB
MIB = 1 << 20
