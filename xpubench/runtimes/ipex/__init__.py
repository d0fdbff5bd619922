"""The IPEX runtime."""
