"""A finished release against its checkpoint; where they differ, the operator that does it."""
