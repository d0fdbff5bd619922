"""xpubench: per-token latency and accuracy of language models on Intel devices."""

__version__ = "0.1.0"
