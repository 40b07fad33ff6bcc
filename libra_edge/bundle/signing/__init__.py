"""Keys, whom a robot trusts, and the form of signatures."""
