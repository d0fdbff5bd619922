"""Clocks, statistics, memory, bandwidth, environment: what turns a run into figures."""
