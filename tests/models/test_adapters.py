"""PEFT methods from folders, and many of them on one base."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import BASE, checkpoint, fingerprint, passages, save_adapter, save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from raymia.models.causal.adapters import switchable_method
from raymia.models.causal.family import CausalLMFamily, load_causal_lm
from raymia.models.causal.loader import CausalLMLoader
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.loaders import load_together
from raymia.spec import ModelSpec, PoolSpec
from raymia.util.errors import InputError

TEXTS = passages(4)
COLUMNS = ("log_prob", "mean_log_prob", "std_log_prob")
METHODS = {
    "lora": {},
    "prefix": {"method": "PrefixTuning", "num_virtual_tokens": 4},
    "p-tuning": {"method": "PromptEncoder", "num_virtual_tokens": 4, "encoder_hidden_size": 16},
    "prompt": {"method": "PromptTuning", "num_virtual_tokens": 4},
    "ia3": {"method": "IA3"},
}
QV = {"target_modules": ["q_proj", "v_proj"]}
SELDOM = {
    "rank-stabilized": {**QV, "use_rslora": True},
    "biases": {**QV, "lora_bias": True},
    "of a parameter": {"target_parameters": ["q_proj.weight"], "target_modules": []},
    "layers given twice": {**QV, "layer_replication": [[0, 2], [1, 2]]},
    "after a token": {**QV, "alora_invocation_tokens": [259]},
    "some tokens": {**QV, "trainable_token_indices": [5, 6, 259, 260]},
    "AdaLoRA": {"method": "AdaLora", **QV, "target_r": 2, "init_r": 4, "total_step": 100},
    "LoKr": {"method": "LoKr", **QV, "r": 4},
    "OFT": {"method": "OFT", **QV, "r": 4, "oft_block_size": 0},
    "VeRA": {"method": "Vera", "target_modules": ["q_proj"], "r": 4},
    "VB-LoRA": {
        "method": "VBLoRA", "target_modules": ["q_proj"], "r": 4, "num_vectors": 8,
        "vector_length": 8, "topk": 2,
    },
    "SHiRA": {"method": "Shira", **QV, "r": 4},
    "norms": {"method": "LNTuning", "target_modules": ["norm"]},
    "context": {
        "method": "CPT", "cpt_token_ids": [5, 6, 7, 8], "cpt_mask": [1, 1, 1, 1],
        "cpt_tokens_type_mask": [1, 2, 3, 4],
    },
    "LLaMA-Adapter": {"method": "AdaptionPrompt", "adapter_len": 4, "adapter_layers": 1},
}  # fmt: skip
"""Methods, and ways of LoRA, that few people use."""


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load(folder, **settings):
    return load_causal_lm(checkpoint(folder, **settings), batch_tokens=1_024)


def assert_same(answers, others, tolerance):
    for answer, other in zip(answers, others, strict=True):
        for column in COLUMNS:
            np.testing.assert_allclose(
                getattr(answer, column), getattr(other, column), rtol=0, atol=tolerance
            )


# --------------------------------------------------------------- methods, from folders


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("base", ["tiny_gpt2", "tiny_llama"])
def test_method_answers_as_peft_itself_does(tmp_path, request, base, method):
    base = request.getfixturevalue(base)
    assert_answers_as_peft(base, save_adapter(tmp_path / "adapter", base, **METHODS[method]))


@pytest.mark.parametrize("method", SELDOM)
def test_method_that_few_people_use_is_planned_and_answers_as_peft_does(
    tmp_path, tiny_llama, method
):
    adapter = save_adapter(tmp_path / "adapter", tiny_llama, **SELDOM[method])
    spec = ModelSpec(model=str(tiny_llama), adapter=str(adapter), dtype="float32")
    assert resolve_causal_lm(spec, "target", on_gpu=False).adapter == str(adapter)
    assert_answers_as_peft(tiny_llama, adapter)


def assert_answers_as_peft(base, adapter):
    from peft import PeftModel

    model = load(base, adapter=str(adapter))
    weights = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain = PeftModel.from_pretrained(weights, adapter).eval()
    bare, moved = load(base).answer(TEXTS, moments=False), []
    for text, answer, other in zip(TEXTS, model.answer(TEXTS, moments=True), bare, strict=True):
        ids = model.encode([text])[0]
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([ids])).logits[0, -len(ids) :]
        expected = logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
        np.testing.assert_allclose(answer.log_prob, expected, rtol=0, atol=1e-5)
        moved.append(np.abs(answer.log_prob - other.log_prob).max())
    assert max(moved) > 0.01, "the adapter did nothing"


@pytest.mark.parametrize("method", ["prefix", "p-tuning", "prompt"])
def test_virtual_tokens_take_their_place_in_the_context(tmp_path, tiny_gpt2, method):
    """GPT-2 has 128 positions; four of them are the method's own."""
    adapter = save_adapter(tmp_path / "adapter", tiny_gpt2, **METHODS[method])
    model = load(tiny_gpt2, adapter=str(adapter))
    assert model.max_tokens == 124
    answer = model.answer([" ".join(passages(8))], moments=False)[0]
    assert len(answer.log_prob) == 123
    assert np.isfinite(answer.log_prob).all()


