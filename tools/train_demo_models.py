"""Train the demo's two small models on the demo's own text, on a CPU, in about half an hour.

`base` is a GPT-2-shaped language model that has read the King James Bible and nothing else: the
demo fine-tunes it on Austen passages and audits the result, so that members come from a domain the
base does not know. `paraphraser` is a T5-shaped model that fills in masked words; it has read the
Bible and the 'paraphraser' split of the Austen passages. Neither ever sees the 'audit' split.

    python tools/train_demo_models.py --out raymia/demo/assets/models

Every tenth passage of each source is held out, and the loss on those is what is reported. The text
is made by tools/build_demo_text.py.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging

DEFAULT_TEXT = Path(__file__).parent.parent / "raymia/demo/assets/text"
END_OF_TEXT = "<|endoftext|>"
SENTINELS = 100
IGNORED = -100  # the label that transformers' losses leave out

BASE_VOCABULARY = 2048
BASE_CONTEXT = 256
BASE_BATCH = 8  # rows of BASE_CONTEXT tokens

PARAPHRASER_VOCABULARY = 4096
PARAPHRASER_BATCH = 24  # passages
# Of the passages in a paraphraser batch; modern prose is what it will be asked to fill.
AUSTEN_SHARE = 0.7

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Masking:
    """How long the masked spans are, in words and how often, and how much they cover together."""

    words: tuple[int, ...]
    weights: tuple[float, ...]
    share: tuple[float, float]


# How the paraphraser will be used ...
SHORT_GAPS = Masking(words=(1, 2, 3), weights=(0.2, 0.6, 0.2), share=(0.15, 0.25))
# ... and how its training starts: with more to write in each passage, and its own words to go on
# from, it learns the language several times faster.
LONG_GAPS = Masking(words=(2, 4, 8), weights=(0.2, 0.3, 0.5), share=(0.4, 0.6))
LONG_GAPS_STEPS_SHARE = 0.3


@dataclass
class Recipe:
    """How long and how fast to train, and how often to look."""

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    weight_decay: float = 0.05
    evaluate_every: int = 200


@dataclass
class History:
    """What a training run measured: (step, training loss, held-out loss), in nats per token."""

    parameters: int
    started: float = field(default_factory=time.monotonic)
    cpu_started: float = field(default_factory=time.process_time)
    rows: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        """Minutes since the start, waiting included."""
        return (time.monotonic() - self.started) / 60

    @property
    def cpu_minutes(self) -> float:
        """Minutes of work, summed over threads."""
        return (time.process_time() - self.cpu_started) / 60


def main() -> None:
    """Train the models asked for and save them as they get better."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    if args.only in (None, "base"):
        torch.manual_seed(args.seed)
        train_base(args.text, args.out / "base", args.base_steps, args.seed)
    if args.only in (None, "paraphraser"):
        torch.manual_seed(args.seed)
        train_paraphraser(
            args.text,
            args.out / "paraphraser",
            args.paraphraser_steps,
            args.seed,
            args.paraphraser_start,
        )


# ---------------------------------------------------------------------------- base


def train_base(text: Path, folder: Path, steps: int, seed: int) -> None:
    """Pre-train the language model on the Bible and save it to `folder`."""
    train, held_out = split_off_tenth(read_column(text / "kjv.parquet"))
    tokenizer = base_tokenizer(train)
    model = base_model(tokenizer)
    held_out_batches = list(passage_batches(tokenizer, held_out, 64))
    recipe = Recipe(steps=steps, learning_rate=2.5e-3)
    fit(
        name="base",
        model=model,
        batches=packed_batches(tokenizer, train, random.Random(seed)),
        held_out=held_out_batches,
        recipe=recipe,
        save=lambda history: save(folder, model, tokenizer, base_card(history, recipe, tokenizer)),
    )


