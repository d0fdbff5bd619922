"""Where a token's time goes: what a stack measured of a token becomes a ledger, a verdict and advice."""
