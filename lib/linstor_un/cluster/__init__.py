"""Everything LINSTOR: the gateway over python-linstor, volumes, replicas, snapshots, placement and pools."""
