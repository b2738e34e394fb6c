"""Metrics of membership scores, with intervals. Knows scores, not models."""
