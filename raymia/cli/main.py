"""The command line: parse, call, print."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raymia.cli.audit_file import AuditFile, OnEngine, Plugins, read_audit_file
from raymia.cli.demo import PLACES, Demo, run
from raymia.cli.export import export
from raymia.cli.gate import EXIT_CODES, FailIf, RunFolder, Undecided, gate, gate_code, print_gate
from raymia.cli.show import show
from raymia.cli.status import status
from raymia.cli.store import store_app
from raymia.cli.train import print_training_plan, train
from raymia.util.credentials import say
from raymia.util.errors import InputError, RaymiaError
from raymia.util.threads import spin_briefly

if TYPE_CHECKING:
    from rich.console import Console

    from raymia.results.result import RunResult
    from raymia.sweep.result import SweepResult


def _exit_as_found(found: object, **_: object) -> None:
    """Exit with the code of what a command returned; the scripts of jobs/ look at it themselves."""
    if found is None:
        return
    from raymia.results.result import RunResult
    from raymia.sweep.result import SweepResult

    code = 0
    if isinstance(found, RunResult):
        code = result_code(found)
    elif isinstance(found, SweepResult):
        code = sweep_code(found)
    if code:
        raise typer.Exit(code)


app = typer.Typer(
    result_callback=_exit_as_found,
    help="Measure how much of its training data a generative model gives away.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(store_app, name="store")
Redact = Annotated[
    bool,
    typer.Option("--redact", help="leave out texts, pictures, paths, and ids made of texts alone"),
]

LogTo = Annotated[
    Literal["mlflow", "wandb"] | None,
    typer.Option(
        "--log-to",
        help="also log the numbers, the settings and the report to an experiment tracker, the one "
        "that its own environment names (MLFLOW_TRACKING_URI, WANDB_MODE); no text or picture",
    ),
]

EXIT_FAILED = 1
EXIT_INCOMPLETE = 3
EXIT_WRONG_INPUT = 2
EXIT_LEFT_RUNNING = 5
EXITS_WHEN_STOPPED = (130, 143)
"""By Ctrl-C, and by SIGTERM."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from raymia import __version__

        say(f"raymia {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="and exit")
    ] = False,
) -> None:
    del version


