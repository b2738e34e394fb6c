"""What jobs/gpu_check.py checks and measures on one GPU."""
