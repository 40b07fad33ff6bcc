"""Checkpoint to release: one module per stage, in the order the data flows.

`split` → `export` → `fuse` → `build`, held together by `pipeline`.
"""
