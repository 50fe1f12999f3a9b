"""Masks x budgets x seeds: trained, rescored on one bank, reported."""
