"""The OpenNebula storage driver that keeps images and VM disks as LINSTOR volumes."""

__version__ = "3.0.0.dev0"
