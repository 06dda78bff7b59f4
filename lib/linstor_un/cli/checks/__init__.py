"""What `check` looks at: each check a function that yields findings, by theme."""
