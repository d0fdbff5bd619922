"""A runtime whose times, tokens, logits and failures a script tells: for tests of what uses a runtime."""
