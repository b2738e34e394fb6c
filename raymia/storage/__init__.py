"""Files, local and remote, and leases on folders."""
