"""Which positions a selector keeps: signals, rules, exact budgets, overlap."""
