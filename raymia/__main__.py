"""`python -m raymia`."""

from raymia.cli.main import main

main()
