"""The local overrides of hypervisor actions."""
