"""The self-prompt reference: the target writes texts, the base is fine-tuned on them.

SPV-MIA (arXiv 2311.06062), section 4.3. What the target writes is near to what it was trained on,
so the fine-tuned base knows the domain as the target does but has not seen the members.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raymia.evidence.store import PREPARED_MARKER, EvidenceStore
from raymia.models.causal.answering import shared_start
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.model import CausalLM
from raymia.models.causal.reading import added_around, text_of
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.checkpoint import architecture
from raymia.models.endpoints.writing import Server
from raymia.prepare.fine_tune import fine_tune
from raymia.prepare.own_recipe import OwnRecipe, train_alike
from raymia.prepare.parts import Parts, Share, count_parts, keep_if, part_keys
from raymia.prepare.prompts import Beginnings, beginnings_of, refuse_long_prompts
from raymia.prepare.quality import perplexities, reference_perplexities
from raymia.prepare.recipe import Report
from raymia.prepare.train_target import step_size, total_steps
from raymia.prepare.trainer import Progress
from raymia.prepare.writer import QUESTIONS, TEXTS, Writer
from raymia.prepare.written_records import beginning_of_text, write_records
from raymia.spec import PoolSpec, SelfPromptReference
from raymia.storage.scratch import scratch
from raymia.util.draws import generator
from raymia.util.errors import NothingWrittenError
from raymia.util.hashing import digest

VERSION = 2
VERSION_OF_TEXTS = 3
"""Of plain texts, and of no other records; those of 2 were without the marks in them."""
VERSION_OF_TOKENS = 3
"""Of records of tokens; those of 2 were answered where the first answer begins, and had no end."""
VERSION_OF_QUESTIONS = 2
"""Of those that a target writes itself."""
TEXTS_FILE = "texts.parquet"


@dataclass(frozen=True)
class SelfPromptRecipe:
    """Everything that a self-prompt reference is made from.

    Attributes
    ----------
    target : the checkpoint that writes the texts.
    base : the checkpoint that is fine-tuned on them.
    prompts : texts whose first tokens the target continues; none of them a record.
    own : the recipe of the target, where the base is fine-tuned by it.
    server : writes the texts in the target's place.
    """

    target: CausalCheckpoint
    base: CausalCheckpoint
    spec: SelfPromptReference
    prompts: tuple[str, ...]
    seed: int
    own: OwnRecipe | None = None
    server: Server | None = None

    @property
    def material_key(self) -> str:
        return digest({"what": "self-prompt texts", **self._text_parts()})

    @property
    def key(self) -> str:
        return digest(
            {
                "what": "self-prompt reference",
                "base": self.base.fingerprint,
                "start": "its own",
                **self._tuned_by(),
                **self._text_parts(),
            }
        )

    @property
    def tuning_seed(self) -> int:
        """Its own start and order: an adapter that starts as the target's own did, or sees texts in
        the same order, would be too near a relative."""
        return int(generator(self.seed, "self-prompt reference").integers(2**31))

    def _tuned_by(self) -> Mapping[str, Any]:
        if self.own is None:
            return {"fine_tune": self.spec.tuning.key_parts()}
        training = self.target.training
        read = None if training is None else training.key_parts()
        return {"own": self.own.key_parts(), "training": read, "stops": "are no ends"}

    @property
    def _adapts(self) -> bool:
        """Whether an adapter is trained, and not all weights."""
        if self.own is None:
            return self.spec.fine_tune.lora is not None
        return self.own.method.peft is not None

    def _text_parts(self) -> Mapping[str, Any]:
        ignored = {"kind", "preset", "prompts", "text_column", "base", "fine_tune", "written_by"}
        served = {} if self.server is None else {"written_by": self.server.key_parts()}
        return {
            **served,
            "version": self._version,
            "seed": self.seed,
            "target": self.target.fingerprint,
            "prompts": digest(list(self.prompts)),
            **({"questions": VERSION_OF_QUESTIONS} if QUESTIONS in self._written_things else {}),
            **self.spec.model_dump(exclude=ignored),
        }

    @property
    def items(self) -> int:
        return self.spec.texts

    @property
    def steps(self) -> int:
        if self.own is not None:
            return total_steps(self.own.trainer, self._rows(self.own))
        per_epoch = math.ceil(self.spec.texts / self.spec.fine_tune.batch_size)
        return math.ceil(per_epoch * self.spec.fine_tune.epochs)

    def _rows(self, own: OwnRecipe) -> int:
        """Of the training, about, as if no text ended early."""
        training = self.target.training
        if not own.trainer.packing or training is None or training.max_length is None:
            return self.spec.texts
        return math.ceil(self.spec.texts / max(1, training.max_length // self.spec.max_tokens))

    def rate_parts(self) -> tuple[list[Any], list[Any]]:
        spec = self.spec
        write: list[Any] = [
            spec.max_tokens - spec.prompt_tokens, spec.generation_batch, spec.top_k is None
        ]  # fmt: skip
        if self.server is not None:
            write.append(self.server.key_parts())
        parts = spec.tuning.key_parts()
        tune: Any = {key: parts[key] for key in ("batch_size", "max_tokens", "lora")}
        if spec.fine_tune.bf16 is not None:
            tune["bf16"] = spec.fine_tune.bf16
        if spec.fine_tune.gradient_checkpointing:
            tune["gradient_checkpointing"] = True
        if self.own is not None:
            tune = [self.own.method.kind, step_size(self.own.trainer), spec.max_tokens]
            if self.own.noise is not None:
                tune.append("private")
        return ["write", write], ["tune", tune, architecture(self.base)]

    def describe(self, target: str) -> str:
        how = f"{self.spec.fine_tune.epochs:g} epochs" if self.own is None else self.own.describe()
        who = target if self.server is None else f"{target}, which {self.server.url} serves,"
        return (
            f"{who} writes {self.spec.texts:,} texts of {self.spec.max_tokens} tokens, and the "
            f"base is fine-tuned on them for {how}"
        )

    def make(self, store: EvidenceStore, pool: PoolSpec, report: Report) -> None:
        make_reference(
            self,
            store,
            batch_tokens=pool.batch_tokens,
            on_texts=report("write texts"),
            on_steps=report("fine-tune"),
        )

    @property
    def rounds(self) -> int:
        return len(self._written_things)

    @property
    def shares(self) -> int:
        if self.server is not None:
            return 1
        return count_parts(self.spec.texts, self.spec.generation_batch)

    @property
    def part_keys(self) -> list[str]:
        return part_keys(self.material_key, self._written_things)

    @property
    def _is_of_texts(self) -> bool:
        training = self.target.training
        return training is None or training.format == "text"

    @property
    def _version(self) -> int:
        if self._is_of_texts:
            return VERSION_OF_TEXTS
        training = self.target.training
        is_tokens = training is not None and training.format == "tokens"
        return VERSION_OF_TOKENS if is_tokens else VERSION

    @property
    def _written_things(self) -> tuple[str, ...]:
        if self.spec.prompts == "none" and not self._is_of_texts:
            return QUESTIONS, TEXTS
        return (TEXTS,)

    def write_share(
        self, share: Share, store: EvidenceStore, pool: PoolSpec, report: Report
    ) -> None:
        if stored_texts(self, store) is None:
            parts = Parts(self.material_key, store, share)
            parts.unchanged = self.target.watch()
            self.target.check()
            target = load_causal_lm(self.target, batch_tokens=pool.batch_tokens)
            write_material(target, self, parts, report("write texts"))

    def finished(self, folder: Path | None) -> CausalCheckpoint:
        if folder is None:
            return replace(self.base, fingerprint=f"to be made: {self.key}")
        return self.trained(folder).with_fingerprint()

    def trained(self, folder: Path) -> CausalCheckpoint:
        """The base as it was trained into a folder."""
        if not self._adapts:
            return replace(self.base, path=str(folder))
        return replace(self.base, adapter=str(folder))


def make_reference(
    recipe: SelfPromptRecipe,
    store: EvidenceStore,
    *,
    batch_tokens: int,
    on_texts: Progress,
    on_steps: Progress,
) -> None:
    """Make a self-prompt reference and commit it to the store under the recipe's key.

    The texts are committed on their own first, so a run that is killed while it fine-tunes does not
    ask the target for them again, and one that is killed while it writes asks for a part of them.
    """
    texts = stored_texts(recipe, store)
    training = recipe.target.training
    if texts is None:
        parts = Parts(recipe.material_key, store)
        parts.unchanged = recipe.target.watch()
        recipe.target.check()
        target = load_causal_lm(recipe.target, batch_tokens=batch_tokens)
        texts, facts = write_material(target, recipe, parts, on_texts)
        facts["writing_seconds"] = round(parts.seconds, 3)
        facts |= perplexities(target, recipe, "target_")
        del target
        parts.unchanged()
        _commit_texts(recipe, store, texts, facts)
        texts = stored_texts(recipe, store) or texts  # a run beside this one may have been first
    store.remove_prepared(recipe.part_keys)
    with store.workplace(recipe.key) as out:
        if store.prepared_facts(recipe.key) is not None:
            return  # by a run beside this one
        unchanged = recipe.base.watch()
        if recipe.own is not None:
            seed, max_tokens = recipe.tuning_seed, recipe.spec.max_tokens
            plan = recipe.own.plan(recipe.base, texts, training, seed, out, recipe.key, max_tokens)
            facts = train_alike(plan, on_steps)
        else:
            recipe.base.check()
            facts = fine_tune(
                Path(recipe.base.path),
                texts,
                recipe.spec.tuning,
                out,
                seed=recipe.tuning_seed,
                progress=on_steps,
                trust_remote_code=recipe.base.trust_remote_code,
                training=training,
            )
        keep_if(unchanged, out)
        facts |= reference_perplexities(recipe, out, batch_tokens)
        written = store.prepared_facts(recipe.material_key) or {}
        (out / PREPARED_MARKER).write_text(json.dumps({**written, **facts}, indent=2) + "\n")
        store.commit_prepared(recipe.key, out)


def write_material(
    target: CausalLM, recipe: SelfPromptRecipe, parts: Parts, progress: Progress
) -> tuple[list[str], dict[str, Any]]:
    """What the target writes, as the records of its training are, and facts about it."""
    training = recipe.target.training
    if training is None or training.format == "text":
        return write_texts(target, recipe, progress, parts)
    return write_records(target, recipe, training, progress, parts)


def write_texts(
    target: CausalLM, recipe: SelfPromptRecipe, progress: Progress, parts: Parts | None = None
) -> tuple[list[str], dict[str, Any]]:
    """Let the target continue the first tokens of the prompts.

    Text i continues prompt ``i % prompts`` with draws that are a function of (seed, i). It has the
    marks that stand in it, as records have theirs, but neither what the tokenizer puts before it
    nor the end with which the model ended it. Prompts that have fewer tokens than
    ``prompt_tokens``, and those that are cut inside a mark of a chat template, are left out and
    counted.

    Raises
    ------
    InputError
        If no prompt can be used, all begin alike, or the model's context is too short.
    """
    spec = recipe.spec
    if spec.prompts == "none":
        begun = beginning_of_text(target)
        spec = spec.model_copy(update={"prompt_tokens": len(begun)})
        given, before = Beginnings([begun], 0, 0), begun
    else:
        training = recipe.target.training
        adds = training is None or training.special_tokens
        before = added_around(target.tokenizer)[0] if adds else []
        given = beginnings_of(target.tokenizer, recipe.prompts, spec.prompt_tokens, adds)
    prompts = given.ids
    length = min(spec.max_tokens, target.max_tokens or spec.max_tokens)
    refuse_long_prompts(spec.prompt_tokens, length)
    writer = Writer(target, spec, recipe.seed, parts or Parts(), server=recipe.server)
    starts = [prompts[i % len(prompts)] for i in range(spec.texts)]
    rows = writer.write(starts, TEXTS, progress, whole=length)
    whole = [start + row for start, row in zip(starts, rows, strict=True)]
    texts = [text_of(target.tokenizer, ids[len(before) :]) for ids in whole]
    usable = [text for text in texts if text.strip()]
    if len(usable) < 2:
        raise NothingWrittenError(
            f"self-prompting: the target wrote {len(usable)} usable texts out of {len(texts)}; "
            "look at the checkpoint, or at the prompts"
        )
    facts = {
        "prompts": len(prompts),
        "prompts_too_short": given.too_short,
        "prompts_cut_in_a_mark": given.in_marks,
        "prompts_begin_with_the_same_tokens": shared_start(prompts),
        "mean_tokens_written": round(sum(map(len, rows)) / len(rows), 1),
        "ended_by_themselves": sum(len(ids) < length for ids in whole),
        "texts_empty": len(texts) - len(usable),
    }
    return usable, facts


def stored_texts(recipe: SelfPromptRecipe, store: EvidenceStore) -> list[str] | None:
    """What the target wrote, as payloads; None where it has not yet."""
    if store.prepared_facts(recipe.material_key) is None:
        return None
    folder = store.prepared_path(recipe.material_key)
    texts: list[str] = pq.read_table(folder / TEXTS_FILE)["text"].to_pylist()
    return texts


def _commit_texts(
    recipe: SelfPromptRecipe, store: EvidenceStore, texts: list[str], facts: dict[str, Any]
) -> None:
    with scratch() as folder:
        pq.write_table(pa.table({"text": texts}), folder / TEXTS_FILE)
        (folder / PREPARED_MARKER).write_text(json.dumps(facts, indent=2) + "\n")
        store.commit_prepared(recipe.material_key, folder)
