"""Which lines and branches of the driver the tests reach, in all its processes."""