@app.command(epilog=EXIT_CODES)
def audit(
    file: AuditFile,
    fail_if: FailIf = None,
    undecided: Undecided = None,
    redact: Redact = False,
    plugin: Plugins = None,
    engine: OnEngine = None,
    log_to: LogTo = None,
) -> Any:
    """Run an audit: ask the models for what is missing, score, measure, write the report."""
    from raymia.util.terminal import terminal

    console = terminal()
    # Said before what takes seconds to import.
    console.print(
        f"reading {file}, its records, and what its models' files say of them",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    from raymia.results.gate import with_conditions
    from raymia.run.audit import run_audit

    spec = with_conditions(read_audit_file(file, plugin, engine), fail_if or [], undecided)
    if redact:
        spec = spec.model_copy(update={"report": spec.report.model_copy(update={"redact": True})})
    if log_to is not None:
        from raymia.report.trackers import check_tracker, log_run

        check_tracker(log_to)
    result = run_audit(spec, console)
    print_result(result, spec.output, console)
    if log_to is not None:
        place = log_run(spec.output, log_to)
        console.print(f"logged: {place}", highlight=False, markup=False, soft_wrap=True)
    return result


@app.command()
def plan(
    file: AuditFile,
    calibrate: Annotated[
        int | None,
        typer.Option(
            min=8, metavar="RECORDS", help="measure on so many records how long the models take"
        ),
    ] = None,
    plugin: Plugins = None,
    engine: OnEngine = None,
) -> None:
    """Say what would be asked of which model and what it will take; loads no model.

    Times are known once a run on the store, or --calibrate, has measured them. Of a training file
    it says what would be trained.
    """
    from raymia.cli.plan import print_plan
    from raymia.spec.training_file import is_training_file
    from raymia.util.terminal import terminal

    if is_training_file(file):
        print_training_plan(file, terminal(), plugin or [])
        return

    print_plan(read_audit_file(file, plugin, engine), terminal(), calibrate)


@app.command()
def sweep(file: AuditFile, plugin: Plugins = None, engine: OnEngine = None) -> Any:
    """Try settings of attacks and queries; choose on half the records, judge on the other."""
    from raymia.run.sweep import run_sweep
    from raymia.util.terminal import terminal

    console, spec = terminal(), read_audit_file(file, plugin, engine)
    result = run_sweep(spec, console)
    print_sweep(result, spec.output, console)
    return result


app.command()(train)
app.command()(status)
app.command()(show)
app.command(epilog=EXIT_CODES)(gate)
app.command()(export)


@app.command()
def submit(
    file: AuditFile,
    address: Annotated[
        str, typer.Option(help="of the cluster's dashboard, as `ray dashboard` forwards it")
    ] = "http://127.0.0.1:8265",
    plugin: Plugins = None,
) -> None:
    """Run an audit as a job of a cluster, and follow it; Ctrl-C leaves the job running.

    A job of the same audit that runs is followed, and not started twice. One that ended is started
    again, and goes on from the store. Exits as the job does.
    """
    import raymia.modalities  # noqa: F401 (registers the kinds of records)
    from raymia.engine.on_ray.package import pack
    from raymia.engine.on_ray.submission import Jobs

    package = pack(file, plugin or [])
    jobs = Jobs(address)
    name, is_new = jobs.submit(package)
    say(f"{name}: {'started' if is_new else 'runs already'}; its log:")
    try:
        code = jobs.follow(name)
    except KeyboardInterrupt:
        again = ["raymia", "submit", str(file), "--address", address]
        again += [part for one in plugin or [] for part in ("--plugin", one)]
        say(
            f"\n{name} goes on. To follow it: {shlex.join(again)}\n"
            f"To stop it: {jobs.stopping(name)}",
            sys.stderr,
        )
        raise typer.Exit(EXIT_LEFT_RUNNING) from None
    raise typer.Exit(code)


@app.command()
def demo(
    of: Annotated[
        Demo, typer.Argument(help="what is audited", metavar="[text|chat|images]")
    ] = Demo.TEXT,
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="where to work; default: raymia-demo, or a folder in it", metavar="[FOLDER]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="draws other records, and trains anew")] = 0,
    engine: OnEngine = None,
) -> Any:
    """Audit small models trained here on real texts, chats or images; no network, no GPU."""
    from raymia.util.terminal import terminal

    console = terminal()
    place = folder or PLACES[of]
    result, output = run(of, place, console, seed, engine)
    console.print(f"audit file, to start your own from: {place / 'audit.yaml'}")
    print_result(result, output, console)
    return result


@app.command()
def report(run: RunFolder, redact: Redact = False) -> None:
    """Write the report of a stored run anew; no model is asked."""
    from raymia.cli.gate import say_unconfirmed
    from raymia.report.files import unredacted_sweep, write_report
    from raymia.results.folder import check_fit, load_result

    load_result(run)
    unconfirmed = check_fit(run)
    say(f"report: {write_report(run, redacted=redact)}")
    left = unredacted_sweep(run) if redact else None
    if left is not None:
        say(left)
    say_unconfirmed(unconfirmed)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="folder of the earlier run", metavar="RUN_A")],
    b: Annotated[str, typer.Argument(help="folder of the later run", metavar="RUN_B")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="targets whose names differ; may be repeated", metavar="A=B"),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="also write the comparison here", metavar="FILE")
    ] = None,
) -> Any:
    """Say what changed between two runs, and whether it is more than chance."""
    from raymia.cli.gate import say_unconfirmed
    from raymia.report.comparison_table import print_comparison
    from raymia.results.compare import compare_runs, parse_pairs
    from raymia.results.folder import check_fit
    from raymia.results.runs import StoredRun
    from raymia.util.terminal import terminal

    comparison = compare_runs(StoredRun.open(a), StoredRun.open(b), parse_pairs(target or []))
    print_comparison(comparison, terminal())
    for folder in dict.fromkeys((a, b)):
        say_unconfirmed(check_fit(folder), folder)
    if json is not None:
        from raymia.storage.files import Folder
        from raymia.util.credentials import hidden_json

        content = hidden_json(comparison.model_dump_json()) + "\n"
        Folder(str(json.parent)).write(json.name, content.encode())
    return comparison


