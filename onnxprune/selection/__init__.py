"""Which channels go: budgets, the widths that are allowed, and the allocation over groups."""
