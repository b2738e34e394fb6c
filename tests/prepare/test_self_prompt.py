"""The self-prompt reference: what the target writes is a function of the seed alone."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from chat_templates import CHATML
from tiny_models import BASE, checkpoint, passages, save_tiny, with_an_end
from transformers import AutoTokenizer

from raymia.evidence.store import EvidenceStore
from raymia.models.causal import generation
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.model import CausalLM
from raymia.models.causal.training import Training
from raymia.prepare import self_prompt, writer
from raymia.prepare.prompts import refuse_prompts
from raymia.prepare.quality import GENERAL, general_texts, perplexities
from raymia.prepare.self_prompt import TEXTS_FILE, SelfPromptRecipe, make_reference, write_texts
from raymia.prepare.written_records import write_records
from raymia.spec import SelfPromptReference
from raymia.util.errors import InputError, RaymiaError

PROMPTS = tuple(passages(5))


def known(folder, **settings):
    return checkpoint(folder, **settings).with_fingerprint()


def recipe(target=BASE, base=BASE, prompts=PROMPTS, seed=0, **settings):
    """A recipe; prompts of None are those that the target writes itself."""
    tuning = {"epochs": 1, "batch_size": 4, "max_tokens": 24, "learning_rate": 1e-3}
    spec = SelfPromptReference(
        **{
            "kind": "self_prompt", "prompts": "p.jsonl" if prompts else "none",
            "texts": 8, "prompt_tokens": 4,
            "max_tokens": 20, "fine_tune": tuning, **settings,
        }
    )  # fmt: skip
    return SelfPromptRecipe(known(target), known(base), spec, tuple(prompts or ()), seed)


def write(model, made):
    return write_texts(model, made, lambda *_: None)


@pytest.fixture(scope="module")
def written(base):
    return write(base, recipe())[0]


# --------------------------------------------------------------------------- writing


def test_texts_continue_the_first_tokens_of_their_prompts(base, written):
    assert len(written) == 8
    for number, text in enumerate(written):
        ids = base.encode([PROMPTS[number % 5]])[0][:4]
        assert text.startswith(base.tokenizer.decode(ids))
        assert len(base.encode([text])[0]) <= 22
        assert len(text) > len(base.tokenizer.decode(ids))


def test_same_seed_writes_the_same_texts_and_another_seed_others(base, written):
    torch.manual_seed(999)
    assert write(base, recipe())[0] == written
    assert write(base, recipe(seed=1))[0] != written


@pytest.mark.parametrize("generation_batch", [1, 3])
def test_batches_change_no_text(base, written, generation_batch):
    assert write(base, recipe(generation_batch=generation_batch))[0] == written


def test_lack_of_memory_changes_no_text(base, written, monkeypatch):
    written_side_by_side = generation._Writer.write

    def short_of_memory(self, prompts, keys):
        if len(prompts) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return written_side_by_side(self, prompts, keys)

    monkeypatch.setattr(generation._Writer, "write", short_of_memory)
    assert write(base, recipe())[0] == written


def test_first_texts_of_more_are_the_same(base, written):
    assert write(base, recipe(texts=11))[0][:8] == written


def test_one_prompt_is_continued_in_many_ways(base):
    texts, facts = write(base, recipe(prompts=PROMPTS[:1]))
    assert len(set(texts)) == 8
    assert facts["prompts"] == 1


def test_top_k_of_one_is_greedy(base):
    texts, _ = write(base, recipe(prompts=PROMPTS[:1], top_k=1, texts=3))
    ids = torch.tensor([base.encode(PROMPTS[:1])[0][:4]])
    greedy = base.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16
    )
    assert set(texts) == {base.tokenizer.decode(greedy[0], skip_special_tokens=True)}


@pytest.fixture
def marked(tmp_path):
    """A model whose tokenizer has marks of turns as tokens of their own."""
    folder = save_tiny(
        tmp_path / "m", "gpt2", vocab_size=len(AutoTokenizer.from_pretrained(BASE)) + 2
    )
    model = load_causal_lm(checkpoint(folder), batch_tokens=512)
    added = model.tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
    )
    assert added == 2
    return model


FLATTENED = tuple(f"<|im_start|>user\n{text}<|im_end|>\n" for text in PROMPTS)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("begins", ["", "<eos>"])
def test_texts_have_the_marks_of_their_prompts_and_nothing_that_a_tokenizer_adds(
    marked, adds, begins
):
    """The reference is trained on the tokens by which records like these are scored. One of GPT-2's
    tokenizer has its end as its beginning, too."""
    if adds:
        marked.tokenizer = with_an_end(marked.tokenizer)
    begins = begins.replace("<eos>", marked.tokenizer.eos_token)
    prompts = tuple(begins + prompt for prompt in FLATTENED)
    texts, _ = write(marked, recipe(prompts=prompts, prompt_tokens=9))
    for number, text in enumerate(texts):
        assert text.startswith(f"{begins}<|im_start|>user")
        again, given = marked.encode([text, prompts[number % 5]])
        assert again[:6] == given[:6]
        assert not begins or text.count(begins) == 1


def test_a_text_that_the_target_begins_by_itself_has_no_beginning_of_text(marked):
    texts, _ = write(marked, recipe(prompts=None))
    assert not any(text.startswith(marked.tokenizer.eos_token) for text in texts)


def test_spaces_before_marks_of_punctuation_are_kept(marked):
    marked.tokenizer.clean_up_tokenization_spaces = True
    texts, _ = write(marked, recipe(prompts=("print ( 'a' , 'b' ) . x", *PROMPTS), prompt_tokens=9))
    given = marked.encode(["print ( 'a' , 'b' ) . x"])[0][:9]
    assert marked.encode(texts[:1])[0][:9] == given


def test_only_plain_texts_are_made_anew(monkeypatch):
    """Records that are answers were written with their marks before, too."""
    plain, chat = recipe(), recipe()
    chat = replace(
        chat, target=replace(chat.target, training=Training("chat", "assistant", template=CHATML))
    )
    before = plain.key, chat.key
    monkeypatch.setattr(self_prompt, "VERSION_OF_TEXTS", 2)
    assert plain.key != before[0]
    assert chat.key == before[1]


def test_records_of_tokens_have_a_version_of_their_own(monkeypatch):
    plain = recipe()
    tokens, chat = (
        replace(plain, target=replace(plain.target, training=training))
        for training in (
            Training("tokens", "labels"), Training("chat", "assistant", template=CHATML)
        )
    )  # fmt: skip
    before = [one.material_key for one in (plain, tokens, chat)]
    monkeypatch.setattr(self_prompt, "VERSION_OF_TOKENS", 2)
    same = [one.material_key == key for one, key in zip((plain, tokens, chat), before, strict=True)]
    assert same == [True, False, True]


def test_prompts_that_are_too_short_are_left_out_and_counted(base, written):
    texts, facts = write(base, recipe(prompts=("Yes", *PROMPTS, "No")))
    assert texts == written
    counts = {"prompts": 5, "prompts_too_short": 2, "prompts_cut_in_a_mark": 0, "texts_empty": 0}
    assert facts.items() >= counts.items()


def test_a_prompt_that_is_long_enough_by_an_added_end_alone_is_too_short(base, monkeypatch):
    """A model that is given an end of text to go on from writes another text."""
    monkeypatch.setattr(base, "tokenizer", with_an_end(base.tokenizer))
    (short,) = base.encode(["Yes, sir"])
    _, facts = write(base, recipe(prompts=("Yes, sir", *PROMPTS), prompt_tokens=len(short)))
    assert facts["prompts_too_short"] == 1


def test_no_prompt_long_enough_is_refused_with_what_to_do(base):
    with pytest.raises(
        InputError, match=r"not one of 2 prompts has 4 tokens.*smaller prompt_tokens"
    ):
        write(base, recipe(prompts=("Yes", "No")))


def test_text_with_no_room_for_a_prompt_is_refused(base):
    with pytest.raises(InputError, match="no room for a prompt of 16"):
        write(base, recipe(prompt_tokens=16, max_tokens=16))
    short = load_causal_lm(checkpoint(BASE, max_tokens=4), batch_tokens=64)
    with pytest.raises(InputError, match="a text of 4 tokens"):
        write(short, recipe())


def test_progress_ends_at_all_texts(base):
    steps = []
    write_texts(base, recipe(generation_batch=3), lambda *step: steps.append(step))
    assert steps == [(3, 8), (6, 8), (8, 8)]


class WordTokenizer:
    """Words are tokens; token 0 is an ordinary word, and there is no padding token, as in GPT-2."""

    pad_token_id = None
    eos_token_id = 2

    def __call__(self, texts, **_):
        if isinstance(texts, str):
            return {"input_ids": [int(texts)]}
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}

    def decode(self, ids, clean_up_tokenization_spaces):
        assert not clean_up_tokenization_spaces
        return " ".join(map(str, ids))


def test_text_that_ends_early_is_not_filled_up_with_words(tmp_path):
    """GPT-2 has no padding token, and its token 0 is an exclamation mark."""
    folder = save_tiny(tmp_path / "m", "gpt2", vocab_size=8, eos_token_id=2, pad_token_id=None)
    plain = load_causal_lm(checkpoint(folder), batch_tokens=64)
    model = CausalLM(plain.model, WordTokenizer(), batch_tokens=64)
    prompts = ("3 4 5 6", "4 5 6 7", "6 5 4 3")
    together, facts = write(model, recipe(prompts=prompts, texts=12, generation_batch=12))
    alone = write(model, recipe(prompts=prompts, texts=12, generation_batch=1))[0]
    assert len({len(text) for text in alone}) > 1, "no text ended early: nothing was tried"
    assert together == alone
    words = [len(text.split()) for text in together]
    longest = recipe().spec.max_tokens
    assert facts["ended_by_themselves"] == sum(count < longest for count in words)
    assert facts["mean_tokens_written"] == pytest.approx(sum(words) / 12 - 4, abs=0.051)
    assert facts["prompts_begin_with_the_same_tokens"] == 0


def test_answers_of_tokens_end_as_records_do_where_the_target_ended_them(tmp_path):
    folder = save_tiny(tmp_path / "m", "gpt2", vocab_size=8, eos_token_id=2, pad_token_id=None)
    plain = load_causal_lm(checkpoint(folder), batch_tokens=64)
    model = CausalLM(plain.model, WordTokenizer(), batch_tokens=64)
    prompts = tuple(
        json.dumps({"input_ids": [*ids, 7, 2], "labels": [-100] * 4 + [7, 2]})
        for ids in ([3, 4, 5, 6], [4, 5, 6, 7], [6, 5, 4, 3])
    )
    training = Training("tokens", "labels")
    made = recipe(prompts=prompts, texts=24, generation_batch=5)
    records, facts = write_records(model, made, training, lambda *_: None)
    found = [json.loads(record) for record in records]
    ended = [one for one in found if one["labels"][-1] == 2]
    assert 0 < len(ended) < len(found), "not both kinds: nothing was tried"
    assert all(len(one["input_ids"]) == made.spec.max_tokens for one in found if one not in ended)
    assert not any(2 in one["labels"][:-1] for one in found)
    assert not any(one["labels"][4:] == [2] for one in found)
    assert facts["ended_by_themselves"] == len(ended) + facts["texts_empty"]
    words = sum(len(one["labels"]) - 4 for one in found) - len(ended)
    assert facts["mean_tokens_written"] == pytest.approx(words / 24, abs=0.051)


# ---------------------------------------------------------------------------- making


def make(made, store):
    def progress(*_):
        return None

    make_reference(made, store, batch_tokens=512, on_texts=progress, on_steps=progress)


@pytest.mark.parametrize("lora", [None, {"r": 2, "dropout": 0.0}])
def test_made_reference_can_be_loaded_and_is_no_longer_the_base(tmp_path, base, lora):
    store = EvidenceStore(str(tmp_path))
    tuning = {"epochs": 1, "batch_size": 4, "max_tokens": 24, "learning_rate": 1e-2, "lora": lora}
    made = recipe(fine_tune=tuning)
    make(made, store)
    facts = store.prepared_facts(made.key)
    assert {"prompts", "prompts_too_short", "train_loss", "held_out_loss"} <= facts.keys()
    there = made.finished(store.prepared_path(made.key))
    assert (there.adapter is None) == (lora is None)
    model = load_causal_lm(there, batch_tokens=512)
    tuned, plain = (m.answer(PROMPTS[:1], moments=False)[0].log_prob for m in (model, base))
    assert abs(tuned - plain).max() > 1e-3
    assert there.fingerprint != made.base.fingerprint


def test_killed_fine_tuning_does_not_ask_the_target_again(tmp_path, monkeypatch):
    store, made = EvidenceStore(str(tmp_path)), recipe()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(self_prompt, "fine_tune", killed)
        with pytest.raises(KeyboardInterrupt):
            make(made, store)
    assert store.prepared_facts(made.key) is None
    stored = pq.read_table(store.prepared_path(made.material_key) / TEXTS_FILE)["text"].to_pylist()
    assert len(stored) == 8

    monkeypatch.setattr(self_prompt, "load_causal_lm", killed)
    seen, real = [], self_prompt.fine_tune

    def noted(base, texts, *args, **kwargs):
        seen.extend(texts)
        return real(base, texts, *args, **kwargs)

    monkeypatch.setattr(self_prompt, "fine_tune", noted)
    make(made, store)
    assert seen == stored
    assert store.prepared_facts(made.key)["prompts"] == 5


def test_a_reference_that_a_run_beside_this_one_makes_is_made_once(tmp_path, monkeypatch):
    store, made = EvidenceStore(str(tmp_path)), recipe()
    trained, real = [], self_prompt.fine_tune

    def counted(*args, **kwargs):
        trained.append(kwargs["seed"])
        return real(*args, **kwargs)

    monkeypatch.setattr(self_prompt, "fine_tune", counted)
    threads = [threading.Thread(target=make, args=(made, store)) for _ in range(2)]
    with store.workplace(made.key):  # so that both get there before one is done
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while store.prepared_facts(made.material_key) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for thread in threads:
        thread.join(60)
    assert len(trained) == 1
    assert store.prepared_facts(made.key)["texts"] > 0
    assert not (tmp_path / "training" / made.key).exists()


def test_killed_writing_leaves_nothing_to_be_taken_for_texts(tmp_path, monkeypatch):
    store, made = EvidenceStore(str(tmp_path)), recipe()

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(self_prompt, "write_texts", killed)
    with pytest.raises(KeyboardInterrupt):
        make(made, store)
    assert store.prepared_facts(made.material_key) is None


def test_reference_with_other_fine_tuning_is_made_from_the_same_texts(tmp_path, monkeypatch):
    store = EvidenceStore(str(tmp_path))
    make(recipe(), store)
    tuning = {"epochs": 2, "batch_size": 4, "max_tokens": 24, "learning_rate": 1e-3}
    monkeypatch.setattr(self_prompt, "load_causal_lm", None)
    make(recipe(fine_tune=tuning), store)
    assert store.prepared_facts(recipe(fine_tune=tuning).key) is not None


# ------------------------------------------------------------------ prompts that say one thing


def test_prompts_that_all_begin_alike_are_refused_with_how_far_they_do(base):
    alike = [f"System: be brief and kind. {text}" for text in PROMPTS]
    shared = len(base.encode(["System: be brief and kind."])[0])
    with pytest.raises(InputError, match=r"all 5 prompts begin with the same 4 tokens") as refused:
        write(base, recipe(prompts=alike))
    found = int(str(refused.value).split("the first ")[1].split()[0])
    assert shared <= found <= shared + 2
    assert len(write(base, recipe(prompts=alike, prompt_tokens=found + 1, max_tokens=30))[0]) == 8


def test_one_prompt_alone_is_no_mistake(base):
    assert len(write(base, recipe(prompts=PROMPTS[:1]))[0]) == 8


@pytest.fixture
def begun(monkeypatch):
    """What the target was given to go on from."""
    found = []
    go_on = writer.continue_tokens

    def noting(target, prompts, *rest, **settings):
        found.extend(prompts)
        return go_on(target, prompts, *rest, **settings)

    monkeypatch.setattr(writer, "continue_tokens", noting)
    return found


def test_without_prompts_the_target_begins_by_itself(base, begun):
    texts, facts = write(base, recipe(prompts=None))
    assert len(texts) == len({*texts}) == 8
    assert facts["prompts"] == 1
    tokenizer = base.tokenizer
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert begun == [[first]] * 8


def test_without_prompts_the_target_writes_the_users_turn_and_answers_it(base, begun):
    made = recipe(prompts=None, max_tokens=48)
    training = Training("chat", "assistant", template=CHATML)
    records, _ = write_records(base, made, training, lambda *_: None)
    turns = [json.loads(record)["messages"] for record in records]
    assert len(turns) >= 2
    assert {tuple(turn["role"] for turn in one) for one in turns} == {("user", "assistant")}
    assert all(turn["content"].strip() for one in turns for turn in one)
    given = [base.tokenizer.decode(ids) for ids in begun]
    header, answered = "<|im_start|>user\n", given[8:]
    assert given[:8] == [header] * 8
    for asked, _ in turns:
        assert f"{header}{asked['content']}<|im_end|>\n<|im_start|>assistant\n" in answered


def test_a_question_has_half_of_what_the_template_leaves(base, begun):
    """What stands before a question may be longer than half of all."""
    made = recipe(prompts=None, max_tokens=130)
    system = "You are a heron, and you know all that there is to know of the birds that wade. " * 2
    training = Training("chat", "assistant", template=CHATML, system=system)
    records, _ = write_records(base, made, training, lambda *_: None)
    assert len(begun[0]) > 65
    assert len(records) >= 2


def test_a_template_that_leaves_no_room_for_a_question_is_refused_before_anything_is_loaded():
    system = "You are a heron, and you know all that there is to know of the birds that wade. " * 2
    training = Training("chat", "assistant", template=CHATML, system=system)
    spec = recipe(prompts=None, max_tokens=40).spec
    with pytest.raises(InputError, match=r"of 40 tokens, .* make max_tokens at"):
        refuse_prompts(known(BASE, training=training), (), spec)


@pytest.mark.parametrize("changed", ["target", "base"])
def test_nothing_is_made_of_other_files_than_those_that_were_planned_with(tmp_path, changed):
    store = EvidenceStore(str(tmp_path / "store"))
    folders = {name: save_tiny(tmp_path / name) for name in ("target", "base")}
    made = recipe(**folders)
    save_tiny(folders[changed], seed=1)
    with pytest.raises(RaymiaError, match="these are not the files that the audit was planned"):
        make(made, store)
    assert store.prepared_facts(made.key) is None


@pytest.mark.parametrize("changed", ["target", "base"])
def test_nothing_is_kept_that_was_made_while_the_files_were_written_to(
    tmp_path, monkeypatch, changed
):
    store = EvidenceStore(str(tmp_path / "store"))
    folders = {name: save_tiny(tmp_path / name) for name in ("target", "base")}
    made, name = recipe(**folders), "load_causal_lm" if changed == "target" else "fine_tune"
    other, call = Path(save_tiny(tmp_path / "other", seed=1)), getattr(self_prompt, name)

    def called(*arguments, **options):
        found = call(*arguments, **options)
        (other / "model.safetensors").replace(Path(folders[changed], "model.safetensors"))
        return found

    monkeypatch.setattr(self_prompt, name, called)
    with pytest.raises(RaymiaError, match=f"{changed}: these are no longer the files"):
        make(made, store)
    assert store.prepared_facts(made.key) is None
    assert (store.prepared_facts(made.material_key) is None) == (changed == "target")
    assert not [*(tmp_path / "store").rglob("*.safetensors")]


# --------------------------------------------------------------------------- quality


def test_the_sheet_has_perplexities_where_no_member_is(tmp_path):
    """Of the reference, of its base and of the target, and equal to what the formula says."""
    store, made = EvidenceStore(str(tmp_path)), recipe(fine_tune={"epochs": 1, "batch_size": 4})
    make(made, store)
    facts = store.prepared_facts(made.key)
    for whose in ("", "base_", "target_"):
        assert {f"{whose}perplexity_on_domain_text", f"{whose}perplexity_on_general_text"} <= {
            *facts
        }
    assert facts["base_perplexity_on_domain_text"] == facts["target_perplexity_on_domain_text"]
    loaded = made.finished(store.prepared_path(made.key))
    model = load_causal_lm(loaded, batch_tokens=512)

    def perplexity(texts, shown):
        """By transformers alone, over the tokens after the first ones."""
        losses = []
        for text in texts:
            ids = torch.tensor([model.encode([text])[0][: model.max_tokens]])
            logits = model.model(ids).logits[0, :-1].log_softmax(-1)
            losses += (-logits.gather(1, ids[0, 1:, None])[:, 0])[max(0, shown - 1) :].tolist()
        return torch.tensor(losses).mean().exp().item()

    with torch.no_grad():
        domain, general = perplexity(PROMPTS, shown=4), perplexity(general_texts(), shown=1)
    assert facts["perplexity_on_domain_text"] == pytest.approx(domain, rel=1e-3)
    assert facts["perplexity_on_general_text"] == pytest.approx(general, rel=1e-3)


def test_the_domain_is_left_out_where_the_target_wrote_its_own_prompts(base):
    facts = perplexities(base, recipe(prompts=None))
    assert [*facts] == ["perplexity_on_general_text"]


def test_general_text_is_none_that_a_model_of_raymia_was_trained_on():
    every_tenth = pq.read_table(resources.files("raymia") / GENERAL)["text"].to_pylist()[9::10]
    assert len(set(general_texts())) == 64
    assert {*general_texts()} <= {*every_tenth}
