"""`python -m sorl.assess`: judges a policy by logged data, without a simulator."""
