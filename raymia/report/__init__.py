"""What a person reads of a run: the HTML report, the terminal table, the files beside them."""
