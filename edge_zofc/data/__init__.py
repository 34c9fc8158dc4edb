"""Which pictures, in which order."""
