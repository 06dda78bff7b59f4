"""The datastore actions."""
