"""`raymia store`: what is in an evidence store, whether it is whole, and what can go."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raymia.cli.audit_file import Plugins, read_audit_file
from raymia.util.credentials import say
from raymia.util.errors import InputError

if TYPE_CHECKING:
    from raymia.evidence.store import EvidenceStore
    from raymia.spec import AuditSpec

store_app = typer.Typer(help="Look after an evidence store.", no_args_is_help=True)
Store = Annotated[str, typer.Argument(help="folder or URL of the store", metavar="STORE")]
AuditFiles = Annotated[
    list[Path] | None, typer.Argument(help="audit files of this store", metavar="[AUDIT.YAML ...]")
]


@store_app.command("ls")
def list_keys(store: Store, audits: AuditFiles = None, plugin: Plugins = None) -> None:
    """List what is stored, key by key; with audit files, what of it they need it for."""
    from rich.table import Table
    from rich.text import Text

    from raymia.evidence.upkeep import key_facts, stored_things
    from raymia.util.terminal import terminal

    there = _open(store)
    needed = needed_by(audits or [], store, plugin)
    table = Table(title=Text(f"Evidence store {store}", "table.title"), title_justify="left")
    table.add_column("key", overflow="fold")
    table.add_column("model", overflow="fold")
    table.add_column("question", overflow="fold")
    for heading in ("rows", "files", "size", "last written"):
        table.add_column(heading, justify="right")
    if audits:
        table.add_column("needed for", overflow="fold")
    total = 0
    for thing in stored_things(there):
        total += thing.size
        is_evidence = thing.folder.startswith("evidence/")
        facts = key_facts(there, thing) if is_evidence else None
        table.add_row(
            thing.folder.removeprefix("evidence/"),
            "" if facts is None else facts.model[:12],
            "" if facts is None else facts.question,
            "" if facts is None else f"{facts.rows:,}",
            f"{len(thing.files):,}",
            _size(thing.size),
            f"{thing.modified:%Y-%m-%d %H:%M}",
            *([needed.get(thing.folder, "-")] if audits else []),
        )
    console = terminal()
    console.print(table)
    console.print(f"{table.row_count:,} keys, {_size(total)}; times are UTC", highlight=False)


@store_app.command()
def verify(store: Store) -> None:
    """Read every finished file that is stored, and say what is damaged or misplaced."""
    from raymia.evidence.upkeep import UNFINISHED, stored_things, unproven
    from raymia.evidence.upkeep import verify as problems_of

    there = _open(store)
    things = stored_things(there)
    problems = [problem for thing in things for problem in problems_of(there, thing)]
    for problem in problems:
        say(problem)
    read = [thing for thing in things if not thing.folder.startswith(UNFINISHED)]
    files = sum(len(thing.files) for thing in read)
    old = {thing.folder: count for thing in things if (count := unproven(there, thing))}
    for folder, count in old.items():
        say(f"{folder}: not verified: {count:,} files without hashes")
    if old:
        say(
            f"not verified: {sum(old.values()):,} files without hashes, as earlier versions wrote "
            "them or another program that wrote them anew; a change that leaves such a file "
            "readable is not seen"
        )
    say(f"read {files:,} files of {len(read):,} keys: {len(problems):,} problems")
    if problems:
        raise typer.Exit(1)


@store_app.command()
def gc(
    store: Store,
    audits: AuditFiles = None,
    delete: Annotated[bool, typer.Option("--delete", help="do it; else it is only said")] = False,
    plugin: Plugins = None,
) -> None:
    """Delete what none of the audit files needs; without any, what killed writers left behind."""
    from raymia.evidence.upkeep import delete as delete_waste
    from raymia.evidence.upkeep import find_waste

    there = _open(store)
    freed = 0
    for waste in find_waste(there, needed_by(audits, store, plugin) if audits else None):
        what = f"{waste.thing.folder} ({_size(waste.thing.size)})"
        if waste.kept_because is not None:
            say(f"kept: {what}: {waste.why}, but {waste.kept_because}")
            continue
        freed += waste.thing.size
        say(f"{'deleted' if delete else 'would delete'}: {what}: {waste.why}")
        if delete:
            delete_waste(there, waste)
    say(f"{_size(freed)} {'freed' if delete else 'would be freed; add --delete to do it'}")


@store_app.command()
def compact(store: Store) -> None:
    """Merge the parts of each key that has many, as the end of a run does."""
    from raymia.evidence.upkeep import compact_all, stored_things

    there = _open(store)
    folders = [t.folder for t in stored_things(there) if t.folder.startswith("evidence/")]
    compact_all(there, folders, lambda folder, fewer: say(f"{folder}: {fewer:,} files fewer"))


def needed_by(
    audits: Iterable[Path], store: str, plugins: list[str] | None = None
) -> dict[str, str]:
    """What of a store audits need, by folder, and what for.

    Raises
    ------
    InputError
        For an audit file of another store, and for whatever `raymia plan` refuses.
    """
    from raymia.storage.files import Folder

    needed: dict[str, list[str]] = {}
    for file in audits:
        spec = read_audit_file(file, plugins)
        if Folder(spec.store).root != Folder(store).root:
            raise InputError(f"{file}: its store is {spec.store}, not {store}")
        for folder, what in _needs(spec, _open(store)):
            needed.setdefault(folder, []).append(what)
    return {folder: ", ".join(dict.fromkeys(whats)) for folder, whats in needed.items()}


def _needs(spec: AuditSpec, store: EvidenceStore) -> Iterable[tuple[str, str]]:
    from raymia.modalities.resolve import resolve_inputs
    from raymia.plan.planning import plan_audit
    from raymia.prepare.recipe import Shareable
    from raymia.run.sweep import swept_rates
    from raymia.sweep.plan import plan_sweep
    from raymia.sweep.record import Tried
    from raymia.sweep.space import check_sweep

    yield "rates", "plan"
    inputs = resolve_inputs(spec)
    plans = list(plan_audit(inputs, store))
    if spec.sweep is not None:
        swept = plan_sweep(check_sweep(spec), store)
        yield Tried(spec.store, swept.halves, swept_rates(spec)).place, "sweep"
        plans += [plan for audit in swept.plans for plan in audit]
    for plan in plans:
        for stage in plan.stages:
            for planned in stage.questions:
                yield planned.key.folder, stage.name
        for preparation in plan.preparations:
            recipe, what = preparation.recipe, f"reference:{preparation.stage_name(plan.name)}"
            yield f"prepared/{recipe.key}", what
            yield f"prepared/{recipe.material_key}", what
            is_whole = store.prepared_facts(recipe.material_key) is not None
            for key in recipe.part_keys if isinstance(recipe, Shareable) and not is_whole else ():
                yield f"prepared/{key}", what
    yield from inputs.modality.kept_beside(inputs)


def _open(store: str) -> EvidenceStore:
    from raymia.evidence.store import EvidenceStore

    return EvidenceStore(store)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:,.0f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
