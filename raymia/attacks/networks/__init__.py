"""Small networks that learned attacks fit."""
