"""What `audit` looks for: one module for each kind of thing that can be wrong, and one that mends."""
