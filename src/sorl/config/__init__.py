"""The options of a run, the sources of their defaults, and their JSON form."""
