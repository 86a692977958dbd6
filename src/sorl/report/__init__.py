"""`python -m sorl.report`: one page about any number of runs."""
