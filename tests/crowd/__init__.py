"""Many users and operators at once on one OpenNebula, and what must exist afterwards."""
