"""The whole run: audit, sweep, calibration, and what is written of it."""
