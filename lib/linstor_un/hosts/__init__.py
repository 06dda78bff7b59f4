"""Everything done on a host: one runner over ssh, devices, copies, file systems and directories."""