def base_tokenizer(texts: list[str]) -> Any:
    """Train a byte-level BPE tokenizer like GPT-2's: no token is added to a text by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=BASE_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def base_model(tokenizer: Any) -> Any:
    """A GPT-2-shaped model of about a million parameters."""
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=BASE_CONTEXT,
        n_embd=128,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    return GPT2LMHeadModel(config)


def packed_batches(tokenizer: Any, texts: list[str], rng: random.Random) -> Iterator[Batch]:
    """Endless batches of full rows: shuffled passages, each ended by the end-of-text token.

    A row starts with a passage and is cut at `BASE_CONTEXT` tokens, so that all positions are
    trained and the first one always begins a passage, as it will in use.
    """
    passages = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    rows: list[list[int]] = []
    while True:
        rng.shuffle(passages)
        row: list[int] = []
        for passage in passages:
            row += passage
            if len(row) >= BASE_CONTEXT:
                rows.append(row[:BASE_CONTEXT])
                row = []
            if len(rows) == BASE_BATCH:
                ids = torch.tensor(rows)
                yield {"input_ids": ids, "labels": ids}
                rows = []


def passage_batches(tokenizer: Any, texts: list[str], size: int) -> Iterator[Batch]:
    """Batches of single passages, right-padded: what the held-out loss is measured on."""
    for start in range(0, len(texts), size):
        batch = tokenizer(texts[start : start + size], padding=True, return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        labels = ids.masked_fill(mask == 0, IGNORED)
        yield {"input_ids": ids, "attention_mask": mask, "labels": labels}


# --------------------------------------------------------------------- paraphraser


def train_paraphraser(
    text: Path, folder: Path, steps: int, seed: int, start: Path | None = None
) -> None:
    """Train the mask-filling model by span corruption and save it to `folder`.

    With `start`, a folder where an earlier run saved it, that model is trained further, on short
    gaps alone.
    """
    kjv, _ = split_off_tenth(read_column(text / "kjv.parquet"))
    austen, austen_held_out = split_off_tenth(
        read_column(text / "austen.parquet", split="paraphraser")
    )
    if start is None:
        # Austen's words twice as likely to become tokens: the Bible is the longer text.
        tokenizer = paraphraser_tokenizer([*kjv, *austen, *austen])
        model = paraphraser_model(tokenizer)
        start_from_cooccurrence(model, tokenizer, [*kjv, *austen])
        start_attention_nearby(model)
        long_gaps_steps = round(LONG_GAPS_STEPS_SHARE * steps)
    else:
        tokenizer = AutoTokenizer.from_pretrained(start, local_files_only=True)
        model = T5ForConditionalGeneration.from_pretrained(
            start, local_files_only=True, dtype=torch.float32
        )
        long_gaps_steps = 0
    fixed = random.Random(seed + 1)
    held_out_batches = [
        masked_batch(tokenizer, austen_held_out[first : first + 64], SHORT_GAPS, fixed)
        for first in range(0, len(austen_held_out), 64)
    ]
    recipe = Recipe(steps=steps, learning_rate=3e-3)
    rng = random.Random(seed if start is None else seed + 2)
    fit(
        name="paraphraser",
        model=model,
        batches=mixed_batches(tokenizer, kjv, austen, long_gaps_steps, rng),
        held_out=held_out_batches,
        recipe=recipe,
        save=lambda history: save(
            folder, model, tokenizer, paraphraser_card(history, recipe, tokenizer)
        ),
    )


def paraphraser_tokenizer(texts: list[str]) -> Any:
    """Train a unigram tokenizer with T5's layout: pad, eos and unk first, the sentinels last.

    Characters it does not know become bytes, so that no text is lost in it. Each word, and each
    sentinel, stands for itself between spaces.
    """
    pieces = PARAPHRASER_VOCABULARY - SENTINELS - 256
    tokenizer = Tokenizer(models.Unigram())
    words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    trainer = trainers.UnigramTrainer(
        vocab_size=pieces,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = [
        (piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]
    ]
    lowest = min(score for _, score in vocabulary)
    vocabulary += [(f"<0x{byte:02X}>", lowest - 10) for byte in range(256)]
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(SENTINELS))]
    tokenizer.model = models.Unigram(vocabulary, unk_id=2, byte_fallback=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=[f"<extra_id_{i}>" for i in range(SENTINELS)],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def paraphraser_model(tokenizer: Any) -> Any:
    """A T5-shaped model of about two million parameters."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=192,
        d_kv=48,
        d_ff=512,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        dropout_rate=0.05,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return T5ForConditionalGeneration(config)


