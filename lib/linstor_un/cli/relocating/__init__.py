"""Images that come from other datastores: what may, how their bytes get there, and how far each is."""
