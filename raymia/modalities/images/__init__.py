"""Audits of images."""
