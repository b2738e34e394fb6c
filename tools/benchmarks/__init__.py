"""How fast raymia is: what ``tools/benchmark.py`` measures."""
