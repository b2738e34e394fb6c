"""Drawing alone: the HTML report, the pages beside it, and tables for the terminal."""
