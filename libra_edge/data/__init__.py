"""Datasets and simulators: whatever yields observations and episodes."""
