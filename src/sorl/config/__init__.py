"""The options of a run, where their defaults come from, and their JSON form."""
