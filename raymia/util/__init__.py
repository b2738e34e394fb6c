"""What every room may use: errors, hashes, draws, credentials."""
