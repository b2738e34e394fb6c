"""What the output layer holds beside a model: never the logits of a batch."""

from __future__ import annotations

import json
import sys

import head_sweep
import pytest
from forks.programs import run

PROGRAM = """
import json
from pathlib import Path
import numpy as np, torch
from transformers import GPT2Config, GPT2LMHeadModel
from raymia.models.causal.model import CausalLM

VOCABULARY, LENGTH, TEXTS = 128_000, 1_024, 4


class Tokenizer:
    def __call__(self, texts, verbose):
        rows = [np.random.default_rng(int(t)).integers(0, VOCABULARY, LENGTH) for t in texts]
        return {"input_ids": [row.tolist() for row in rows]}


def peak():
    # Of this process alone: getrusage counts the parent's memory at the fork.
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) * 1024


torch.manual_seed(0)
config = GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=1, initializer_range=0.3,
                    bos_token_id=0, eos_token_id=0)
network = GPT2LMHeadModel(config).eval()
model = CausalLM(network, Tokenizer(), batch_tokens=LENGTH * TEXTS)
texts = [str(n) for n in range(TEXTS)]
with torch.inference_mode():
    network(input_ids=torch.arange(8)[None])
before = peak()
answers = model.answer(texts, moments=True)
extra = peak() - before

ids = torch.tensor([Tokenizer()(texts[:1], False)["input_ids"][0][:200]])
with torch.inference_mode():
    logits = network(input_ids=ids).logits[0].float()
plain = logits.log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0].numpy()
gap = float(np.abs(answers[0].log_prob[:199] - plain).max())
log_p = logits[:-1].double().log_softmax(-1)  # a sum of 128k float32 is itself not so exact
mean = (log_p.exp() * log_p).sum(-1).numpy()
mean_gap = float(np.abs(answers[0].mean_log_prob[:199] - mean).max())
tokens = sum(len(a.log_prob) for a in answers)
print(json.dumps({"extra": extra, "gap": gap, "mean_gap": mean_gap, "tokens": tokens}))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_large_vocabulary_takes_little_memory_and_keeps_its_precision():
    output = run(PROGRAM)
    assert output.returncode == 0, output.stderr
    found = json.loads(output.stdout.splitlines()[-1])
    assert found["tokens"] == 4 * 1_023
    assert found["extra"] < 300e6, f"{found['extra'] / 2**20:.0f} MiB"
    assert found["gap"] < 1e-5
    assert found["mean_gap"] < 1e-5


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_heads_of_a_dozen_architectures_are_exact_and_hold_little(capsys, monkeypatch):
    """With the smallest vocabulary; the others take minutes (docs/performance.md)."""
    assert head_sweep.main(["--vocabularies", "2048"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    after = {line.split(" | ")[0].strip("| "): line.split(" | ")[1] for line in lines}
    assert [*after] == [*head_sweep.ARCHITECTURES]
    assert "logits" not in after.values(), "of all it is known what follows the layer"
    assert (after["gemma2"], after["cohere"], after["granite"]) == ("cap", "multiply", "divide")
    monkeypatch.setattr(head_sweep, "MAX_GAP", 1e-9)
    assert not head_sweep.measured("gpt2", 2_048).is_within, "the limits can be missed"
