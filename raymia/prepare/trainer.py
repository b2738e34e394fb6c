"""The training code of language models, of references and of targets alike.

It is transformers' Trainer: people know its options by name, and what it keeps (the optimizer, the
schedule, the random states, the place in the shuffled records) is all that a training needs to go
on exactly where it was stopped. Two things are done here. The weights that are trained are kept by
the names of the parameters, since PEFT saves of some adapters what is needed to use them and not to
train them on, as the embeddings of P-tuning without the network that makes them. And a loss that is
no number ends the training, which the Trainer goes on with.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from raymia.models.causal.reading import Rendered
from raymia.prepare.together import first_says, of_several, rank, workers
from raymia.records.conversations import NOT_TRAINED
from raymia.spec.target_training import WorkersSpec
from raymia.storage.files import Folder
from raymia.util.errors import RaymiaError

SAVE_SECONDS = 60.0
"""Of a training, which a kill loses at most."""
RUN_FILE = "run.json"
TRAINED_FILE = "trained.safetensors"
STATE_FILE = "trainer_state.json"
Progress = Callable[[int, int], None]
"""Called with (done, total)."""
Together = Callable[[Callable[[Progress], Any], WorkersSpec, str], Any]
"""Calls a function in several processes, which train one model in a folder that all share."""
Rows = Sequence[Mapping[str, Any]]
"""Tokens of records as ``input_ids``, and their ``labels`` where not all carry a loss."""
AfterStep = Callable[[int], bool | None]
"""Called with the steps that are behind: None where it did nothing, True where it
kept a checkpoint, False to end the training."""


class KeptTraining:
    """Where a training stands, as its trainer saves it, in a folder.

    Parameters
    ----------
    folder : what another training left there is removed.
    run : hash of all that the training is a function of.

    Attributes
    ----------
    last : the folder of the last state; None where there is none.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self._run = folder, run
        self.last = self._find()
        self._before = self._facts().get("seconds", 0.0) if self.last else 0.0
        self._started = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent so far, with what an earlier process spent on what it saved."""
        return float(self._before + time.monotonic() - self._started)

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._saved >= SAVE_SECONDS

    def note(self) -> None:
        """A state was saved."""
        self._saved = time.monotonic()
        facts = {"run": self._run, "seconds": self.seconds}
        Folder(str(self.folder)).write(RUN_FILE, json.dumps(facts).encode())

    def remove(self) -> None:
        """The training is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self.folder / RUN_FILE).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return facts

    def _find(self) -> str | None:
        if self._facts().get("run") == self._run:
            # The trainer writes its own state last; a folder without it was cut off.
            whole = [file.parent for file in self.folder.glob(f"checkpoint-*/{STATE_FILE}")]
            whole = [folder for folder in whole if (folder / TRAINED_FILE).is_file()]
            if whole:
                return str(max(whole, key=lambda path: int(path.name.partition("-")[2])))
        self.remove()
        return None


def in_bfloat16(is_said: bool | None) -> bool:
    """Whether a training computes in bfloat16: as is said, or else on a GPU that has it."""
    if is_said is not None:
        return is_said
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def base_dtype(bf16: bool | None, *, is_adapted: bool) -> torch.dtype:
    """What a model is held in that is trained: float32, but for a GPU's base under an adapter."""
    is_light = is_adapted and torch.cuda.is_available() and in_bfloat16(bf16)
    return torch.bfloat16 if is_light else torch.float32


def run_trainer(
    model: Any,
    rows: Rows,
    options: Mapping[str, Any],
    kept: KeptTraining,
    *,
    seed: int,
    progress: Progress,
    after_step: AfterStep = lambda _steps: None,
    trainer_class: Callable[[type], type] = lambda kind: kind,
) -> int:
    """Train a model from where it was stopped to the end; returns the steps of the optimizer.

    Parameters
    ----------
    options : of transformers' TrainingArguments; ``bf16`` is None where it is not said.
    after_step : see :data:`AfterStep`; draws no random numbers.
    trainer_class : makes another class of the trainer's.

    Raises
    ------
    RaymiaError
        If the loss is no number at some step.
    """
    from transformers import PrinterCallback, TrainingArguments

    quiet()
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(kept.folder),
        **{**options, "bf16": in_bfloat16(options["bf16"])},
        save_strategy="no",  # the callback says when
        save_total_limit=1,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not on_gpu,
        ddp_backend=torch.distributed.get_backend() if workers() > 1 else None,
        seed=seed,
        data_seed=seed,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
    )
    own = trainer_class(_trainer())
    trainer = (own if workers() == 1 else of_several(own))(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=pad_batch,
        callbacks=[_callback(progress, kept, after_step)],
    )
    trainer.remove_callback(PrinterCallback)
    steps: int = trainer.train(resume_from_checkpoint=kept.last).global_step
    model.eval()
    return steps


