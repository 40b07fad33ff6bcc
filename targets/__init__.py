"""Deployment targets, one TOML file each; read by `libra_edge.catalog`."""
