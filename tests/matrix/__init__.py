"""Releases of OpenNebula, releases of LINSTOR and layers of volumes, each through the main flows."""
