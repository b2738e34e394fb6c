"""How fast raymia is: what ``jobs/benchmark.py`` measures."""
