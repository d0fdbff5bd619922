"""Whether the tokens are right."""
