"""Is the native library of a release the runtime that this toolkit knows? Its bytes, and its deeds.

A child process opens probe releases with the release's own library and goes through scripts beside
a reference: what the C ABI gives has to be the same, floating point numbers bit for bit.
"""
