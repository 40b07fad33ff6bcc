"""Whatever loads the code of a release runs in a process of its own."""
