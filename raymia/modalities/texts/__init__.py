"""Audits of texts."""
