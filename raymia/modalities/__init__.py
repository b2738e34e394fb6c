"""What differs between kinds of records, and nothing else."""
