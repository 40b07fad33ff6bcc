"""The command line: one file per command, which parses, calls `libra_edge` and renders."""
