"""`python -m raymia`."""

from raymia.cli import main

main()
