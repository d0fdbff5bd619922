"""One model shared by several ranks."""
