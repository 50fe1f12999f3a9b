"""What differs between two runs or reports: estimates left behind, sides, the chapter."""
