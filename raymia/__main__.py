"""`python -m raymia`, and the command `raymia`."""

from raymia.cli.main import main
from raymia.util.ending import end_with


def command() -> None:
    """Run the command line in a process of its own."""
    end_with(main)


if __name__ == "__main__":
    command()
