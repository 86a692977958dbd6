"""`python -m sorl.train`: the training loop, a session around it, and what it writes."""
