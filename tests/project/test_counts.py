"""How often dear things are done, which no change may raise: counts, since seconds are noisy."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from tiny_models import passages
from torch.utils._python_dispatch import TorchDispatchMode

from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.models.causal import head
from raymia.models.causal.fold import After, TorchFold
from raymia.models.causal.model import CausalLM
from raymia.models.causal.tiles import Tile, tile_of
from raymia.models.denoisers.model import Denoiser
from raymia.models.denoisers.path import Flow
from raymia.questions.asking import images
from raymia.questions.base import Item
from raymia.questions.images import DenoisingAroundQuestion, Neighborhood
from raymia.questions.text import SUM_SCHEMA


@pytest.mark.parametrize(
    ("vocabulary", "width"), [(151_936, 4_096), (262_144, 2_304), (32_000, 768)]
)
def test_a_gpu_reads_the_output_matrix_twice_for_8192_tokens(vocabulary, width):
    for copies in (TorchFold.copies, 1):
        tile = tile_of("cuda", vocabulary, width, 2, copies=copies)
        assert -(-8_192 // tile.rows) == 2
        assert tile.columns >= 6_144, "products too narrow for a GPU"


def test_each_part_of_the_matrix_is_multiplied_once_for_the_tokens_of_a_tile(base, monkeypatch):
    """Of a matrix that is not in float32, by parts of the vocabulary."""
    asked = []

    def noting(hidden, matrix):
        asked.append((len(hidden), len(matrix)))
        return product(hidden, matrix)

    product = head.product
    monkeypatch.setattr(head, "product", noting)
    monkeypatch.setattr(head, "tile_of", lambda *_, **__: Tile(16, 800))
    model = CausalLM(base.model, base.tokenizer, batch_tokens=4_096)
    hidden = torch.randn((40, base.model.config.hidden_size))
    with torch.inference_mode():
        found = model.head.log_probs(hidden, torch.arange(40), moments=True)
    assert asked == [(rows, part) for rows in (16, 16, 8) for part in (800, 800, 448)]
    monkeypatch.undo()
    with torch.inference_mode():
        whole = model.head.log_probs(hidden, torch.arange(40), moments=True)
    np.testing.assert_allclose(found.std.numpy(), whole.std.numpy(), rtol=0, atol=1e-5)
    assert found.is_top1.tolist() == whole.is_top1.tolist()


@pytest.mark.parametrize("moments", [True, False])
def test_a_tile_is_one_launch_of_the_kernel(base, monkeypatch, moments):
    """As a GPU runs it: nothing else reads or writes logits between the products and the answer."""
    fold_triton = pytest.importorskip("raymia.models.causal.fold_triton")
    launched, kernel = [], fold_triton._kernel

    class Noting:
        def __getitem__(self, grid):
            launched.append(grid)
            return kernel[grid]

    monkeypatch.setattr(fold_triton, "_kernel", Noting())
    monkeypatch.setattr(head, "fold_for", lambda _: fold_triton.TritonFold)
    monkeypatch.setattr(head, "tile_of", lambda *_, **__: Tile(16, 800))
    model = CausalLM(base.model, base.tokenizer, batch_tokens=4_096)
    hidden = torch.randn((40, base.model.config.hidden_size))
    with torch.inference_mode():
        model.head.log_probs(hidden, torch.arange(40), moments=moments)
    assert launched == [(rows,) for rows in (16, 16, 8) for _ in range(3)]


def test_answers_take_a_fixed_number_of_operations_more_than_the_bare_pass(base):
    """Whatever is asked for: what is done beside the model is done for a whole batch."""

    class Counting(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            self.count += 1
            return function(*arguments, **(named or {}))

    model = CausalLM(base.model, base.tokenizer, batch_tokens=10**6)
    ids = torch.arange(64)[None]
    with torch.inference_mode(), Counting() as bare:
        base.model(input_ids=ids, use_cache=False)
    more = []
    for count in (4, 12):
        texts = [" ".join(passages(1)[0].split()[:12])] * count  # of one length
        with Counting() as whole:
            model.answer(texts, moments=True)
        more.append(whole.count - bare.count)
    assert more[0] == more[1], "no operation for each text"
    assert more[0] < 2 * bare.count


def test_a_batch_is_fetched_from_the_device_in_one_copy(base, monkeypatch):
    copies, fetch = [], torch.Tensor.cpu

    def noting(tensor, *given, **named):
        copies.append(tensor.shape)
        return fetch(tensor, *given, **named)

    model = CausalLM(base.model, base.tokenizer, batch_tokens=10**6)
    batches = []
    handle = base.model.register_forward_hook(lambda *_: batches.append(1))
    monkeypatch.setattr(torch.Tensor, "cpu", noting)
    answers = model.answer(passages(12), moments=True)
    handle.remove()
    assert len(copies) == len(batches)
    assert {rows for rows, _ in copies} == {4}
    assert sum(tokens for _, tokens in copies) == sum(len(a.log_prob) for a in answers)


def test_the_head_is_told_once_what_follows_it(base):
    """Loading asks the model about a few tokens, twice for this and twice for texts in a row; and
    answering asks for nothing more."""
    calls = []
    handle = base.model.register_forward_hook(lambda *_: calls.append(1))
    model = CausalLM(base.model, base.tokenizer, batch_tokens=10**6)
    loading = len(calls)
    model.answer(passages(1), moments=True)
    handle.remove()
    assert model.head.after == After()
    assert (loading, len(calls) - loading) == (4, 1)


def test_a_text_that_was_prepared_is_tokenized_once(base, monkeypatch):
    read = []
    model = CausalLM(base.model, base.tokenizer, batch_tokens=10**6)
    texts, whole = passages(6), model.reader.read
    monkeypatch.setattr(model.reader, "read", lambda given: read.extend(given) or whole(given))
    expected = model.answer(texts, moments=False)
    read.clear()
    model.prepare(texts[:4])
    found = model.answer([*texts, texts[0]], moments=False)
    assert sorted(read) == sorted(texts)
    for one, other in zip(found, [*expected, expected[0]], strict=True):
        np.testing.assert_allclose(one.log_prob, other.log_prob, rtol=0, atol=1e-5)
    read.clear()
    model.readings.forget(texts)
    model.answer(texts[:1], moments=False)
    assert read == texts[:1], "what was forgotten is read again"


def test_a_block_is_one_request_to_a_store_that_is_far(monkeypatch):
    asked, inside = Counter(), []
    for name in ("pipe_file", "exists", "ls", "info", "cat_file", "mv", "rm_file"):
        call = getattr(MemoryFileSystem, name)

        def noting(self, *given, _call=call, _name=name, **named):
            if not any("counts" in str(path) for path in given[:1]):
                return _call(self, *given, **named)  # of a thread that an earlier test left
            asked[_name] += not inside  # a call may make others
            inside.append(_name)
            try:
                return _call(self, *given, **named)
            finally:
                inside.pop()

        monkeypatch.setattr(MemoryFileSystem, name, noting)
    store = EvidenceStore("memory://counts")
    key = EvidenceKey("text.neighbors", {"model": "m", "version": 1})
    for record in ("first", "second", "third"):
        before = asked.copy()
        row = {"record_id": record, "neighbor": 1, "log_prob_sum": -1.0, "token_count": 3}
        store.commit(key, sum_table_of(row))
    assert asked - before == {"pipe_file": 1}


def sum_table_of(row):
    return pa.Table.from_pylist([row], schema=SUM_SCHEMA)


def test_noise_that_ten_strengths_share_is_drawn_once(monkeypatch):
    """Of each record at each timestep, and the network is asked in whole batches."""
    drawn, batches = [], []

    def noting(keys, count):
        drawn.extend(keys.tolist())
        return normals(keys, count)

    def network(noisy, _timesteps, _condition):
        batches.append(len(noisy))
        return noisy

    normals = images.normals
    monkeypatch.setattr(images, "normals", noting)
    hood = Neighborhood("brightness", tuple(0.9 + 0.02 * n for n in range(10)))
    model = Denoiser(network, Flow(1_000), shape=(1, 4, 4), latent_shape=(1, 4, 4), batch_images=20)
    records = [Item(f"r{n}", i, {"pixels": bytes(16)}) for n in range(4) for i in range(1, 11)]
    question = DenoisingAroundQuestion(7, hood, (0.2, 0.5, 0.8), 1, "shared")
    question.ask(model, records)
    assert len(drawn) == len(set(drawn)) == 4 * 3
    assert batches == [20] * 6
