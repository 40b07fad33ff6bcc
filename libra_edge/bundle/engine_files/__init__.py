"""What compiled engines say of themselves, read from their files without any library."""
