"""Batches that are run side by side are answered as they are one after another."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref

import numpy as np
import peft
import pytest
import torch
import transformers
from architecture_sweep import ARCHITECTURES, small_config
from hypothesis import given, settings
from hypothesis import strategies as st
from small_autoencoders import (
    OBJECTIVES,
    draws_of,
    pictures,
    small_autoencoder,
    small_kl_autoencoder,
)
from small_image_models import save_pipeline
from tiny_models import BASE, checkpoint, passages, save_adapter, save_tiny

from raymia.models import lanes
from raymia.models.autoencoders.model import Autoencoder
from raymia.models.batching import even_batches, run_batched
from raymia.models.causal.beginnings import answer_alike
from raymia.models.causal.conditional import answer_after, prefix_tokens
from raymia.models.causal.family import CausalLMFamily, load_causal_lm
from raymia.models.causal.model import CausalLM
from raymia.models.causal.perturbed import NoiseRequest, answer_perturbed
from raymia.models.causal.reading import Rendered
from raymia.models.denoisers.model import load_denoiser
from raymia.models.image_source import resolve_image_model
from raymia.models.lanes import lanes_here, run_in_lanes, sharing_weights
from raymia.questions.base import Item
from raymia.questions.images import DenoisingQuestion
from raymia.spec import ModelSpec
from raymia.util.errors import RaymiaError

pytestmark = pytest.mark.filterwarnings("ignore")

ROUNDING = 1e-5
TEXTS = [" ".join(text.split()[: 10 + 7 * (n % 5)]) for n, text in enumerate(passages(60))]


class threads:  # noqa: N801
    """As many threads of torch while the block runs."""

    def __init__(self, count):
        self.count = count

    def __enter__(self):
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.count)

    def __exit__(self, *_):
        torch.set_num_threads(self.before)


def alone_and_side_by_side(ask, lanes_at_once=4):
    """What is answered by one thread, and by several batches at once."""
    with threads(1):
        alone = ask()
    with threads(lanes_at_once):
        return alone, ask()


def assert_same(answers, others, tolerance=ROUNDING):
    assert len(answers) == len(others)
    for answer, other in zip(answers, others, strict=True):
        np.testing.assert_allclose(answer.log_prob, other.log_prob, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="module")
def model(tiny_llama):
    return load_causal_lm(checkpoint(tiny_llama), batch_tokens=4_096)


@pytest.fixture
def ran_in(monkeypatch):
    """The threads in which forward passes of causal models ran."""
    seen = set()
    forward = CausalLM._forward

    def noted(*args):
        seen.add(threading.current_thread().name)
        return forward(*args)

    monkeypatch.setattr(CausalLM, "_forward", noted)
    return seen


# ------------------------------------------------------------------ answers


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_every_architecture_says_the_same_side_by_side(kind, tokenizer, ran_in):
    torch.manual_seed(0)
    body = transformers.AutoModelForCausalLM.from_config(small_config(kind)).eval()
    asked = CausalLM(body, tokenizer, batch_tokens=1_024)
    draws = random.Random(0)
    read = [
        Rendered([draws.randrange(4, 2_000) for _ in range(draws.randrange(1, 120))])
        for _ in range(40)
    ]
    alone, found = alone_and_side_by_side(lambda: asked.answer_read(read, moments=True))
    assert_same(found, alone)
    for answer, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(answer.std_log_prob, other.std_log_prob, rtol=0, atol=ROUNDING)
        assert (answer.is_top1 == other.is_top1).mean() > 0.99 or len(answer.is_top1) < 2
    assert len({name for name in ran_in if name.startswith("lane")}) > 1


def test_a_model_whose_frequencies_change_with_the_length_does_so_for_each_batch(tmp_path):
    """As it writes them into its modules, one batch would read what another needs."""
    rope = {
        "rope_type": "longrope", "rope_theta": 10_000.0, "factor": 3.2, "short_factor": [1.0] * 8,
        "long_factor": [2.0 + n for n in range(8)], "original_max_position_embeddings": 40,
    }  # fmt: skip
    save_tiny(tmp_path, "llama", rope_parameters=rope, max_position_embeddings=128)
    asked = load_causal_lm(checkpoint(tmp_path), batch_tokens=4_096)
    texts = [" ".join(t.split()[: 12 if n % 2 else 40]) for n, t in enumerate(passages(200))]
    for _ in range(3):
        assert_same(*alone_and_side_by_side(lambda: asked.answer(texts, moments=False)))


def test_noise_prefixes_and_neighbors_say_the_same_side_by_side(model):
    requests = [NoiseRequest(text, number, 0.1) for number, text in enumerate(TEXTS)]
    assert_same(*alone_and_side_by_side(lambda: answer_perturbed(model, requests)))
    prefix = prefix_tokens(model, TEXTS[:2])
    assert_same(*alone_and_side_by_side(lambda: answer_after(model, prefix, TEXTS)))
    neighbors = [f"{text} {end}" for text in TEXTS for end in ("She smiled.", "He did not.")]
    groups = [n // 2 for n in range(len(neighbors))]
    assert_same(*alone_and_side_by_side(lambda: answer_alike(model, neighbors, groups)))


def test_adapters_on_one_base_keep_their_own_lanes(tmp_path, tiny_llama):
    kinds = ({}, {"target_modules": ["up_proj"]}, {"use_dora": True})
    adapters = [None] + [
        str(save_adapter(tmp_path / str(n), tiny_llama, seed=n, **each))
        for n, each in enumerate(kinds)
    ]
    found = [checkpoint(tiny_llama, adapter=adapter) for adapter in adapters]
    family = CausalLMFamily(found, [4_096] * len(found))
    with threads(1):
        alone = [family.use(n).answer(TEXTS, moments=False) for n in range(len(found))]
    with threads(3):
        for number in (0, 1, 2, 3, 1, 0, 3, 2):
            assert_same(family.use(number).answer(TEXTS, moments=False), alone[number])
    assert len(family._switch.twins.made) == 3, "adapters do not share them"
    assert len({answers[0].log_prob.tobytes() for answers in alone}) == len(found)


@pytest.mark.parametrize("kind", ["ddpm", "ldm", "stable", "dit"])
def test_pipelines_of_images_say_the_same_side_by_side(kind, tmp_path):
    save_pipeline(kind, tmp_path)
    found = resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0]", on_gpu=False)
    asked = load_denoiser(found, batch_images=8)
    draws = np.random.default_rng(0)
    items = [
        Item(f"r{n}", 0, {"pixels": pixels.tobytes(), "caption": f"number {n % 7}"})
        for n, pixels in enumerate(draws.integers(0, 256, (12, *found.shape), np.uint8))
    ]
    question = DenoisingQuestion(0, None, (10, 200, 700), 2, "shared")
    alone, together = alone_and_side_by_side(lambda: question.ask(asked, items))
    for name in ("l2", "l4"):
        one, other = (np.stack(table[name].to_pylist()) for table in (alone, together))
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("objective", [*OBJECTIVES, "kl"])
def test_autoencoders_say_the_same_side_by_side(objective):
    network = small_kl_autoencoder() if objective == "kl" else small_autoencoder(objective)
    asked = Autoencoder(network, batch_images=8)
    images, noise = pictures(11, asked.shape), draws_of(11, 3, asked.noise_size)

    def ask():
        return [*asked.terms(images, noise).values(), asked.decode(asked.encode(images))]

    alone, together = alone_and_side_by_side(ask)
    assert len(asked._twins.made) == 4
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ twins


def test_twins_share_weights_and_nothing_else(model):
    twin = sharing_weights(model.model)
    for (name, weight), (other, own) in zip(
        twin.named_parameters(), model.model.named_parameters(), strict=True
    ):
        assert name == other
        assert weight is own
    modules = {id(part) for part in model.model.modules()}
    assert not modules & {id(part) for part in twin.modules()}
    assert twin.config is not model.model.config
    assert twin.get_output_embeddings().weight is model.model.get_output_embeddings().weight


def bare(body):
    return body


def quantized(body):
    body.hf_quantizer = object()
    return body


def with_hooks(body):
    next(body.children())._hf_hook = object()
    return body


def of_whole_numbers(body):
    body.register_parameter(
        "packed", torch.nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
    )
    return body


def of_its_own_code(body):
    body.__class__ = type("Own", (type(body),), {"__module__": "transformers_modules.own"})
    return body


def with_an_adapter(body):
    lora = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(body, lora).eval()


def of_its_own_code_with_an_adapter(body):
    return with_an_adapter(of_its_own_code(body))


def with_large_buffers(body):
    body.register_buffer("table", torch.zeros(lanes.MAX_COPIED_BYTES))
    return body


def that_cannot_be_copied(body):
    body.lock = threading.Lock()
    return body


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (bare, True), (quantized, False), (with_hooks, False), (of_whole_numbers, False),
        (of_its_own_code, False), (with_an_adapter, True),
        (of_its_own_code_with_an_adapter, False), (with_large_buffers, False),
        (that_cannot_be_copied, False),
    ],
)  # fmt: skip
def test_what_may_not_be_shared_runs_one_batch_after_another(
    changed, expected, tokenizer, tiny_llama, ran_in
):
    body = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    asked = CausalLM(changed(body), tokenizer, batch_tokens=4_096)
    assert_same(*alone_and_side_by_side(lambda: asked.answer(TEXTS, moments=False)))
    assert any(name.startswith("lane") for name in ran_in) == expected


# ------------------------------------------------------------------ batches


@pytest.mark.parametrize(
    ("count", "expected"), [(1, (1, 1)), (2, (2, 1)), (4, (4, 1)), (8, (4, 2)), (13, (3, 4))]
)
def test_lanes_take_all_threads_that_they_can_part_evenly(count, expected):
    with threads(count):
        assert lanes_here() == expected


def test_each_lane_computes_with_its_share_of_the_threads():
    with threads(4):
        both = threading.Barrier(4, timeout=60)
        found, failure = run_in_lanes(
            [lambda _: (both.wait(), torch.get_num_threads())] * 4, [[n] for n in range(4)]
        )
        assert torch.get_num_threads() == 4
    assert failure is None
    assert [threads for _, (_, threads) in found] == [1] * 4
    late = []
    thread = threading.Thread(target=lambda: late.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert late != [0]


def test_lanes_share_the_budget_and_the_work():
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        return batch

    with threads(4):
        found = run_batched([10] * 100, run, run, run, run, budget=400)
        assert found == list(range(100))
        assert max(sizes) * 10 <= 100
        assert len(sizes) == 12
        sizes.clear()
        run_batched([10] * 12, run, run, run, run, budget=4_000, min_tokens=60)
        assert sizes == [6, 6]


def test_a_batch_that_does_not_fit_is_halved_and_the_others_are_kept():
    answered = []

    def run(batch):
        if len(batch) > 3:
            raise MemoryError
        answered.extend(batch)
        return [f"#{n}" for n in batch]

    with threads(3):
        found = run_batched([1] * 50, run, run, run, budget=60)
    assert found == [f"#{n}" for n in range(50)]
    assert sorted(answered) == list(range(50))


def test_what_a_batch_held_that_did_not_fit_is_let_go_before_the_next():
    class Held:
        """As a batch's hidden states."""

    seen = []

    def run(batch):
        assert all(one() is None for one in seen)
        held = Held()
        if len(batch) > 2:
            seen.append(weakref.ref(held))
            raise MemoryError
        return batch

    gc.disable()
    try:
        assert run_batched([1] * 9, run, budget=20) == list(range(9))
    finally:
        gc.enable()
    assert seen


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(100, 1_000),
    st.integers(2, 4),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_batches_side_by_side_never_have_more_than_the_budget(lengths, budget, lanes_at_once):
    running, lock = [], threading.Lock()

    def run(batch):
        tokens = len(batch) * max(lengths[i] for i in batch)
        with lock:
            running.append(tokens)
            assert sum(running) <= budget or len(running) == 1
        time.sleep(0.001)
        with lock:
            running.remove(tokens)
        return batch

    with threads(lanes_at_once):
        found = run_batched(lengths, *[run] * lanes_at_once, budget=budget)
    assert found == list(range(len(lengths)))


