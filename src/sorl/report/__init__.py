"""`python -m sorl.report`: an HTML page that compares runs."""
