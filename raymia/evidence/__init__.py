"""The evidence store and its upkeep, and evidence laid out for attacks."""