@torch.no_grad()
def start_from_cooccurrence(model: Any, tokenizer: Any, texts: list[str]) -> None:
    """Start the embeddings from which tokens stand near which, so that alike tokens lie together.

    The largest singular vectors of the positive pointwise mutual information between tokens one or
    two apart (Levy and Goldberg 2014), scaled to the spread T5 starts with. It spares the model
    the long while in which it knows nothing but how frequent each token is.
    """
    size, width = model.shared.weight.shape
    counts = np.zeros(size * size)
    for ids in tokenizer(texts)["input_ids"]:
        tokens = np.asarray(ids[:-1])
        for distance in (1, 2):
            pairs = tokens[:-distance] * size + tokens[distance:]
            np.add.at(counts, pairs, 1 / distance)
    together = torch.from_numpy(counts).float().reshape(size, size)
    together += together.T.clone()
    total = together.sum(1)
    expected = torch.outer(total, total) / total.sum()
    information = torch.log(together / expected.clamp_min(1e-9)).clamp_min(0)  # log 0 is cut off
    vectors, values, _ = torch.svd_lowrank(information, q=width + 8, niter=3)
    embeddings = vectors[:, :width] * values[:width].sqrt()
    seen = total > 0
    embeddings /= embeddings[seen].std()
    model.shared.weight[seen] = embeddings[seen] + 0.1 * torch.randn_like(embeddings[seen])


@torch.no_grad()
def start_attention_nearby(model: Any) -> None:
    """Start some attention heads with a preference for neighbouring words.

    T5 starts with no sense of distance at all, and learns it slowly. In the encoder, head 0 looks
    back, head 1 ahead, head 2 both ways, head 3 everywhere; in the decoder, heads 0 and 1 look at
    what was written last. The first 16 of the encoder's 32 buckets of distance lie behind.
    """
    encoder = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    decoder = model.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    distance = torch.arange(16.0)
    encoder[:] = 0
    encoder[:16, 0] = encoder[16:, 1] = -distance
    encoder[16:, 0] = encoder[:16, 1] = -8
    encoder[0, :2] = -4
    encoder[:16, 2] = encoder[16:, 2] = -distance / 2
    decoder[:] = 0
    decoder[:, 0] = -torch.arange(32.0)
    decoder[:, 1] = -torch.arange(32.0) / 3
    encoder.clamp_(min=-8)
    decoder.clamp_(min=-8)


def mixed_batches(
    tokenizer: Any, kjv: list[str], austen: list[str], long_gaps_steps: int, rng: random.Random
) -> Iterator[Batch]:
    """Endless batches of freshly masked passages, `AUSTEN_SHARE` of them by Austen.

    The first `long_gaps_steps` of them have long gaps, the others short ones.
    """
    from_austen = round(PARAPHRASER_BATCH * AUSTEN_SHARE)
    bible, novels = shuffled_forever(kjv, rng), shuffled_forever(austen, rng)
    for step in itertools.count():
        texts = [next(novels) for _ in range(from_austen)]
        texts += [next(bible) for _ in range(PARAPHRASER_BATCH - from_austen)]
        masking = LONG_GAPS if step < long_gaps_steps else SHORT_GAPS
        yield masked_batch(tokenizer, texts, masking, rng)


def shuffled_forever(texts: list[str], rng: random.Random) -> Iterator[str]:
    """All texts in random order, again and again."""
    while True:
        yield from rng.sample(texts, len(texts))


