"""Putting the driver into an OpenNebula, and taking it out again: where things go, what is edited, what was there."""
