"""What the driver costs, in figures that can be compared from one commit to the next: `./dev bench`."""
