"""Taking over what LINBIT's add-on has made, and volumes that nobody has made for OpenNebula."""
