"""Sweeps over settings: what they try, how a setting is judged, and what is said of it.

Imports neither Ray nor models, but where :mod:`raymia.run.sweep` calls the engine.
"""
