"""Python over the C ABI: the library of a release, its structs, live runs, recordings.

Nothing here imports torch.
"""
