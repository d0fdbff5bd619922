"""Records held against each other."""
