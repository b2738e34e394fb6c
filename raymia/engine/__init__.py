"""Executors: they ask models for what a plan misses, on Ray or in this process. No other room
imports Ray."""