@app.command()
def attacks(plugin: Plugins = None) -> None:
    """List the attacks, with what each needs and costs."""
    from raymia.report.attack_table import attack_tables
    from raymia.util.plugins import load_plugins
    from raymia.util.terminal import terminal

    load_plugins(plugin or [])
    terminal().print(attack_tables())


def print_result(result: RunResult, output: str, console: Console) -> None:
    """Print the table, the counts and where the report is."""
    from raymia.records.base import count_reasons
    from raymia.report.table import metrics_table
    from raymia.results.folder import REPORT_FILE
    from raymia.results.wording import (
        evidence_lost,
        neighbor_line,
        number_of,
        overlap_lines,
        shift_line,
        unanswered_lines,
    )

    console.print(metrics_table(result, console.width))
    for reason, times in count_reasons(one.reason for one in result.set_aside).items():
        console.print(f"set aside: {times:,} x {reason}", highlight=False, markup=False)
    asked = sum(stage.asked for stage in result.stages)
    console.print(
        f"asked the models {number_of(asked, 'question')} in {result.seconds:,.0f} s; "
        f"answers that were stored already: {sum(stage.stored for stage in result.stages):,}; "
        f"set aside: {number_of(result.records.set_aside, 'record')}; "
        f"{evidence_lost(result)}",
        highlight=False,
    )
    for line in unanswered_lines(result):
        console.print(line, highlight=False, markup=False)
    for name, quality in result.kinds_of_neighbors.items():
        console.print(neighbor_line(quality, name), highlight=False, markup=False)
    if result.shift is not None:
        found = [shift_line(result.shift)] if result.shift.level != "none" else []
        for line in [*found, *overlap_lines(result.shift)]:
            console.print(line, highlight=False, markup=False)
    for problem in result.problems:
        console.print(problem, highlight=False, markup=False)
    console.print(f"report: {output}/{REPORT_FILE}", highlight=False, markup=False, soft_wrap=True)
    if not result.complete:
        console.print("the run is incomplete; run it again to go on")
    if result.gate:
        print_gate(result, console)


def print_sweep(result: SweepResult, output: str, console: Console) -> None:
    """Print the best settings, the counts and where the page is."""
    from raymia.report.sweep_table import winners_table
    from raymia.results.folder import SWEEP_FILE

    console.print(winners_table(result))
    console.print(
        f"{result.settings:,} settings, {result.tried_now:,} of them tried now; asked the models "
        f"{result.asked:,} questions in {result.seconds:,.0f} s",
        highlight=False,
    )
    for problem in result.problems:
        console.print(problem, highlight=False, markup=False)
    console.print(f"sweep: {output}/{SWEEP_FILE}", highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Run the command line; problems a person can mend are printed without a traceback."""
    spin_briefly()
    try:
        app()
    except RaymiaError as error:
        say("\n  ".join(["raymia cannot go on:", *str(error).splitlines()]), sys.stderr)
        sys.exit(exit_code(error))
    except SystemExit as stop:
        if stop.code in EXITS_WHEN_STOPPED:
            say("stopped; what was done is stored, run it again to go on", sys.stderr)
        raise


def exit_code(error: RaymiaError) -> int:
    """What the process exits with: 2 for wrong input, 1 for what went wrong on the way."""
    return EXIT_WRONG_INPUT if isinstance(error, InputError) else EXIT_FAILED


def result_code(result: RunResult) -> int:
    """What a run that ended exits with: 3 if something is missing, 4 or 6 if its gate is closed."""
    return gate_code(result) if result.succeeded else EXIT_INCOMPLETE


def sweep_code(result: SweepResult) -> int:
    """What a sweep that ended exits with: 3 if a target failed, or no setting could be measured."""
    return 0 if result.complete else EXIT_INCOMPLETE
