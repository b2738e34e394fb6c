"""The release gate on the command line, and what it exits with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from raymia.results.result import RunResult

EXIT_GATE_FAILED = 4
EXIT_GATE_UNDECIDED = 6
EXIT_CODES = (
    "Exit codes: 0 done, and the gate is open; 1 something failed on the way; 2 wrong input; "
    "3 incomplete, or a checkpoint failed; 4 the gate is closed: a condition failed or could not "
    "be evaluated; 6 the gate is closed only because conditions are undecided."
)

RunFolder = Annotated[str, typer.Argument(help="folder of a run, local or at a URL", metavar="RUN")]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        help="close the gate where this is so, as in 'any.tpr@1%fpr > 0.05', 'verdict >= leaks' or "
        "'members < 500'; may be repeated",
        metavar="CONDITION",
    ),
]


Undecided = Annotated[
    Literal["fail", "pass"] | None,
    typer.Option(
        "--undecided",
        help="`pass` lets a condition that the records cannot decide open the gate; default: the "
        "audit file's, which is `fail`",
    ),
]


def gate(
    run: RunFolder,
    fail_if: FailIf = None,
    undecided: Undecided = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write", help="put the outcome into the run's report, metrics.json and junit.xml"
        ),
    ] = False,
) -> None:
    """Decide conditions on a stored run, by default its own; no model is asked.

    The run's files stay as they are unless --write is given: then what is decided is the run's own
    conditions and the given ones, and its files tell of all of them.
    """
    from raymia.results.folder import check_fit, load_result
    from raymia.results.gate import decide_again
    from raymia.util.terminal import terminal

    def decided(result: RunResult) -> RunResult:
        given = {} if undecided is None else {"undecided": undecided}
        result = result.model_copy(update=given)
        own = [outcome.condition for outcome in result.gate] if write else []
        return result.model_copy(update={"gate": decide_again(result, [*own, *(fail_if or [])])})

    result = decided(load_result(run))
    unconfirmed = check_fit(run)
    if write:
        from raymia.report.files import write_gate

        write_gate(run, decided)
    print_gate(result, terminal())
    say_unconfirmed(unconfirmed)
    if code := gate_code(result):
        raise typer.Exit(code)


def say_unconfirmed(why: str | None, run: str = "") -> None:
    """Print a note where nothing confirms the metrics of a run."""
    from raymia.util.terminal import terminal

    if why is not None:
        of = f"{run}: " if run else ""
        terminal().print(f"note: {of}{why}", markup=False, highlight=False)


def print_gate(result: RunResult, console: Console) -> None:
    """Print what the release gate decided."""
    from raymia.report.table import gate_table
    from raymia.results.gate import gate_line

    console.print(gate_line(result), highlight=False, markup=False)
    console.print(gate_table(result))


def gate_code(result: RunResult) -> int:
    """What a gate exits with: 0 if it is open, 6 if it is closed by undecided conditions alone."""
    from raymia.results.gate import is_open

    if is_open(result.gate, result.undecided):
        return 0
    return EXIT_GATE_UNDECIDED if is_open(result.gate, "pass") else EXIT_GATE_FAILED
