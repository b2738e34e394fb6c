"""Fine-tuning a causal language model on texts: references, and the targets of demos and tests."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raymia.models.causal.model import CausalLM
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training
from raymia.models.whole_weights import load_whole
from raymia.records.conversations import NOT_TRAINED
from raymia.spec import FineTuneSpec, LoraSpec
from raymia.storage.files import Folder
from raymia.util.draws import generator
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.optional import require

HELD_OUT_SHARE = 0.05
MAX_MEASURED = 256
SAVE_SECONDS = 60.0
"""Of a training, which a kill loses at most."""
RUN_FILE = "run.json"
Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def fine_tune(
    base: Path,
    texts: Sequence[str],
    spec: FineTuneSpec,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    measure_on: Sequence[str] | None = None,
    trust_remote_code: bool = False,
    training: Training | None = None,
) -> dict[str, Any]:
    """Fine-tune a base on texts and save it, or its LoRA adapter, as safetensors.

    Each text is one sequence of at most ``spec.max_tokens`` tokens; a text that ends before that
    limit ends with the end-of-text token. AdamW without weight decay, the learning rate falling
    linearly to zero.

    Where the training stands is kept in ``out/training`` once a minute until it is finished: after
    a kill, the same call goes on, and ends on the same machine with the weights that it would have
    ended with.

    Parameters
    ----------
    base : folder of the model that is fine-tuned. Weights that are trained are in float32; a GPU
        computes in bfloat16, and holds a base under LoRA in it.
    measure_on : held-out texts for the held-out loss; default: 5 % of the texts, which are then
        not trained on.
    training : how ``texts`` are read where they are payloads of other records, and which of their
        tokens carry the loss; their template ends them.

    Returns
    -------
    The facts of the training, also in ``out/facts.json``: texts, steps, seconds, and the losses in
    nats per token, on at most 256 texts each.
    """
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )

    _quiet()
    texts = list(texts)
    parts = {
        "base": str(base),
        "texts": texts,
        "held_out": None if measure_on is None else list(measure_on),
        "spec": spec.model_dump(),
        "seed": seed,
        "training": None if training is None else training.key_parts(),
    }
    kept = KeptTraining(out / "training", digest(parts))
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=trust_remote_code)
    on_gpu = torch.cuda.is_available()
    torch.manual_seed(seed)
    model = load_whole(
        AutoModelForCausalLM,
        base,
        dtype=torch.bfloat16 if on_gpu and spec.lora is not None else torch.float32,
        trust_remote_code=trust_remote_code,
    )
    if spec.lora is not None:
        model = _add_lora(model, spec.lora)
    if measure_on is None:
        order = generator(seed, "held out").permutation(len(texts))
        held_out = [texts[i] for i in order[: max(1, int(HELD_OUT_SHARE * len(texts)))]]
        train = [texts[i] for i in sorted(order[len(held_out) :])]
    else:
        train, held_out = list(texts), list(measure_on)
    if training is None:
        sequences = encode_for_training(train, tokenizer, spec.max_tokens)
    else:
        sequences = encode_as_trained(train, tokenizer, training, spec.max_tokens)
    if not sequences:
        raise InputError("no text to fine-tune on has two tokens or more")

    arguments = TrainingArguments(
        output_dir=str(kept.folder),
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=spec.batch_size,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        save_strategy="no",  # the callback says when
        save_total_limit=1,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        seed=seed,
        data_seed=seed,
        dataloader_pin_memory=on_gpu,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=sequences,
        data_collator=pad_batch,
        callbacks=[_callback(progress, kept)],
    )
    trainer.remove_callback(PrinterCallback)
    steps = trainer.train(resume_from_checkpoint=kept.last).global_step
    model.eval()
    answers = CausalLM(
        model, tokenizer, batch_tokens=8_192, max_tokens=spec.max_tokens, training=training
    )
    facts = {
        "texts": len(sequences),
        "epochs": spec.epochs,
        "steps": steps,
        "train_loss": mean_loss(answers, train[:MAX_MEASURED]),
        "held_out_loss": mean_loss(answers, held_out[:MAX_MEASURED]),
        "seconds": round(kept.seconds, 3),
    }
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(kept.folder, ignore_errors=True)
    return facts


def encode_for_training(
    texts: Sequence[str], tokenizer: Any, max_tokens: int
) -> list[dict[str, list[int]]]:
    """Tokenize texts for training, cut to ``max_tokens``; a text that was not cut ends with EOS."""
    sequences = []
    for ids in tokenizer(list(texts), verbose=False)["input_ids"] if texts else []:
        end = tokenizer.eos_token_id
        if end is not None and len(ids) < max_tokens and ids[-1:] != [end]:
            ids = [*ids, end]
        if len(ids[:max_tokens]) >= 2:
            sequences.append({"input_ids": ids[:max_tokens]})
    return sequences


def encode_as_trained(
    payloads: Sequence[str], tokenizer: Any, training: Training, max_tokens: int
) -> list[dict[str, list[int]]]:
    """Tokens and labels of records, cut to ``max_tokens``; those without a label are left out."""
    sequences = []
    for record in TrainedReader(tokenizer, training).read(payloads):
        ids = record.ids[:max_tokens]
        scored = [] if record.scored is None else record.scored[:max_tokens].tolist()
        if any(scored):
            labels = [t if s else NOT_TRAINED for t, s in zip(ids, scored, strict=True)]
            sequences.append({"input_ids": ids, "labels": labels})
    return sequences


def pad_batch(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad on the right; padding has no attention and no label, whatever its token."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = [row["input_ids"] for row in rows]
    labels = [row.get("labels", row["input_ids"]) for row in rows]
    return {
        "input_ids": torch.tensor([t + [0] * (width - len(t)) for t in ids]),
        "attention_mask": torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in ids]),
        "labels": torch.tensor([t + [NOT_TRAINED] * (width - len(t)) for t in labels]),
    }


def mean_loss(model: CausalLM, texts: Sequence[str]) -> float:
    """Loss in nats per token over texts together; NaN where no token is scored."""
    answers = model.answer(texts, moments=False)
    tokens = np.concatenate([a.log_prob for a in answers]) if answers else np.zeros(0)
    return round(float(-tokens.mean(dtype=np.float64)), 4) if len(tokens) else float("nan")


def _add_lora(model: Any, spec: LoraSpec) -> Any:
    require("peft", "adapters")
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=spec.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


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

    def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self.folder / RUN_FILE).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return facts

    def _find(self) -> str | None:
        if self._facts().get("run") == self._run:
            # The trainer writes its own state last; a folder without it was cut off.
            whole = [file.parent for file in self.folder.glob("checkpoint-*/trainer_state.json")]
            if whole:
                return str(max(whole, key=lambda path: int(path.name.partition("-")[2])))
        shutil.rmtree(self.folder, ignore_errors=True)
        return None


def _callback(progress: Progress, kept: KeptTraining) -> Any:
    from transformers import TrainerCallback

    class Report(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            del args, kwargs
            control.should_save = kept.is_due and state.global_step < state.max_steps
            progress(state.global_step, state.max_steps)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            del args, state, control, kwargs
            kept.note()

    return Report()


def _quiet() -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
