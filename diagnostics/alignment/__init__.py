"""Proposition 1, measured: how each token's gradient stands to that of the whole bank."""
