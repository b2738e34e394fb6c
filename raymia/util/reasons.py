"""How it is said why a record was set aside; whoever says it and whoever redacts it agree here."""

REPEATED = "a repetition of"
"""Stands in a reason before the place of the record that it repeats."""
CAME = "; came: "
"""Stands in a reason before what is of one record alone; reasons are counted up to it."""
