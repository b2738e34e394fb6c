"""Everything that an audit file names, resolved and checked before any model is loaded."""
