"""Around training: budgets and ablations."""
