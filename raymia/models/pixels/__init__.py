"""Models that predict images pixel by pixel."""
