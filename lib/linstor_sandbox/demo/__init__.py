"""The demonstration: the driver at work on a sandbox, from `onedatastore create` to the deletion of the last image."""
