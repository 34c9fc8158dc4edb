"""Device profiles as TOML data; ``edge_zofc.profiles`` reads them."""
