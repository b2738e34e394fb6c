"""Processes that begin as forks of one that has imported what they need; for tests, and for
tools/chaos.py."""
