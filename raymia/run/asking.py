"""Asking the models for everything that a plan misses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console

from raymia.engine.base import Executor, Start
from raymia.engine.board import Board, Line, OnLines
from raymia.engine.prepare import makings
from raymia.evidence.store import EvidenceStore
from raymia.plan.planning import AuditPlan, failed_with
from raymia.storage.files import check_can_write
from raymia.util.errors import NothingWrittenError, RaymiaError
from raymia.util.hashing import digest


@dataclass(frozen=True)
class AskOutcome:
    """What there is when the models have been asked.

    Attributes
    ----------
    after : the plan, with what is still missing.
    lines : what each stage did, by name.
    failed : targets that could not be asked everything, and why.
    """

    after: AuditPlan
    lines: Mapping[str, Line] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def ask(
    plan: AuditPlan,
    store: EvidenceStore,
    start: Start,
    on_lines: OnLines | None = None,
    *,
    leave_out: bool = False,
) -> AskOutcome:
    """Make the references that are missing, then ask what is missing; nothing where nothing is.

    A target that fails does not stop the others.

    Parameters
    ----------
    on_lines : see :func:`raymia.engine.board.drawn`.
    leave_out : the attacks with a reference that cannot be made, since the target writes nothing,
        where others are left.

    Raises
    ------
    InputError
        If something is missing, and the store cannot be written to.
    RaymiaError
        If something fails that targets share, or if every target fails.
    """
    if not plan.is_missing_anything:
        return AskOutcome(plan)
    check_can_write(store.folder.url, "store")
    executor = start()
    executor.check(plan)
    with executor.reporting(on_lines) as board:
        plan, failed = make_references(plan, store, executor, board, leave_out=leave_out)
        plan = plan.with_made_references()
        failed |= executor.ask(plan.without(failed), board)
        lines = board.snapshot()
    after = plan.as_it_is_now()
    if failed:
        failed |= failed_with(after, failed)
        _refuse_if_all_failed(after, failed)
    return AskOutcome(after, lines, failed)


@contextmanager
def in_turn(plan: AuditPlan, store: EvidenceStore, console: Console) -> Iterator[AuditPlan]:
    """The plan of a run whose turn it is to ask: of runs that would put the same questions to the
    same targets, one asks, and the next finds what it was answered.

    Raises
    ------
    InputError
        If something is missing, and the store cannot be written to.
    """
    if not plan.is_missing_anything:
        yield plan
        return
    check_can_write(store.folder.url, "store")
    keys = sorted({planned.key.hash for one in plan for planned in one.target.questions})

    def waiting() -> None:
        console.print(
            f"another run asks the same targets the same; waiting for it ({store.folder.url})",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    with store.turn(digest(keys), waiting) as waited:
        yield plan.as_it_is_now() if waited else plan


def make_references(
    plan: AuditPlan,
    store: EvidenceStore,
    executor: Executor,
    board: Board,
    *,
    leave_out: bool = False,
) -> tuple[AuditPlan, dict[str, str]]:
    """Make the references that are missing.

    Parameters
    ----------
    leave_out : see :func:`ask`.

    Returns
    -------
    The plan, without the attacks that were left out, and the targets of which a reference could not
    be made, with the reason.

    Raises
    ------
    RaymiaError
        Where the only target fails, and where the store does.
    """
    missing = [
        (target, preparation)
        for target in plan
        for preparation in target.preparations
        if not preparation.ready and store.prepared_facts(preparation.recipe.key) is None
    ]
    if not missing:
        return plan, {}
    wanted = makings((target.name, preparation) for target, preparation in missing)
    errors = executor.make(wanted, plan.inputs.spec.resources.reference, board)
    if errors:
        store.check()  # a store that is full or gone is no failure of a target
    failed: dict[str, str] = {}
    for target, preparation in missing:
        error = errors.get(preparation.recipe.key)
        if error is None or target.name in failed:
            continue
        if leave_out and isinstance(error, NothingWrittenError):
            less = plan.without_reference(target.name, preparation.reference, str(error))
            if any(a.attack.asks for a in less.inputs.attacks_on(target.name)):
                plan = less
                continue
        if len(plan) == 1:
            raise error
        failed[target.name] = f"reference {preparation.reference}: {error}"
        board.fail(target.target.name, failed[target.name])
    return plan, failed


def _refuse_if_all_failed(plan: AuditPlan, failed: Mapping[str, str]) -> None:
    """Raise why targets failed, if none is left to report on."""
    if len(failed) < len(plan):
        return
    one = len(failed) == 1
    raise RaymiaError(
        "\n".join(why if one else f"target {name} failed: {why}" for name, why in failed.items())
    )
