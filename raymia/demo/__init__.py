"""The demo: small models trained on the spot, and audited."""
