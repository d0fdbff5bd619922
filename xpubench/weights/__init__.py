"""Where weights come from: the hub, a local directory, the embedded model, or random ones."""
