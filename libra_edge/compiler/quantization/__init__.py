"""Layers in fewer bits: which (assign), in which ranges (calibrate), what instead (convert)."""
