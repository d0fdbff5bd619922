"""Comparisons of records: the only place that decides whether something changed."""
