"""Which engines are built where, their build, and what they turn out to run in."""
