"""Models that make neighbors of texts."""