# ------------------------------------------------------------------ many on one base


def family_of(base, adapters, **settings):
    checkpoints = [
        checkpoint(base, adapter=None if a is None else str(a), **settings) for a in adapters
    ]
    return checkpoints, CausalLMFamily(checkpoints, [1_024] * len(checkpoints))


def assert_family_is_its_members(base, adapters, tolerance, **settings):
    checkpoints, family = family_of(base, adapters, **settings)
    alone = [load_causal_lm(c, batch_tokens=1_024).answer(TEXTS, moments=True) for c in checkpoints]
    places = range(len(checkpoints))
    for place in (*places, *reversed(places), *places):
        assert_same(family.use(place).answer(TEXTS, moments=True), alone[place], tolerance)
    seen = {a[0].log_prob.tobytes() for a in alone}
    assert len(seen) == len(checkpoints), "two of them say the same"


KINDS = [
    {}, {"r": 2, "lora_alpha": 1, "use_rslora": True},
    {"target_modules": ["q_proj", "v_proj", "lm_head"]},
    {"target_modules": ["up_proj"]}, {"use_dora": True},
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("order", [1, -1], ids=["base first", "base last"])
def test_every_kind_of_lora_answers_as_if_it_were_loaded_alone(tmp_path, tiny_llama, order):
    adapters = [
        save_adapter(tmp_path / str(n), tiny_llama, seed=n, **k) for n, k in enumerate(KINDS)
    ]
    assert_family_is_its_members(tiny_llama, [None, *adapters][::order], 1e-6)


def test_heads_saved_with_their_adapters_are_switched_with_them(tmp_path, tiny_llama):
    saved = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    adapters = [save_adapter(tmp_path / str(n), tiny_llama, seed=n, **saved) for n in range(2)]
    assert_family_is_its_members(tiny_llama, [adapters[0], None, adapters[1]], 1e-6)


def test_logits_of_16_bits_are_no_coarser_beside_adapters_of_the_head(tmp_path, tiny_llama):
    """An adapter wraps the output layer of all that share the base."""
    on_head = {"target_modules": ["q_proj", "lm_head"]}
    saved = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    for number, settings in enumerate((on_head, saved)):
        adapter = save_adapter(tmp_path / str(number), tiny_llama, **settings)
        assert_family_is_its_members(tiny_llama, [None, adapter], 1e-6, dtype="bfloat16")


def test_ia3_answers_as_if_it_were_loaded_alone(tmp_path, tiny_gpt2):
    """But for rounding: with MKL on an Intel CPU it depends on where in memory an array lies; one
    step of float32 at a log-probability of -11 is 1e-6."""
    ia3 = [save_adapter(tmp_path / str(n), tiny_gpt2, method="IA3", seed=n) for n in range(2)]
    assert_family_is_its_members(tiny_gpt2, [ia3[0], None, ia3[1]], 1e-5)


@pytest.mark.long
@pytest.mark.parametrize("settings", [{"dtype": "bfloat16"}, {"quantization": "nf4"}])
def test_low_precision_is_that_of_models_loaded_alone(tmp_path, settings):
    """Adapters stay in float32 on a base in bfloat16, whichever comes first."""
    adapters = [save_adapter(tmp_path / str(n), BASE, seed=n) for n in range(2)]
    assert_family_is_its_members(BASE, [adapters[0], None, adapters[1]], 1e-6, **settings)


def test_base_is_loaded_once_for_all(tmp_path, tiny_gpt2, monkeypatch):
    adapters = [save_adapter(tmp_path / str(n), tiny_gpt2, seed=n) for n in range(3)]
    loaders = []
    for adapter in (None, *map(str, adapters)):
        there = checkpoint(tiny_gpt2, adapter=adapter)
        there = checkpoint(tiny_gpt2, adapter=adapter, fingerprint=fingerprint(there))
        loaders.append(CausalLMLoader(there, batch_tokens=64))
    real, loads = AutoModelForCausalLM.from_pretrained, []

    def counted(*args, **kwargs):
        loads.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", counted)
    ready = load_together(loaders)
    assert len({ready(n).answer(TEXTS[:1], moments=False)[0].log_prob[0] for n in range(4)}) == 4
    assert len(loads) == 1


def test_adapter_that_does_not_fit_is_named_among_those_that_do(tmp_path, tiny_gpt2):
    wider = save_tiny(tmp_path / "wider", "gpt2", n_embd=48)
    adapters = [
        save_adapter(tmp_path / "good", tiny_gpt2), save_adapter(tmp_path / "wide", wider),
    ]  # fmt: skip
    with pytest.raises(InputError, match="wide: this adapter does not fit its base"):
        family_of(tiny_gpt2, adapters)


@pytest.mark.parametrize("place", [0, 1])
def test_adapter_that_lacks_tensors_is_refused_and_not_left_half_empty(tmp_path, tiny_gpt2, place):
    """PEFT leaves what is missing at its start, where an adapter does nothing."""
    adapters = [save_adapter(tmp_path / str(n), tiny_gpt2, seed=n) for n in range(2)]
    weights = adapters[place] / "adapter_model.safetensors"
    tensors = load_file(weights)
    del tensors[min(tensors)]
    save_file(tensors, weights)
    with pytest.raises(InputError, match=rf"{place}: this adapter .*(?s:.*)lora_A"):
        family_of(tiny_gpt2, adapters)


# --------------------------------------------------------------------- who may share


def loader(base, adapter=None, **settings):
    there = checkpoint(base, adapter=None if adapter is None else str(adapter), **settings)
    return CausalLMLoader(there, batch_tokens=64)


def share_base(one, other):
    return one.sharing is not None and one.sharing.joined(other.sharing) is not None


def test_adapters_of_one_method_share_a_base_and_others_do_not(tmp_path, tiny_gpt2):
    made = {n: save_adapter(tmp_path / n, tiny_gpt2, **METHODS[n]) for n in METHODS}
    other = save_adapter(tmp_path / "other", tiny_gpt2, seed=1)
    bare, lora = loader(tiny_gpt2), loader(tiny_gpt2, made["lora"])
    assert share_base(bare, bare)
    assert share_base(lora, bare)
    assert share_base(lora, loader(tiny_gpt2, other))
    assert share_base(loader(tiny_gpt2, made["ia3"]), bare)
    assert not share_base(loader(tiny_gpt2, made["ia3"]), lora)
    for method in ("prefix", "p-tuning", "prompt"):
        alone = loader(tiny_gpt2, made[method])
        assert not any(share_base(alone, x) for x in (bare, lora, alone)), method


def test_adapter_of_a_module_that_another_replaces_needs_a_base_of_its_own(tmp_path, tiny_llama):
    saved = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    replaces = loader(tiny_llama, save_adapter(tmp_path / "a", tiny_llama, **saved))
    again = loader(tiny_llama, save_adapter(tmp_path / "b", tiny_llama, seed=1, **saved))
    adapts = loader(tiny_llama, save_adapter(tmp_path / "c", tiny_llama))
    assert share_base(replaces, again)
    assert not share_base(replaces, adapts)


def test_length_limit_needs_no_weights_of_its_own(tiny_gpt2):
    assert share_base(loader(tiny_gpt2), loader(tiny_gpt2, max_tokens=9))
    assert not share_base(loader(tiny_gpt2), loader(tiny_gpt2, quantization="int8"))
    assert not share_base(loader(tiny_gpt2), loader(tiny_gpt2, dtype="bfloat16"))


@pytest.mark.parametrize(
    "setting",
    [{"bias": "all"}, {"init_lora_weights": "pissa"}, {"layer_replication": [[0, 2], [1, 2]]},
     {"trainable_token_indices": [1]}, {"some_setting_of_next_year": 1}],
)  # fmt: skip
def test_adapter_that_changes_its_base_has_one_of_its_own(tmp_path, tiny_gpt2, setting):
    adapter = save_adapter(tmp_path / "adapter", tiny_gpt2)
    assert switchable_method(str(adapter)) == "LORA"
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **setting}))
    assert switchable_method(str(adapter)) is None


