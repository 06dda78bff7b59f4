"""The hosts: shells on this machine with ssh, virsh, drbdsetup and block devices of their own."""
