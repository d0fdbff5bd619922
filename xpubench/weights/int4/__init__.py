"""INT4 weights: grids, kernels, layout, checkpoints, recipes."""
