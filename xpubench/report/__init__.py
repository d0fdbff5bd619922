"""Views of the records and of comparisons; they decide nothing."""
