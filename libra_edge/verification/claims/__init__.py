"""What a release says of itself, held against what its graphs are."""
