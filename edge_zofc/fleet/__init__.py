"""Many devices, one head: what a device shares, and what is made of all shares. By files, without a network."""
