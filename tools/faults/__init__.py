"""Ways of breaking an audit, for tools/chaos.py."""