def test_adapter_that_brings_weights_of_the_base_has_one_of_its_own(tmp_path, tiny_gpt2):
    """PEFT saves an enlarged embedding with the adapter, and loads it into the base."""
    adapter = save_adapter(tmp_path / "adapter", tiny_gpt2)
    weights = adapter / "adapter_model.safetensors"
    embedding = {"base_model.model.transformer.wte.weight": torch.zeros(2048, 32)}
    save_file({**load_file(weights), **embedding}, weights)
    assert switchable_method(str(adapter)) is None


# -------------------------------------------------------- tokenizers and vocabularies


def resolved(base, adapter):
    spec = ModelSpec(model=str(base), adapter=None if adapter is None else str(adapter))
    return resolve_causal_lm(spec, "targets[0].model", on_gpu=False)


def save_tokenizer(folder, *, add=(), special=False):
    """The shipped tokenizer with more tokens, beside an adapter."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_tokens(list(add), special_tokens=special)
    tokenizer.save_pretrained(folder)
    return tokenizer


def expected(base, adapter, tokenizer, text, rows=None):
    from peft import PeftModel

    weights = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows is not None:
        weights.resize_token_embeddings(rows)
    plain = PeftModel.from_pretrained(weights, adapter).eval()
    ids = tokenizer(text)["input_ids"]
    with torch.no_grad():
        logits = plain(input_ids=torch.tensor([ids])).logits[0]
    return logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


def test_adapter_is_asked_with_its_own_tokenizer_and_the_base_alone_with_its_own(
    tmp_path, tiny_llama
):
    adapters = [save_adapter(tmp_path / str(n), tiny_llama, seed=n) for n in range(2)]
    own = save_tokenizer(adapters[0])
    content = json.loads((adapters[0] / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:200]  # it cuts words into more pieces
    (adapters[0] / "tokenizer.json").write_text(json.dumps(content))
    other = AutoTokenizer.from_pretrained(adapters[0])
    assert other(TEXTS[0])["input_ids"] != own(TEXTS[0])["input_ids"]
    checkpoints = [resolved(tiny_llama, adapter) for adapter in (None, *adapters)]
    assert [c.own_tokenizer for c in checkpoints] == [False, True, False]
    assert checkpoints[0].tokenization == checkpoints[2].tokenization
    assert checkpoints[0].tokenization != checkpoints[1].tokenization
    family = CausalLMFamily(checkpoints, [1_024] * 3)
    for number, tokenizer in ((1, other), (2, own)):
        answer = family.use(number).answer(TEXTS[:1], moments=False)[0].log_prob
        wanted = expected(tiny_llama, adapters[number - 1], tokenizer, TEXTS[0])
        np.testing.assert_allclose(answer, wanted, rtol=0, atol=1e-5)
    bare = family.use(0).answer(TEXTS[:1], moments=False)[0].token_ids
    assert [*bare] == own(TEXTS[0])["input_ids"][1:]


def test_adapters_whose_tokenizers_end_texts_otherwise_read_otherwise(tmp_path, tiny_llama):
    adapters = [save_adapter(tmp_path / str(n), tiny_llama, seed=n) for n in range(3)]
    for adapter, end in zip(adapters, ("He", "He", "She"), strict=True):
        save_tokenizer(adapter, add=["Netherfield"])
        path = adapter / "tokenizer_config.json"
        config = json.loads(path.read_text())
        del config["eos_token"]
        path.write_text(json.dumps(config))
        (adapter / "special_tokens_map.json").write_text(json.dumps({"eos_token": end}))
    found = [resolved(tiny_llama, adapter) for adapter in adapters]
    assert [one.tokenizer_source.load().eos_token for one in found] == ["He", "He", "She"]
    assert found[0].reading == found[1].reading != found[2].reading


def test_tokenizer_that_makes_the_same_tokens_changes_no_key(tmp_path, tiny_llama):
    """As a training saves it: the chat template and padding are its own, and no text is cut
    otherwise. The answers of the base's tokenizer stay valid."""
    adapter = save_adapter(tmp_path / "adapter", tiny_llama)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.padding_side, tokenizer.chat_template = "left", "{{ messages }}"
    tokenizer.save_pretrained(adapter)
    found = resolved(tiny_llama, adapter)
    assert not found.own_tokenizer
    assert found.tokenizer_folder == str(tiny_llama)
    without = checkpoint(tiny_llama, adapter=str(adapter))
    assert fingerprint(without) == found.fingerprint
    save_tokenizer(adapter, add=["Netherfield Park"])
    changed = resolved(tiny_llama, adapter)
    assert changed.own_tokenizer
    assert fingerprint(checkpoint(tiny_llama, adapter=str(adapter))) != changed.fingerprint


