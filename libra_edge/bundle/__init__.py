"""Releases: the manifest, the directory, the one-file form, and the check of every byte."""
