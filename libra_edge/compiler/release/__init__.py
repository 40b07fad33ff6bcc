"""What a release says of itself (facts, decisions), and the files that it holds."""
