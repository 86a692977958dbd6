"""`python -m sorl.train`: the training loop, the session around it, and its output."""
