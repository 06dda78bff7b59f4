"""Defects that are put into the driver one at a time, to see whether its tests find them."""
