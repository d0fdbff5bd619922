"""What the harness itself costs: each benchmark measures both sides in one run and gives a ratio."""