def training_row(record: Rendered, max_tokens: int | None = None) -> dict[str, list[int]] | None:
    """The tokens and labels of a record as a training read it; None where no token has a label."""
    ids = record.ids[:max_tokens]
    scored = [] if record.scored is None else record.scored[:max_tokens].tolist()
    if not any(scored):
        return None
    labels = [token if own else NOT_TRAINED for token, own in zip(ids, scored, strict=True)]
    return {"input_ids": ids, "labels": labels}


def pad_batch(rows: Sequence[Mapping[str, list[int]]]) -> dict[str, Any]:
    """Pad on the right; padding has no attention and no label, whatever its token.

    Rows of several records have positions instead of a mask, by which transformers keeps attention
    within each; padding is behind all of them, and so no one sees it.
    """
    width = max((len(row["input_ids"]) for row in rows), default=1)
    ids = [row["input_ids"] for row in rows]
    labels = [row.get("labels", row["input_ids"]) for row in rows]
    other: dict[str, Any] = {}
    padded = {
        "input_ids": [t + [0] * (width - len(t)) for t in ids],
        "labels": [t + [NOT_TRAINED] * (width - len(t)) for t in labels],
    }
    if any("position_ids" in row for row in rows):
        places = [row["position_ids"] for row in rows]
        padded["position_ids"] = [t + [0] * (width - len(t)) for t in places]
        other["use_cache"] = False  # with a cache transformers does not look at the positions
    else:
        padded["attention_mask"] = [[1] * len(t) + [0] * (width - len(t)) for t in ids]
    tensors = {
        name: torch.tensor(table, dtype=torch.long).reshape(len(rows), width)
        for name, table in padded.items()
    }
    return {**tensors, **other}


def quiet() -> None:
    """Let transformers say nothing of its progress."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def check_finite(loss: torch.Tensor, steps: int, learning_rate: float) -> None:
    """Refuse to go on after a loss that is no number.

    Parameters
    ----------
    steps : that are behind it.
    """
    if not torch.isfinite(loss):
        raise RaymiaError(
            f"step {steps + 1}: the loss is {float(loss)}, so the training has come apart; try a "
            f"smaller learning_rate (a tenth of {learning_rate:g}), more warmup_steps, or a "
            "smaller max_grad_norm, and look for records of one token again and again"
        )


def _trainer() -> Any:
    from transformers import Trainer

    class Resumable(Trainer):  # type: ignore[misc]
        def save_model(self, output_dir: Any = None, _internal_call: bool = False) -> None:
            if not self.args.should_save:
                return
            folder = Path(output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            own = {
                name: one.detach().cpu().contiguous()
                for name, one in trained_parameters(self.model).items()
            }
            safetensors.torch.save_file(own, folder / TRAINED_FILE)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            del model
            stored = safetensors.torch.load_file(Path(resume_from_checkpoint) / TRAINED_FILE)
            with torch.no_grad():
                for name, one in trained_parameters(self.model).items():
                    one.copy_(stored[name])

        def training_step(self, *given: Any, **options: Any) -> torch.Tensor:
            loss: torch.Tensor = super().training_step(*given, **options)
            check_finite(loss, self.state.global_step, self.args.learning_rate)
            return loss

    return Resumable


def _callback(progress: Progress, kept: KeptTraining, after_step: AfterStep) -> Any:
    from transformers import TrainerCallback

    class Report(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            del args, kwargs
            done, is_due = first_says(lambda: (after_step(state.global_step), kept.is_due))
            control.should_training_stop |= done is False
            is_last = done is False or state.global_step >= state.max_steps
            control.should_save = not is_last and (done is True or is_due)
            progress(state.global_step, state.max_steps)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            del args, state, control, kwargs
            if rank() == 0:
                kept.note()

    return Report()
