"""What is loaded is the whole of what was given: what has no place is refused, by its headers."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
import torch
from edited import edit, reweigh
from quantized_models import save_block_fp8
from safetensors.torch import load_file, save_file
from small_image_models import save_model, save_pipeline
from tiny_models import PARAPHRASER, checkpoint, save_adapter, save_tiny
from transformers import AutoModelForCausalLM

from raymia.models import fit
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.image_source import resolve_image_model
from raymia.models.paraphrasers.resolver import resolve_paraphraser
from raymia.models.whole_weights import HARMLESS
from raymia.spec import MaskFillNeighbors, ModelSpec, PoolSpec
from raymia.util.errors import InputError
from raymia.util.once import Once

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def resolved(folder, once=None, **settings):
    spec = ModelSpec(model=str(folder), **settings)
    return resolve_causal_lm(spec, "targets[0].model", on_gpu=False, once=once)


def refusal(folder, **settings):
    with pytest.raises(InputError) as caught:
        resolved(folder, **settings)
    (problem,) = caught.value.problems
    assert problem.startswith("targets[0].")
    return problem


def save_sharded(folder, kind="llama"):
    save_tiny(folder, kind)
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert (folder / INDEX).is_file()
    return folder


# --------------------------------------------------------------- more than the model, or less


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_weights_of_more_layers_than_the_config_says_are_refused(tmp_path, kind):
    save_tiny(tmp_path, kind)
    layers = {"gpt2": "n_layer", "llama": "num_hidden_layers"}[kind]
    edit(tmp_path / CONFIG, **{layers: 1}, layer_types=None)
    problem = refusal(tmp_path)
    count = {"gpt2": 11, "llama": 9}[kind]  # GPT-2's own list leaves out what is like a mask
    assert f"hold {count} tensors for which the model that its config.json describes" in problem
    assert f"and {count - 3} more" in problem


def test_low_rank_weights_beside_those_they_were_made_for_are_refused(tmp_path):
    save_tiny(tmp_path, "llama")
    name = "model.layers.0.self_attn.q_proj.lora_{}.weight"
    reweigh(
        tmp_path / WEIGHTS, lambda t: t.update({name.format(x): torch.ones(32, 32) for x in "AB"})
    )
    problem = refusal(tmp_path)
    assert "hold 2 tensors for which" in problem
    assert name.format("A") in problem


def test_what_a_loader_is_given_that_nobody_planned_is_refused_as_well(tmp_path):
    save_tiny(tmp_path, "llama")
    edit(tmp_path / CONFIG, num_hidden_layers=1, layer_types=None)
    with pytest.raises(InputError, match="hold 9 tensors for which the model"):
        load_causal_lm(checkpoint(tmp_path), batch_tokens=64)


def test_weights_that_lack_tensors_are_refused_before_they_are_loaded(tmp_path):
    save_tiny(tmp_path, "llama")
    edit(tmp_path / CONFIG, num_hidden_layers=3, layer_types=None)
    assert "its weights lack 9 of the tensors that its config.json asks for" in refusal(tmp_path)


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "_fsdp_wrapped_module.module."])
def test_model_that_was_saved_within_a_wrapper_is_told_so(tmp_path, wrapper):
    save_tiny(tmp_path, "llama")
    tensors = load_file(tmp_path / WEIGHTS)
    save_file({f"{wrapper}{name}": tensors[name] for name in tensors}, tmp_path / WEIGHTS)
    assert f"the names of its tensors begin with '{wrapper}', as torch" in refusal(tmp_path)


def test_tensors_of_another_shape_are_refused_with_both(tmp_path):
    save_tiny(tmp_path, "llama")
    edit(tmp_path / CONFIG, intermediate_size=48)
    problem = refusal(tmp_path)
    assert "6 of its tensors have other shapes than its config.json says" in problem
    assert "model.layers.0.mlp.down_proj.weight is 32 x 64 and should be 32 x 48" in problem


def test_config_that_no_model_can_be_built_from_is_refused(tmp_path):
    save_tiny(tmp_path, "gpt2")
    edit(tmp_path / CONFIG, n_head=5)
    assert "no AutoModelForCausalLM can be built from what its config.json describes" in refusal(
        tmp_path
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_numbers_whose_scales_nobody_reads_are_refused(tmp_path, dtype):
    save_tiny(tmp_path, "llama")

    def shrink(tensors):
        for name in [name for name in tensors if "_proj" in name]:
            tensors[name] = (tensors[name] * 100).to(dtype)

    reweigh(tmp_path / WEIGHTS, shrink)
    problem = refusal(tmp_path)
    assert "14 of its tensors are integers or float8, and no quantization_config" in problem


def test_float8_without_the_scale_beside_it_is_refused(tmp_path):
    """transformers would read it with a scale of 1."""
    save_block_fp8(tmp_path)
    name = "model.layers.1.mlp.down_proj.weight"
    reweigh(tmp_path / WEIGHTS, lambda t: t.pop(f"{name}_scale_inv"))
    assert f"1 of its tensors are quantized and have no scale beside them ({name})" in refusal(
        tmp_path
    )


# ------------------------------------------------------------------------ what is harmless


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.0.self_attn.masked_bias",
     "model.embeddings.position_ids", "v_head.summary.weight",
     "vision_tower.encoder.layers.0.self_attn.q_proj.weight"],
)  # fmt: skip
def test_tensors_that_change_no_answer_are_left_out(tmp_path, name):
    save_tiny(tmp_path, "llama")
    reweigh(tmp_path / WEIGHTS, lambda t: t.update({name: torch.ones(1)}))
    assert resolved(tmp_path).loader(PoolSpec()).load().max_tokens == 128


@pytest.mark.parametrize(
    "name",
    ["model.layers.7.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.bias",
     "model.layers.0.mlp.experts.3.up_proj.weight", "lm_head.weight", "transformer.wpe.weight",
     "model.mtp.layers.0.weight", "model.layers.0.self_attn.q_proj.lora_A.weight"],
)  # fmt: skip
def test_tensors_that_a_model_is_made_of_are_not_harmless(name):
    assert not HARMLESS.search(name)


def test_head_that_is_tied_may_be_there_or_not(tmp_path):
    save_tiny(tmp_path, "llama", tie_word_embeddings=True)
    assert resolved(tmp_path)
    reweigh(
        tmp_path / WEIGHTS,
        lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}),
    )
    assert resolved(tmp_path)


def test_masks_that_old_models_were_saved_with_are_integers_and_harmless(tmp_path):
    save_tiny(tmp_path, "gpt2")
    mask = torch.ones(1, 1, 128, 128, dtype=torch.uint8)
    reweigh(tmp_path / WEIGHTS, lambda t: t.update({"transformer.h.0.attn.bias": mask}))
    assert resolved(tmp_path)


# ------------------------------------------------------------------------------- files


def test_shards_are_read_as_their_index_lists_them(tmp_path):
    assert resolved(save_sharded(tmp_path)).facts.parameters == 149_664


def test_shard_that_is_missing_is_named(tmp_path):
    save_sharded(tmp_path)
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    lost.unlink()
    assert f"that {INDEX} lists ({lost.name})" in refusal(tmp_path)


def test_tensor_that_the_index_lists_and_no_shard_holds_is_named(tmp_path):
    save_sharded(tmp_path)
    shard = max(tmp_path.glob("model-*.safetensors"), key=lambda file: len(load_file(file)))
    lost = min(load_file(shard))
    reweigh(shard, lambda t: t.pop(lost))
    assert f"lists 1 tensors that its files do not hold ({lost})" in refusal(tmp_path)


@pytest.mark.parametrize("place", ["../elsewhere", "below"])
def test_shard_in_another_folder_is_refused_since_its_content_would_be_in_no_key(tmp_path, place):
    folder = save_sharded(tmp_path / "model")
    lost = sorted(folder.glob("model-*.safetensors"))[1].name
    (folder / place).mkdir()
    (folder / lost).rename(folder / place / lost)
    listed = json.loads((folder / INDEX).read_text())["weight_map"]
    moved = {name: f"{place}/{file}" if file == lost else file for name, file in listed.items()}
    edit(folder / INDEX, weight_map=moved)
    assert f"lists files of other folders ({place}/{lost}); put" in refusal(folder)


def test_tensor_that_two_shards_hold_is_refused(tmp_path):
    save_sharded(tmp_path)
    *_, first, last = sorted(tmp_path.glob("model-*.safetensors"))
    name = min(load_file(first))
    reweigh(last, lambda t: t.update({name: load_file(first)[name] + 1}))
    assert f"holds 1 tensors that another of its files holds as well ({name})" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "model-00003-of-00009.safetensors"])
def test_weights_beside_those_that_are_loaded_are_refused(tmp_path, name):
    save_tiny(tmp_path)
    shutil.copy(tmp_path / WEIGHTS, tmp_path / name)
    problem = refusal(tmp_path)
    assert f"holds {name} beside the weights that are loaded ({WEIGHTS})" in problem


@pytest.mark.parametrize("weights", [None, "adapter_model.bin"])
def test_adapters_config_beside_whole_weights_is_refused(tmp_path, tiny_llama, weights):
    merged, adapter = tmp_path / "merged", save_adapter(tmp_path / "adapter", tiny_llama)
    shutil.copytree(tiny_llama, merged)
    shutil.copy(adapter / "adapter_config.json", merged)
    if weights is not None:
        torch.save(load_file(adapter / "adapter_model.safetensors"), merged / weights)
    assert "holds adapter_config.json beside whole weights, by which" in refusal(merged)


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "consolidated.safetensors"])
def test_copies_of_the_weights_in_another_layout_are_left_alone(tmp_path, name):
    save_tiny(tmp_path)
    shutil.copy(tmp_path / WEIGHTS, tmp_path / name)
    assert resolved(tmp_path)


def test_weights_under_a_name_that_nobody_loads_are_refused(tmp_path):
    save_tiny(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "weights.safetensors")
    assert f"has neither {WEIGHTS} nor {INDEX} (found: weights.safet" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": ', "[1]"], ids=["deep", "cut", "list"])
@pytest.mark.parametrize("name", ["generation_config.json", "special_tokens_map.json"])
def test_json_beside_the_weights_that_cannot_be_read_is_refused(tmp_path, name, content):
    save_tiny(tmp_path, "llama")
    (tmp_path / name).write_text(content)
    assert f"{tmp_path / name} " in refusal(tmp_path)


def test_settings_of_a_tokenizer_are_no_tokenizer(tmp_path):
    save_tiny(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert "has no tokenizer; save the base's beside the weights" in refusal(tmp_path)
    edit(tmp_path / "tokenizer_config.json", tokenizer_class="ByT5Tokenizer")
    assert resolved(tmp_path)  # whose tokens are bytes


def without_tokenizer_json(folder):
    """The same tokenizer in the files that GPT-2 came with."""
    content = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(content["vocab"]))
    merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer.json").unlink()
    edit(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")


@pytest.mark.parametrize("change", [lambda _: None, without_tokenizer_json])
@pytest.mark.parametrize("rows", [600, 2047])
def test_tokenizer_of_more_tokens_than_the_embedding_has_is_refused(tmp_path, rows, change):
    save_tiny(tmp_path, "llama", vocab_size=rows)
    change(tmp_path)
    said = refusal(tmp_path)
    assert "makes tokens up to the id 2,04" in said
    assert f"has {rows:,} embeddings; copy the tokenizer" in said


def test_tokenizer_of_an_adapter_is_held_to_the_embedding_as_well(tmp_path, tiny_llama):
    adapter = save_adapter(tmp_path, tiny_llama)
    for file in tiny_llama.glob("tokenizer*"):
        shutil.copy(file, adapter)
    edit(adapter / "tokenizer.json", model=more_tokens(adapter))
    said = refusal(tiny_llama, adapter=str(adapter))
    assert f"the tokenizer in {adapter} makes tokens up to the id 5,000" in said


def more_tokens(folder):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    return {**model, "vocab": {**model["vocab"], "unheard of": 5_000}}


def test_added_token_beyond_the_embedding_spoils_no_text_that_does_not_spell_it(tmp_path):
    save_tiny(tmp_path, "llama")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    pad = {**content["added_tokens"][0], "id": 2_048, "content": "<pad>"}
    edit(tmp_path / "tokenizer.json", added_tokens=[*content["added_tokens"], pad])
    assert resolved(tmp_path).facts.vocabulary == 2_048


def test_paraphraser_is_held_to_the_same(tmp_path):
    shutil.copytree(PARAPHRASER, tmp_path / "t5")
    edit(tmp_path / "t5" / CONFIG, num_layers=1)
    with pytest.raises(InputError, match=r"neighbors\.model: .*tensors for which the model"):
        resolve_paraphraser(MaskFillNeighbors(model=str(tmp_path / "t5")), "neighbors.model")


FP8 = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}


def without_scales(tensors, name="proj"):
    """Float8 in the place of a weight, as of a quantization whose scales were lost."""
    last = max(key for key in tensors if name in key and tensors[key].dim() == 2)
    tensors[last] = (tensors[last] * 100).to(torch.float8_e4m3fn)


def test_paraphraser_in_float8_without_scales_is_refused(tmp_path):
    folder = shutil.copytree(PARAPHRASER, tmp_path / "t5")
    reweigh(folder / WEIGHTS, lambda tensors: without_scales(tensors, "DenseReluDense"))
    edit(folder / CONFIG, quantization_config=FP8)
    with pytest.raises(InputError, match=r"neighbors\.model: .*1 of its tensors are quantized and"):
        resolve_paraphraser(MaskFillNeighbors(model=str(folder)), "neighbors.model")


def test_pixel_model_in_float8_without_scales_is_refused(tmp_path):
    save_model("imagegpt", tmp_path)
    reweigh(tmp_path / WEIGHTS, lambda tensors: without_scales(tensors, "c_proj.weight"))
    edit(tmp_path / CONFIG, quantization_config=FP8)
    with pytest.raises(InputError, match="1 of its tensors are quantized and have no scale"):
        resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0].model", on_gpu=False)


def lose_scales(part, method):
    """As if a part of a pipeline had been saved quantized, and its scales were lost."""
    weights = next(part.glob("*.safetensors"))
    reweigh(weights, lambda tensors: without_scales(tensors, "weight"))
    edit(part / CONFIG, quantization_config={"quant_method": method, "load_in_8bit": True})


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
@pytest.mark.parametrize("method", ["bitsandbytes", "torchao"])
def test_part_of_a_pipeline_in_float8_without_scales_is_refused(tmp_path, part, method):
    save_pipeline("stable", tmp_path)
    lose_scales(tmp_path / part, method)
    with pytest.raises(InputError, match=f"/{part}: 1 of its tensors are quantized and have no"):
        resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0].model", on_gpu=True)


def test_paraphraser_with_a_tokenizer_of_more_tokens_is_refused(tmp_path):
    folder = shutil.copytree(PARAPHRASER, tmp_path / "t5")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    edit(folder / "tokenizer.json", model={**model, "vocab": [*model["vocab"], ["unheard", -9.0]]})
    with pytest.raises(InputError, match=r"neighbors\.model: .* up to the id 4,096, .* has 4,096 "):
        resolve_paraphraser(MaskFillNeighbors(model=str(folder)), "neighbors.model")


# ----------------------------------------------------------------------------- adapters


def adapter_refusal(base, adapter):
    problem = refusal(base, adapter=str(adapter))
    assert problem.startswith(f"targets[0].adapter: {adapter}: this adapter does not fit its base")
    return problem


def test_adapter_of_a_deeper_base_is_refused(tmp_path, tiny_llama):
    deeper = save_tiny(tmp_path / "deeper", "llama", num_hidden_layers=4)
    adapter = save_adapter(tmp_path / "adapter", deeper)
    problem = adapter_refusal(tiny_llama, adapter)
    assert "hold 8 tensors for which the model that its adapter_config.json describes" in problem
    assert "layers.2.self_attn.q_proj.lora_A.weight" in problem
    with pytest.raises(InputError, match="hold 8 tensors"):
        load_causal_lm(checkpoint(tiny_llama, adapter=str(adapter)), batch_tokens=64)


@pytest.mark.parametrize("more", [{"target_modules": ["q_proj"]}, {"layers_to_transform": [0]}])
def test_adapter_tensors_for_modules_that_its_config_does_not_name_are_refused(
    tmp_path, tiny_llama, more
):
    adapter = save_adapter(tmp_path, tiny_llama, target_modules=["q_proj", "v_proj"])
    edit(adapter / "adapter_config.json", **more)
    assert "hold 4 tensors for which the model" in adapter_refusal(tiny_llama, adapter)


def test_adapter_that_lacks_what_its_config_names_is_refused(tmp_path, tiny_llama):
    adapter = save_adapter(tmp_path, tiny_llama, target_modules=["q_proj"])
    edit(adapter / "adapter_config.json", target_modules=["q_proj", "o_proj"])
    assert "lack 4 of the tensors" in adapter_refusal(tiny_llama, adapter)


def test_adapter_that_lacks_a_module_it_saved_is_refused_by_its_name(tmp_path, tiny_llama):
    adapter = save_adapter(tmp_path, tiny_llama)
    edit(tmp_path / "adapter_config.json", modules_to_save=["lm_head"])
    problem = adapter_refusal(tiny_llama, adapter)
    assert "its weights lack base_model.model.lm_head.weight, which its adapter_config" in problem
    edit(tmp_path / "adapter_config.json", modules_to_save=None, r="4")
    assert "base: PEFT: '<=' not supported" in adapter_refusal(tiny_llama, adapter)


def test_adapter_of_a_wider_base_is_refused_with_the_shapes(tmp_path, tiny_llama):
    wider = save_tiny(tmp_path / "wider", "llama", hidden_size=48)
    adapter = save_adapter(tmp_path / "adapter", wider)
    said = adapter_refusal(tiny_llama, adapter)
    assert "size mismatch for base_model.model.model.layers.0" in said
    assert "[4, 48]" in said
    assert "[4, 32]" in said


@pytest.mark.parametrize(
    "settings",
    [{"use_dora": True}, {"bias": "all"}, {"target_modules": ["q_proj", "lm_head"]},
     {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
     {"target_modules": ["q_proj", "embed_tokens"]}, {"trainable_token_indices": [1, 2]},
     {"method": "IA3"}, {"method": "Vera"}, {"method": "AdaLora", "total_step": 9},
     {"method": "PrefixTuning", "num_virtual_tokens": 4},
     {"method": "BOFT", "target_modules": ["q_proj"], "boft_block_size": 4}],
    ids=lambda settings: "-".join(map(str, settings.values())),
)  # fmt: skip
def test_adapters_of_all_kinds_fit_the_base_they_were_made_for(tmp_path, tiny_llama, settings):
    adapter = save_adapter(tmp_path, tiny_llama, **settings)
    found = resolved(tiny_llama, adapter=str(adapter))
    assert found.loader(PoolSpec()).load().max_tokens


# --------------------------------------------------------------------------------- cost


@pytest.mark.parametrize(
    "first", [{"layer_replication": [[0, 2], [1, 2]]}, {"modules_to_save": ["embed_tokens"]}]
)
def test_adapter_that_changes_its_base_changes_none_for_those_after_it(tmp_path, first):
    base = save_tiny(tmp_path / "base", "llama", tie_word_embeddings=True)
    plain = save_adapter(tmp_path / "plain", base, modules_to_save=["embed_tokens"])
    changing = save_adapter(tmp_path / "changing", base, **first)
    if "modules_to_save" in first:  # with more tokens
        name = "base_model.model.model.embed_tokens.weight"
        more = {name: torch.zeros(2_060, 32)}
        reweigh(changing / "adapter_model.safetensors", lambda t: t.update(more))
    once = Once()
    for adapter, rows in ((changing, 2_060 if "modules_to_save" in first else None), (plain, None)):
        assert resolved(base, once, adapter=str(adapter)).rows == rows
    assert resolved(base, once).facts.vocabulary == 2_048


def test_models_of_one_config_are_built_once(tmp_path, tiny_llama, monkeypatch):
    folders = [save_tiny(tmp_path / str(n), "llama", seed=n) for n in range(3)]
    fit._in_transformers.cache_clear()
    built, real = [], AutoModelForCausalLM.from_config
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_config", lambda c, **k: built.append(c) or real(c, **k)
    )
    once = Once()
    for folder in folders:
        resolved(folder, once)
    assert len(built) == 1
    for number in range(3):
        adapter = save_adapter(tmp_path / f"adapter-{number}", tiny_llama, seed=number)
        resolved(folders[0], once, adapter=str(adapter))
    assert len(built) == 2, "one for the adapters"


def test_models_that_threads_load_at_once_are_whole(tmp_path):
    """transformers keeps no head that is tied where two threads build models at the same time."""
    folder = save_tiny(tmp_path, "gpt2")
    wrong = []

    def load():
        try:
            resolved(folder).loader(PoolSpec()).load()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ------------------------------------------------------------------------------- images

PART = "diffusion_pytorch_model.safetensors"


def image_refusal(folder):
    with pytest.raises(InputError) as caught:
        image_model(folder)
    (problem,) = caught.value.problems
    return problem


def image_model(folder):
    return resolve_image_model(ModelSpec(model=str(folder)), "targets[0].model", on_gpu=False)


@pytest.mark.parametrize("place", [".", "unet"])
def test_low_rank_weights_in_the_folder_of_a_pipeline_are_refused(tmp_path, place):
    save_pipeline("ddpm", tmp_path)
    lora = {f"unet.mid_block.attentions.0.to_q.lora.{x}.weight": torch.ones(4, 4) for x in "AB"}
    save_file(lora, tmp_path / place / "pytorch_lora_weights.safetensors")
    problem = image_refusal(tmp_path)
    assert "holds pytorch_lora_weights.safetensors beside the weights that are loaded" in problem


def test_the_whole_pipeline_once_more_in_one_file_is_left_alone(tmp_path):
    save_pipeline("ddpm", tmp_path)
    save_file({"model.diffusion_model.out.weight": torch.ones(4)}, tmp_path / "v1.safetensors")
    assert image_model(tmp_path)


@pytest.mark.parametrize(
    ("kind", "part"), [("ddpm", "unet"), ("stable", "vae"), ("dit", "transformer")]
)
def test_part_of_a_pipeline_that_has_more_or_less_than_its_config_says_is_refused(
    tmp_path, kind, part
):
    save_pipeline(kind, tmp_path)
    shutil.copytree(tmp_path, tmp_path / "less")
    reweigh(tmp_path / part / PART, lambda t: t.update({"one.more": torch.ones(4)}))
    reweigh(tmp_path / "less" / part / PART, lambda t: t.popitem())
    assert (
        "hold 1 tensors for which the model that its config.json describes has no place (one"
        in (image_refusal(tmp_path))
    )
    assert "lack 1 of the tensors" in image_refusal(tmp_path / "less")


def test_shard_of_a_part_in_another_folder_is_refused(tmp_path):
    save_pipeline("ddpm", tmp_path)
    index = tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.bias": f"../../{PART}"}}))
    assert f"lists files of other folders (../../{PART}); put" in image_refusal(tmp_path)


def test_autoencoder_of_other_widths_than_its_config_says_is_refused(tmp_path):
    save_model("autoencoder_kl", tmp_path)
    tensors = {n: torch.ones(*t.shape, 2) for n, t in load_file(tmp_path / PART).items()}
    save_file(tensors, tmp_path / PART)
    assert "of its tensors have other shapes than its config.json says" in image_refusal(tmp_path)
