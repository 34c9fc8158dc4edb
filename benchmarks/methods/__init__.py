"""The peers, one paper a file."""
