"""Processes: their output, the signals that end one, and child processes."""