def test_nothing_is_run_for_ever_where_a_budget_is_less_than_the_lanes():
    with threads(4):
        assert run_batched([0, 0, 0], *[list] * 4, budget=2) == [0, 1, 2]


def test_a_sequence_that_does_not_fit_beside_others_is_tried_alone():
    running, lock = [], threading.Lock()

    def run(batch):
        with lock:
            running.append(batch)
            crowded = len(running) > 1
        time.sleep(0.01)
        with lock:
            running.remove(batch)
        if crowded:
            raise MemoryError
        return batch

    with threads(4):
        assert run_batched([5] * 12, run, run, run, run, budget=40, max_rows=1) == list(range(12))


def test_a_model_that_nobody_holds_is_let_go_at_once(tokenizer, tiny_llama):
    """Before another is loaded in its place."""
    body = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    asked = CausalLM(body, tokenizer, batch_tokens=4_096)
    with threads(2):
        asked.answer(TEXTS, moments=False)
    held = weakref.ref(asked)
    gc.collect()
    gc.disable()
    try:
        del body, asked
        assert held() is None
    finally:
        gc.enable()


def test_one_sequence_that_does_not_fit_is_an_error():
    def run(_):
        raise torch.OutOfMemoryError("out of memory")

    with threads(2), pytest.raises(RaymiaError, match="one sequence of 7 tokens"):
        run_batched([7] * 8, run, run, budget=28)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=80), st.integers(400, 2_000))
