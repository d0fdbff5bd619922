"""Processes: whose words reach which stream, the signals that end one, and child processes."""
