"""`python -m sorl.scaling`: success and latency over a grid of compute budgets."""
