"""Which lines and branches of the driver the tests reach, and why not the others."""
