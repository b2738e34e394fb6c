"""Neighbors of texts: questions whose answers are neighbors."""
