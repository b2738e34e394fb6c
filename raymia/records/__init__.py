"""Records of every kind: reading, ids, validation, duplicates."""