@pytest.mark.parametrize("tied", [True, False])
def test_adapter_with_more_tokens_than_its_base_is_asked_with_all_of_them(tmp_path, tied):
    base = save_tiny(tmp_path / "base", "llama", tie_word_embeddings=tied)
    adapter = tmp_path / "adapter"
    tokenizer = save_tokenizer(adapter, add=["Netherfield", "Longbourn"])
    text = "He came to Netherfield and left Longbourn before it was dark"
    ids = tokenizer(text)["input_ids"]
    assert max(ids) == 2_049
    save_enlarged(adapter, base, rows=2_050, tied=tied)
    found = resolved(base, adapter)
    assert (found.rows, found.facts.vocabulary, found.own_tokenizer) == (2_050, 2_050, True)
    model = found.loader(PoolSpec()).load()
    answer = model.answer([text], moments=False)[0].log_prob
    wanted = expected(base, adapter, tokenizer, text, rows=2_050)
    np.testing.assert_allclose(answer, wanted, rtol=0, atol=1e-5)
    assert found.loader(PoolSpec()).sharing is None
    bare = resolved(base, None).loader(PoolSpec()).load()
    assert len(bare.model.get_input_embeddings().weight) == 2_048


def save_enlarged(folder, base, *, rows, tied):
    import peft

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(rows)
    saved = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    made = peft.LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj"],
                           modules_to_save=saved, ensure_weight_tying=tied)  # fmt: skip
    adapted = peft.get_peft_model(model, made)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
    adapted.save_pretrained(folder)


def test_adapter_that_enlarges_the_embedding_and_not_the_head_is_refused(tmp_path):
    base = save_tiny(tmp_path / "base", "llama", tie_word_embeddings=False)
    save_enlarged(tmp_path / "adapter", base, rows=2_050, tied=False)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors["base_model.model.lm_head.weight"]
    save_file(tensors, file)
    with pytest.raises(InputError, match="has not both an embedding and a row of the head"):
        resolved(base, tmp_path / "adapter")
