"""`python -m libra_edge.cli`."""

from .app import main

main()
