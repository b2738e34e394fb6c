"""The whole run: audit, sweep, calibration, and what is summed up of it."""