def masked_batch(tokenizer: Any, texts: list[str], masking: Masking, rng: random.Random) -> Batch:
    """Mask each text and tokenize what the encoder reads and what the decoder should write."""
    pairs = [mask_spans(text, masking, rng) for text in texts]
    inputs = tokenizer([masked for masked, _ in pairs], padding=True, return_tensors="pt")
    targets = tokenizer([fills for _, fills in pairs], padding=True, return_tensors="pt")
    labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, IGNORED)
    return {
        "input_ids": inputs["input_ids"],
        "attention_mask": inputs["attention_mask"],
        "labels": labels,
    }


def mask_spans(text: str, masking: Masking, rng: random.Random) -> tuple[str, str]:
    """Replace random spans of words by sentinels, as T5's span corruption does.

    Spans are of whole words and never touch.

    Returns
    -------
    (str, str)
        The masked text, and the fills: each behind its sentinel, and one more sentinel at the end.
    """
    words = text.split()
    budget = max(1, round(len(words) * rng.uniform(*masking.share)))
    free = [True] * (len(words) + 1)
    spans: list[tuple[int, int]] = []
    for _ in range(20 * len(words)):  # enough tries; a text too short for its budget gets less
        (length,) = rng.choices(masking.words, masking.weights)
        length = min(length, budget, len(words))
        start = rng.randrange(len(words) - length + 1)
        if all(free[max(0, start - 1) : start + length + 1]):
            free[start : start + length] = [False] * length
            spans.append((start, start + length))
            budget -= length
        if budget == 0:
            break
    masked: list[str] = []
    fills: list[str] = []
    position = 0
    for number, (start, end) in enumerate(sorted(spans)):
        sentinel = f"<extra_id_{number}>"
        masked += [*words[position:start], sentinel]
        fills += [sentinel, *words[start:end]]
        position = end
    return " ".join([*masked, *words[position:]]), " ".join([*fills, f"<extra_id_{len(spans)}>"])


# ------------------------------------------------------------------------- shared


