"""Precision recipes, one TOML file each; read by `libra_edge.catalog`."""
