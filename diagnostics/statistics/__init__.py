"""Statistics of token tables: normalisation, supports, selectors, gaps, regressions, intervals."""