def test_even_batches_fit_and_are_as_large_as_each_other(lengths, budget):
    batches = list(even_batches(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    tokens = [sum(lengths[i] for i in batch) for batch in batches]
    assert max(tokens) <= budget
    assert max(tokens) - min(tokens) <= max(lengths)
    assert len(batches) <= max(1, -(-sum(lengths) // (budget - max(lengths) + 1)))


def test_texts_in_rows_are_parted_evenly_and_others_by_length():
    draws = random.Random(0)
    lengths, tokens, batch_sides = [draws.randrange(20, 80) for _ in range(32)], [], []

    def run(batch):
        tokens.append(sum(lengths[i] for i in batch))
        batch_sides.append({lengths[i] > 50 for i in batch})
        return batch

    with threads(2):
        run_batched(lengths, run, run, budget=8_192, min_tokens=256, is_padded=False)
        assert len(tokens) == 2
        assert abs(tokens[0] - tokens[1]) < 20
        batch_sides.clear()
        run_batched(lengths, run, run, budget=8_192, min_tokens=256, is_padded=False, apart=50)
        assert all(len(sides) == 1 for sides in batch_sides)


def test_an_error_of_a_lane_is_raised_and_ends_the_others():
    begun, failing = [], threading.Event()

    def run(batch):
        begun.append(batch)
        if 0 in batch:
            failing.set()
            raise ValueError("of this batch")
        assert failing.wait(60)
        return batch

    with threads(2), pytest.raises(ValueError, match="of this batch"):
        run_batched([5] * 40, run, run, budget=20, max_rows=1)
    assert len(begun) <= 4


def test_an_interrupted_thread_lets_lanes_end(monkeypatch):
    begun = []

    class Interrupted:
        def result(self):
            raise KeyboardInterrupt

    class Threads:
        def submit(self, run_on, run):
            self.waiting = (run_on, run)
            return Interrupted()

    pool = Threads()
    monkeypatch.setattr(lanes, "_threads", lambda *_: pool)
    with threads(2):
        with pytest.raises(KeyboardInterrupt):
            run_in_lanes([begun.append] * 2, [[1], [2]])
        run_on, run = pool.waiting
        run_on(run)
    assert not begun


def test_a_lane_takes_its_share_of_the_output_layers_memory(model):
    whole = model.head._tile(torch.zeros(1, 1), 1)
    share = model.head.of_twin(sharing_weights(model.model), 4)._tile(torch.zeros(1, 1), 1)
    assert 4 * share.rows == pytest.approx(whole.rows, abs=4)


def test_settings_of_batches_stay_those_of_the_model(model):
    with threads(4):
        twin, *others = model._lanes()
    assert len(others) == 3
    assert (twin.batch_tokens, model.batch_tokens) == (1_024, 4_096)
    assert (twin.packs, twin.apart, twin.max_tokens) == (model.packs, model.apart, model.max_tokens)
