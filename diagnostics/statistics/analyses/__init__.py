"""The questions asked of token tables, each a function that returns a frozen record."""
