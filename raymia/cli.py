"""The command line: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from raymia.errors import IncompleteRunError, RaymiaError

app = typer.Typer(
    help="Measure how much of its training data a generative model gives away.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
AuditFile = Annotated[Path, typer.Argument(help="the audit file", metavar="AUDIT.YAML")]

EXIT_FAILED = 1
EXIT_INCOMPLETE = 3
EXIT_WRONG_INPUT = 2


@app.command()
def audit(file: AuditFile) -> None:
    """Run an audit: ask the models for what is missing, score, measure, write the report."""
    from rich.console import Console

    from raymia.audit import run_audit
    from raymia.spec_file import load_spec

    console = Console()
    spec = load_spec(file)
    result = run_audit(spec, console)
    print_result(result, spec.output, console)


@app.command()
def plan(file: AuditFile) -> None:
    """Say what would be asked of which model, without loading one."""
    from rich.console import Console

    from raymia.report.plan_table import plan_table
    from raymia.spec_file import load_spec

    Console().print(plan_table(load_spec(file)))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="where to work")] = Path("raymia-demo"),
) -> None:
    """Audit a small language model that is fine-tuned here on real prose; no network, no GPU."""
    from rich.console import Console

    from raymia.demo.text import run_demo

    console = Console()
    result, output = run_demo(folder, console)
    print_result(result, output, console)
    console.print(f"audit file, to start your own from: {folder / 'audit.yaml'}")


@app.command()
def attacks() -> None:
    """List the attacks, with what each needs and costs."""
    from rich.console import Console

    from raymia.report.attack_table import attack_table

    Console().print(attack_table())


def print_result(result: object, output: str, console: object) -> None:
    """Print the table, what a reader must know, and where the report is."""
    from rich.console import Console

    from raymia.report.result import RunResult
    from raymia.report.table import metrics_table

    assert isinstance(result, RunResult)
    assert isinstance(console, Console)
    if result.metrics:
        console.print(metrics_table(result))
    asked = sum(stage.asked for stage in result.stages)
    console.print(
        f"asked the models {asked:,} questions in {result.seconds:,.0f} s; "
        f"{sum(stage.stored for stage in result.stages):,} answers were stored already; "
        f"set aside: {result.records.set_aside:,} records; "
        f"evidence not to be had: {result.dropped_total:,}",
        highlight=False,
    )
    console.print(f"report: {output}/report.html", highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; problems a person can mend are printed without a traceback."""
    try:
        app()
    except IncompleteRunError as error:
        _complain("the run is incomplete; run it again to go on", error)
        sys.exit(EXIT_INCOMPLETE)
    except RaymiaError as error:
        _complain("cannot go on", error)
        sys.exit(EXIT_WRONG_INPUT)
    except KeyboardInterrupt:
        print("stopped; what was answered is stored, run it again to go on", file=sys.stderr)
        sys.exit(130)


def _complain(what: str, error: RaymiaError) -> None:
    print(f"raymia: {what}:", file=sys.stderr)
    for line in str(error).splitlines():
        print(f"  {line}", file=sys.stderr)
