"""What executes a model: one module for each stack, found by name."""
