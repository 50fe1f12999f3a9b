"""Token tables: measured under a definition set, made, written, read back, opened."""
