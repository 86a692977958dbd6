"""`python -m sorl.evaluate`: seeded episodes played by a policy, and how often it succeeded."""
