"""The recipe that a target was trained by, for the references that it writes the texts of."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import TypeAdapter, ValidationError

from raymia.spec import TextRecordsSpec
from raymia.spec.methods import METHODS, Method
from raymia.spec.target_training import DpSpec, TrainerSpec
from raymia.storage.manifest import read_sealed
from raymia.util.draws import generator
from raymia.util.errors import InputError
from raymia.util.optional import require

if TYPE_CHECKING:
    from raymia.models.causal.resolver import CausalCheckpoint
    from raymia.models.causal.training import Training
    from raymia.prepare.private import Privacy
    from raymia.prepare.train_target import TargetTraining
    from raymia.prepare.trainer import Progress

METHOD: TypeAdapter[Method] = TypeAdapter(Annotated[Method, METHODS])


@dataclass(frozen=True)
class OwnNoise:
    """What a private training added to its gradients, which training alike adds too.

    A reference holds no records, so it claims no epsilon: each of its steps has the noise of the
    target's, beside as many texts on average, whatever that spends.

    Attributes
    ----------
    multiplier : standard deviation of the noise, in lengths that gradients are cut to.
    """

    dp: DpSpec
    multiplier: float

    @classmethod
    def read(cls, privacy: Mapping[str, Any]) -> OwnNoise:
        """From what a manifest says of a private training."""
        dp = DpSpec(**{key: privacy[key] for key in DpSpec.model_fields})
        return cls(dp, float(privacy["noise_multiplier"]))

    def key_parts(self) -> Mapping[str, float]:
        """Everything that a reference is a function of."""
        return {"max_grad_norm": self.dp.max_grad_norm, "noise_multiplier": self.multiplier}


@dataclass(frozen=True)
class OwnRecipe:
    """How a target was trained, as far as others can be trained likewise.

    Attributes
    ----------
    trainer : keeps the last checkpoint alone.
    repeats : whether texts that do not fill one step are taken again until they do, where it is
        only to be seen how long a step takes.
    noise : of a private training.
    """

    method: Method
    trainer: TrainerSpec
    repeats: bool = False
    noise: OwnNoise | None = None

    @classmethod
    def read(cls, manifest: str, where: str) -> OwnRecipe:
        """That of a manifest.

        Raises
        ------
        InputError
            If it is no manifest of `raymia train`, was edited, or is of another version.
        """
        content = read_sealed(Path(manifest), where, TextRecordsSpec.manifest)
        try:
            trainer = TrainerSpec(**content["trainer"])
            method = METHOD.validate_python(content["method"])
            privacy = content.get("privacy")
            noise = None if privacy is None else OwnNoise.read(privacy)
        except (ValidationError, KeyError, TypeError, ValueError):
            raise InputError(
                f"{where}: {manifest} is of another version of raymia, whose options are not "
                "known here; say `fine_tune` under the reference"
            ) from None
        if trainer.early_stopping_patience is None:
            trainer = trainer.model_copy(update={"save_strategy": "no", "save_steps": None})
        return cls(method, trainer, noise=noise)

    def key_parts(self) -> Mapping[str, Any]:
        """Everything that a reference is a function of."""
        repeats = {"repeats": True} if self.repeats else {}
        noise = {} if self.noise is None else {"noise": self.noise.key_parts()}
        own = {"method": self.method.model_dump(), "trainer": self.trainer.key_parts()}
        return {**own, **noise, **repeats}

    def small(self, steps: int) -> OwnRecipe:
        """The same for no more steps, on however few texts, to see how long one takes."""
        few = {"max_steps": min(self.trainer.max_steps or steps, steps), "save_strategy": "no",
               "save_steps": None, "early_stopping_patience": None}  # fmt: skip
        return replace(self, trainer=self.trainer.model_copy(update=few), repeats=True)

    def check(self, texts: int, where: str) -> None:
        """Refuse fewer texts than one step takes, were each of them to have a row of its own, and
        a private training without what it needs.

        Raises
        ------
        InputError
        """
        from raymia.prepare.fine_tune import HELD_OUT_SHARE
        from raymia.prepare.train_target import step_size

        if self.noise is not None:
            require("opacus", "private trainings", where)
        rows, wanted = texts - _held_out(texts), step_size(self.trainer)
        if rows < wanted:
            least = math.ceil(wanted / (1 - HELD_OUT_SHARE))
            raise InputError(
                f"{where}.texts: of {texts:,} texts {rows:,} are trained on, and the rest is held "
                "out, which are fewer than one step of the target's own training takes "
                f"({wanted:,}); give at least {least:,}, or say `fine_tune`"
            )

    def describe(self) -> str:
        """In words, for the plan."""
        trainer = self.trainer
        how_long = (
            f"{trainer.max_steps:,} steps"
            if trainer.max_steps is not None
            else f"{trainer.num_train_epochs:g} epochs"
        )
        noise = "" if self.noise is None else ", with its noise and its cutting of gradients"
        return f"{how_long}, by the target's own recipe ({self.method.kind}{noise})"

    def plan(
        self,
        base: CausalCheckpoint,
        payloads: Sequence[str],
        training: Training | None,
        seed: int,
        out: Path,
        run: str,
        max_tokens: int,
    ) -> TargetTraining:
        """The training of a reference on payloads, of which 5 % are held out; those that it cannot
        read are left out.

        Parameters
        ----------
        training : how they are read; default: as whole texts.
        max_tokens : that were written of a text. One that was stopped there did not end, so the
            mark of an end that it is read with is cut off.

        Raises
        ------
        InputError
            If there are fewer than one step takes.
        """
        from raymia.models.causal.rendering import TrainedReader
        from raymia.models.causal.training import Training
        from raymia.models.tokenizers import tokenizer_of
        from raymia.prepare.packing import filled
        from raymia.prepare.text_split import Record
        from raymia.prepare.train_target import TargetTraining, step_size
        from raymia.prepare.trainer import training_row

        training = training or Training("text", "all", eos=True)
        read = TrainedReader(tokenizer_of(base), training).read(payloads)
        usable = [(one, as_read) for one, as_read in zip(payloads, read, strict=True)
                  if training_row(as_read, max_tokens) is not None]  # fmt: skip
        order = generator(seed, "held out").permutation(len(usable)).tolist()
        held_out = {*order[: _held_out(len(usable))]}
        records = [Record(f"{number:09}", payload) for number, (payload, _) in enumerate(usable)]
        members = tuple(one for n, one in enumerate(records) if n not in held_out)
        packing = None
        if self.trainer.packing:
            lengths = [
                len(read.ids[:max_tokens])
                for n, (_, read) in enumerate(usable)
                if n not in held_out
            ]
            packing = filled(lengths, training.max_length or max(lengths, default=0))
        rows = len(members if packing is None else packing)
        if rows < step_size(self.trainer) and self.repeats and usable:
            twice = [*payloads, *payloads]
            return self.plan(base, twice, training, seed, out, run, max_tokens)
        if rows < step_size(self.trainer):
            packed = "" if packing is None else f", packed into {rows:,} rows,"
            raise InputError(
                f"self-prompting: {len(members):,} texts{packed} are fewer than one step of the "
                f"target's own training takes ({step_size(self.trainer):,}); give more `texts`, or "
                "say `fine_tune`"
            )
        return TargetTraining(
            base=base,
            method=self.method,
            trainer=self.trainer,
            training=training,
            members=members,
            held_out=tuple(one for n, one in enumerate(records) if n in held_out),
            seed=seed,
            out=out,
            run=run,
            privacy=self._privacy(len(members)),
            packing=packing,
            max_tokens=max_tokens,
        )

    def _privacy(self, members: int) -> Privacy | None:
        from raymia.prepare.private import Privacy
        from raymia.prepare.train_target import step_size, total_steps

        if self.noise is None:
            return None
        batch = step_size(self.trainer)
        steps = total_steps(self.trainer, members)
        dp, noise = self.noise.dp, self.noise.multiplier
        return Privacy(dp, noise, batch / members, batch, steps, is_claimed=False)


def _held_out(texts: int) -> int:
    """How many of the texts are not trained on."""
    from raymia.prepare.fine_tune import HELD_OUT_SHARE

    return max(1, int(HELD_OUT_SHARE * texts))


def train_alike(plan: TargetTraining, progress: Progress) -> dict[str, Any]:
    """Train a reference, and leave its last checkpoint alone in the folder of the plan."""
    from raymia.prepare.train_target import FACTS_FILE, train_target

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")  # of opacus
        checkpoints, facts = train_target(plan, progress)
    last = checkpoints[-1]
    for folder in [*plan.out.iterdir()]:
        if folder.is_dir() and folder.name != last["folder"]:
            shutil.rmtree(folder)
    for file in [*(plan.out / last["folder"]).iterdir()]:
        file.replace(plan.out / file.name)
    (plan.out / last["folder"]).rmdir()
    (plan.out / FACTS_FILE).unlink()
    return {
        "texts": len(plan.members),
        "epochs": last["epoch"],
        "steps": facts["steps"],
        "train_loss": last["train_loss"],
        "held_out_loss": last["held_out_loss"],
        "seconds": facts["seconds"],
    }
