"""What a training file names, resolved and checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raymia.inputs.base import Problems
from raymia.modalities.texts.resolve_training import FIRST, resolve_training
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.resolver import CausalCheckpoint, resolve_causal_lm
from raymia.models.causal.training import Training
from raymia.models.tokenizers import tokenizer_of
from raymia.prepare.packing import filled
from raymia.prepare.private import plan_privacy
from raymia.prepare.text_split import Record, TextSplit, draw_members
from raymia.prepare.train_target import TargetTraining, step_size, total_steps
from raymia.prepare.tuning import Counted, check_method
from raymia.records.base import RecordSet, SetAside
from raymia.records.structured import format_of_records, places_of, read_records
from raymia.spec import ModelSpec, Packing, RecordFormat, TextRecordsSpec
from raymia.spec.methods import PrefixMethod, PTuningMethod
from raymia.spec.target_training import TargetTrainingSpec, TrainedRecordsSpec
from raymia.storage.files import check_can_write
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.pieces import pieces


@dataclass(frozen=True)
class ResolvedTraining:
    """Everything that a training file names.

    Attributes
    ----------
    kind : format of the records.
    assumed : what the file does not say of how records are read, each as a sentence.
    tokens : of the members, padding left out, for one pass over them.
    lengths : tokens of each record, by id.
    """

    spec: TargetTrainingSpec
    plan: TargetTraining
    split: TextSplit
    kind: RecordFormat
    counted: Counted
    set_aside: tuple[SetAside, ...]
    assumed: tuple[str, ...]
    tokens: int
    lengths: Mapping[str, int]


def resolve_target_training(spec: TargetTrainingSpec) -> ResolvedTraining:
    """Read and check everything of a training, and report all problems together.

    Raises
    ------
    InputError
        With every problem found.
    """
    problems = Problems()
    attempt = problems.attempt
    attempt(check_can_write, spec.output, "output")
    if "://" in spec.output:
        problems.found.append(f"output: {spec.output} should be a folder of this machine")
    model = ModelSpec(**spec.base.model_dump())
    base = attempt(resolve_causal_lm, model, "base.model", on_gpu=False)
    counted = None if base is None else attempt(check_method, spec.method, base, "method")
    given = _as_audited(spec.records)
    kind = attempt(format_of_records, given)
    records = None if kind is None else attempt(read_records, given, kind)
    problems.refuse()
    assert base is not None
    assert counted is not None
    assert kind is not None
    assert records is not None
    if spec.dpo is not None and kind != "preference":
        raise InputError(
            f"dpo: it takes records with columns chosen and rejected, and these are of the format "
            f"{kind}; leave out `dpo`, or give preferences"
        )

    payloads = records.table["payload"].slice(0, FIRST).to_pylist()
    read = resolve_training(spec.training, kind, spec.records.side, base, payloads, "training")
    assert read is not None, "a training that is said is resolved"
    # What is not cut by the file is cut to what the base has room for.
    assumed = tuple(line for key, line in read.assumed.items() if key != "max_length")
    training = _within_context(read.training, base, spec)
    usable = _usable(records, base, training, both=spec.dpo is not None)
    places = places_of(given, kind, usable.unread)
    unread = (SetAside(places[name], name, reason) for name, reason in usable.unread.items())
    set_aside = (*records.set_aside, *unread)
    split = _split(spec, usable)
    plan = plan_training(spec, base, training, split, usable.lengths)
    return ResolvedTraining(
        spec, plan, split, kind, counted, set_aside, assumed, usable.tokens(split), usable.lengths
    )


def plan_training(
    spec: TargetTrainingSpec,
    base: CausalCheckpoint,
    training: Training,
    split: TextSplit,
    lengths: Mapping[str, int],
    what: str = "trainer",
) -> TargetTraining:
    """A training of a split.

    Parameters
    ----------
    lengths : tokens of each record, by id.
    what : stands before what is wrong.

    Raises
    ------
    InputError
        If the members are too few, or the privacy cannot be had.
    """
    batch = step_size(spec.trainer)
    packing = None
    if spec.trainer.packing:
        assert training.max_length is not None, "it is what the base has room for"
        packing = filled([lengths[record.id] for record in split.members], training.max_length)
    rows = len(split.members if packing is None else packing)
    if rows < batch:
        packed = "" if packing is None else f", packed into {rows:,} rows,"
        raise InputError(
            f"{what}: {len(split.members):,} members{packed} are fewer than one step takes "
            f"({batch:,} = per_device_train_batch_size x gradient_accumulation_steps); give more "
            "records, or make either smaller"
        )
    privacy = None
    if spec.dp is not None:
        steps = total_steps(spec.trainer, len(split.members))
        privacy = plan_privacy(spec.dp, len(split.members), batch, steps)
    return TargetTraining(
        base=base,
        method=spec.method,
        trainer=spec.trainer,
        training=training,
        members=split.members,
        held_out=split.held_out,
        seed=spec.seed,
        out=Path(spec.output),
        run=_run(spec, base, training, split),
        privacy=privacy,
        beta=None if spec.dpo is None else spec.dpo.beta,
        packing=packing,
        workers=spec.resources.num_workers,
    )


def _as_audited(records: TrainedRecordsSpec) -> TextRecordsSpec:
    """The section of an audit that reads the same records."""
    columns = {
        key: getattr(records, key)
        for key in ("format", "side", "text_column", "group_column")
        if key in records.model_fields_set
    }
    if records.files:
        return TextRecordsSpec(candidates=records.files, **columns)
    return TextRecordsSpec(members=records.members, non_members=records.held_out, **columns)


def _within_context(
    training: Training, base: CausalCheckpoint, spec: TargetTrainingSpec
) -> Training:
    """The training with the length that records are cut to, which the model has room for."""
    context = base.facts.context
    packing: Packing = "separate" if spec.trainer.packing else "none"
    training = replace(training, packing=packing, leaves_out_empty_tools=False)
    if context is None:
        if spec.trainer.packing and training.max_length is None:
            raise InputError(
                "trainer.packing: the base does not say how long a text it reads; say how long "
                "rows are, as training.max_length"
            )
        return training
    method = spec.method
    virtual = method.num_virtual_tokens if isinstance(method, PrefixMethod | PTuningMethod) else 0
    room = context - virtual
    wanted = training.max_length
    if room < 2 or (wanted is not None and wanted > room):
        beside = f", {virtual} of them virtual" if virtual else ""
        raise InputError(
            f"training.max_length: {wanted or 2:,} tokens do not fit the base, which reads "
            f"{context:,}{beside}; {max(room, 0):,} is the most"
        )
    return replace(training, max_length=wanted or room)


@dataclass(frozen=True)
class _Usable:
    """Records that the training can read, by class, and why it cannot read others, by id."""

    records: list[tuple[bool | None, Record]]
    texts: list[str]
    lengths: dict[str, int]
    unread: dict[str, str]

    def tokens(self, split: TextSplit) -> int:
        return sum(self.lengths[record.id] for record in split.members)


def _usable(
    records: RecordSet, base: CausalCheckpoint, training: Training, *, both: bool
) -> _Usable:
    """The records that a training can read.

    Parameters
    ----------
    both : whether it reads both answers of a preference.
    """
    reader = TrainedReader(tokenizer_of(base), training)
    other = TrainedReader(tokenizer_of(base), training.other_side) if both else reader
    found = _Usable([], [], {}, {})
    rows: list[dict[str, Any]] = records.table.to_pylist()
    split = [*pieces([r["payload"] for r in rows])]
    reads = [one for piece in split for one in reader.read(piece)]
    others = [one for piece in split for one in other.read(piece)] if both else reads
    for row, read, beside in zip(rows, reads, others, strict=True):
        record = Record(row["record_id"], row["payload"], row["group"])
        error = read.error or beside.error
        if error is not None:
            found.unread[record.id] = error
            continue
        found.records.append((row["is_member"], record))
        found.texts.append(reader.text(record.payload))
        found.lengths[record.id] = len(read.ids)
    return found


def _split(spec: TargetTrainingSpec, usable: _Usable) -> TextSplit:
    if spec.records.files:
        return draw_members([r for _, r in usable.records], usable.texts, spec.split, spec.seed)
    members, held_out = (
        tuple(record for is_member, record in usable.records if is_member is side)
        for side in (True, False)
    )
    for side, key in ((members, "members"), (held_out, "held_out")):
        if not side:
            reasons = sorted({*usable.unread.values()})
            raise InputError(
                f"records.{key}: not one record that can be trained on ({'; '.join(reasons)})"
            )
    return TextSplit(members, held_out)


def _run(
    spec: TargetTrainingSpec, base: CausalCheckpoint, training: Training, split: TextSplit
) -> str:
    return digest(
        {
            "base": base.fingerprint,
            "method": spec.method.model_dump(),
            "trainer": spec.trainer.key_parts(),
            "training": training.key_parts(),
            "members": [record.id for record in split.members],
            "held_out": [record.id for record in split.held_out],
            "seed": spec.seed,
            **({} if spec.dp is None else {"dp": spec.dp.model_dump()}),
            **({} if spec.dpo is None else {"dpo": spec.dpo.model_dump()}),
            **({"workers": workers} if (workers := spec.resources.num_workers) > 1 else {}),
        }
    )
