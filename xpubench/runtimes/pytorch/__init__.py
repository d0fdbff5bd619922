"""Stock PyTorch."""