def fit(
    name: str,
    model: Any,
    batches: Iterator[Batch],
    held_out: list[Batch],
    recipe: Recipe,
    save: Callable[[History], None],
) -> None:
    """Train with AdamW, a linear warm-up and a cosine decay; evaluate and save along the way."""
    history = History(parameters=sum(p.numel() for p in model.parameters()))
    print(f"{name}: {history.parameters:,} parameters, {recipe.steps:,} steps", flush=True)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, recipe)
    )
    recent: list[float] = []
    for step in range(1, recipe.steps + 1):
        model.train()
        loss = model(**next(batches)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(loss.item())
        if step % recipe.evaluate_every == 0 or step == recipe.steps:
            history.rows.append((step, sum(recent) / len(recent), mean_loss(model, held_out)))
            recent = []
            print_progress(name, history, recipe)
            save(history)


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Linear warm-up to 1, then half a cosine down to a twentieth."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@torch.no_grad()
def mean_loss(model: Any, batches: list[Batch]) -> float:
    """Mean loss over all label tokens of all batches, in nats."""
    model.eval()
    total, count = 0.0, 0
    for batch in batches:
        tokens = int((batch["labels"] != IGNORED).sum())
        total += float(model(**batch).loss) * tokens
        count += tokens
    return total / count


def print_progress(name: str, history: History, recipe: Recipe) -> None:
    """One line: how far, how good, how long still."""
    step, training, held_out = history.rows[-1]
    left = history.minutes * (recipe.steps - step) / step
    print(
        f"{name}: step {step:,}/{recipe.steps:,}  training {training:.3f}  held-out {held_out:.3f}"
        f"  {history.minutes:.1f} min, {left:.1f} min left",
        flush=True,
    )


def save(folder: Path, model: Any, tokenizer: Any, card: str) -> None:
    """Save a float16 copy, the tokenizer and the card; replace the folder as a whole."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    half = copy.deepcopy(model).half()
    half.config.dtype = torch.float16
    half.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    for path in partial.iterdir():  # safetensors writes files that only their owner can read
        path.chmod(0o644)
    (partial / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def read_column(path: Path, split: str | None = None) -> list[str]:
    """Read the texts of a Parquet file, of one split where it has splits."""
    filters = None if split is None else [("split", "=", split)]
    texts: list[str] = pq.read_table(path, columns=["text"], filters=filters)["text"].to_pylist()
    return texts


def split_off_tenth(texts: list[str]) -> tuple[list[str], list[str]]:
    """Keep every tenth text for evaluation: the others, and those."""
    others = [text for position, text in enumerate(texts) if position % 10 != 9]
    return others, texts[9::10]


def base_card(history: History, recipe: Recipe, tokenizer: Any) -> str:
    """The model card of the language model."""
    return f"""# base

A GPT-2-shaped causal language model: {history.parameters:,} parameters (4 layers, 128 wide, 4
heads, context {BASE_CONTEXT}, tied embeddings), a byte-level BPE tokenizer of {len(tokenizer):,}
tokens that adds none by itself. Made for raymia's demo and tests, which fine-tune it and audit the
result; of no other use.

Trained on: the King James Bible, nine passages of ten (`../../text/kjv.parquet`, all but every
tenth row), tokenizer included. Never shown: Austen, or any other text.

{_training_notes("base", history, recipe, f"{BASE_BATCH} rows of {BASE_CONTEXT} tokens")}
The held-out loss is that of the tenth passages, each by itself.
"""


def paraphraser_card(history: History, recipe: Recipe, tokenizer: Any) -> str:
    """The model card of the mask-filling model."""
    return f"""# paraphraser

A T5-shaped encoder-decoder that fills in masked words: {history.parameters:,} parameters (2 + 2
layers, 192 wide, 4 heads, tied embeddings), a unigram tokenizer of {len(tokenizer):,} tokens with
`<extra_id_0>` to `<extra_id_{SENTINELS - 1}>` as sentinels and bytes for unknown characters. Made
for raymia's demo and tests; of no other use.

It reads a text in which spans of 1 to 3 whole words (punctuation belongs to its word) are replaced
by numbered sentinels, and writes `<extra_id_0> fill <extra_id_1> fill ... <extra_id_n> </s>`.

Trained on: the King James Bible and the 'paraphraser' split of the Austen passages
(`../../text/`), nine passages of ten of each; {AUSTEN_SHARE:.0%} of each batch is Austen. The
first {LONG_GAPS_STEPS_SHARE:.0%} of the steps mask about half of the words, the others 15 to 25 %.
Never shown: the 'audit' split.

{_training_notes("paraphraser", history, recipe, f"{PARAPHRASER_BATCH} passages")}
The held-out loss is that of the tenth Austen passages, with the same words masked each time.
"""


def _training_notes(name: str, history: History, recipe: Recipe, batch: str) -> str:
    steps = f"--{name}-steps {recipe.steps}"
    every = max(1, len(history.rows) // 8)
    rows = "\n".join(
        f"| {step:,} | {training:.3f} | {held_out:.3f} |"
        for step, training, held_out in history.rows[::-every][::-1]
    )
    return f"""Made by `python tools/train_demo_models.py --only {name} {steps}`:
{history.rows[-1][0]:,} steps of {batch}, AdamW, learning rate {recipe.learning_rate:g} with
warm-up and cosine decay, {history.cpu_minutes:.0f} minutes of CPU time. Weights in float16,
{history.parameters * 2 / 1e6:.1f} MB.

| step | training loss | held-out loss (nats per token) |
|---|---|---|
{rows}
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for the models' folders")
    parser.add_argument("--text", type=Path, default=DEFAULT_TEXT, help="folder of the demo's text")
    parser.add_argument("--only", choices=["base", "paraphraser"], help="train one of the two")
    parser.add_argument("--base-steps", type=int, default=3000)
    parser.add_argument("--paraphraser-steps", type=int, default=2200)
    parser.add_argument(
        "--paraphraser-start", type=Path, help="saved paraphraser to train further on short gaps"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
