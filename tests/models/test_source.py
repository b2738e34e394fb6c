"""Fingerprints and refusals: what a checkpoint is, and what may be loaded."""

from __future__ import annotations

import json
import shutil

import fsspec
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from tiny_models import BASE, PARAPHRASER, checkpoint, fingerprint, save_adapter, save_tiny

from raymia.models import source
from raymia.models.causal.loader import CausalLMLoader
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.paraphrasers.resolver import resolve_paraphraser
from raymia.models.source import file_hash
from raymia.models.text_source import files_of, text_fingerprint
from raymia.models.watch import Watch
from raymia.spec import ModelSpec, PoolSpec, TextNeighbors
from raymia.util.errors import InputError, RaymiaError
from raymia.util.hashing import digest_file
from raymia.util.once import Once


@pytest.fixture
def folder(tmp_path):
    return save_tiny(tmp_path / "model", "gpt2")


@pytest.fixture
def adapter(tmp_path, tiny_gpt2):
    return save_adapter(tmp_path / "adapter", tiny_gpt2)


def resolve(model, on_gpu=False, **settings):
    spec = ModelSpec(model=str(model), **settings)
    return resolve_causal_lm(spec, "targets[0].model", on_gpu=on_gpu)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# -------------------------------------------------------------------- fingerprints


def flip_one_weight(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def change_config(folder):
    edit_json(folder / "config.json", layer_norm_epsilon=1e-4)


def change_tokenizer(folder):
    edit_json(folder / "tokenizer.json", version="1.1")


def change_tokenizer_config(folder):
    edit_json(folder / "tokenizer_config.json", add_bos_token=True)


def add_chat_template(folder):
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def add_code(folder):
    (folder / "modeling.py").write_text("x = 1")


def add_merges(folder):
    (folder / "merges.txt").write_text("a b")


@pytest.mark.parametrize(
    "change",
    [flip_one_weight, change_config, change_tokenizer, change_tokenizer_config, add_chat_template,
     add_code, add_merges],
)  # fmt: skip
def test_changed_file_changes_the_fingerprint(folder, change):
    before = fingerprint(checkpoint(folder))
    change(folder)
    assert fingerprint(checkpoint(folder)) != before


@pytest.mark.parametrize(
    "setting", [{"quantization": "nf4"}, {"quantization": "int8"}, {"dtype": "bfloat16"},
                {"max_tokens": 64}, {"max_tokens": 65}],
)  # fmt: skip
def test_changed_setting_changes_the_fingerprint(tiny_gpt2, setting):
    assert fingerprint(checkpoint(tiny_gpt2, **setting)) != fingerprint(checkpoint(tiny_gpt2))


def test_settings_all_have_fingerprints_of_their_own(tiny_gpt2, adapter):
    settings = [{}, {"quantization": "nf4"}, {"quantization": "int8"}, {"dtype": "float16"},
                {"max_tokens": 64}, {"adapter": str(adapter)}]  # fmt: skip
    assert len({fingerprint(checkpoint(tiny_gpt2, **s)) for s in settings}) == len(settings)


def test_answers_of_16_bits_are_not_those_of_before_logits_were_kept_in_32(tiny_gpt2):
    def before(one):
        files = {f"model/{file.name}": file for file in files_of(tiny_gpt2)}
        return text_fingerprint(
            files, Once(), quantization="none", dtype=one.dtype, max_tokens=None,
            trust_remote_code=False,
        )  # fmt: skip

    found = {dtype: checkpoint(tiny_gpt2, dtype=dtype) for dtype in ("float32", "bfloat16")}
    assert fingerprint(found["float32"]) == before(found["float32"])
    assert fingerprint(found["bfloat16"]) != before(found["bfloat16"])


def test_changed_adapter_changes_the_fingerprint(tiny_gpt2, adapter):
    adapted = checkpoint(tiny_gpt2, adapter=str(adapter))
    before = fingerprint(adapted)
    weights = load_file(adapter / "adapter_model.safetensors")
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] * 1.001}, adapter / "adapter_model.safetensors")
    after = fingerprint(adapted)
    edit_json(adapter / "adapter_config.json", lora_alpha=16)
    assert len({before, after, fingerprint(adapted)}) == 3


def test_copy_elsewhere_has_the_same_fingerprint(tmp_path, tiny_gpt2, adapter):
    shutil.copytree(tiny_gpt2, tmp_path / "other place" / "model copy")
    shutil.copytree(adapter, tmp_path / "adapter copy")
    here = checkpoint(tiny_gpt2, adapter=str(adapter))
    there = checkpoint(
        tmp_path / "other place" / "model copy", adapter=str(tmp_path / "adapter copy")
    )
    assert fingerprint(here) == fingerprint(there)


@pytest.mark.parametrize("name", ["README.md", "trainer_state.json", "training_args.bin"])
def test_files_that_change_no_answer_change_no_fingerprint(folder, name):
    before = fingerprint(checkpoint(folder))
    (folder / name).write_text("{}")
    assert fingerprint(checkpoint(folder)) == before


def test_where_a_config_says_it_came_from_changes_no_fingerprint(folder):
    before = fingerprint(checkpoint(folder))
    edit_json(folder / "config.json", _name_or_path="/somewhere", transformers_version="5.0")
    assert fingerprint(checkpoint(folder)) == before


def test_swapped_shards_change_the_fingerprint(folder):
    """The same bytes under other names are another model."""
    shutil.copy(folder / "model.safetensors", folder / "a.safetensors")
    flip_one_weight(folder)
    before = fingerprint(checkpoint(folder))
    (folder / "a.safetensors").rename(folder / "t.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "t.safetensors").rename(folder / "model.safetensors")
    assert fingerprint(checkpoint(folder)) != before


# ------------------------------------------------------------------------ resolving


def test_resolved_checkpoint_has_absolute_paths_and_a_fingerprint(tiny_gpt2, adapter):
    found = resolve(tiny_gpt2, adapter=str(adapter), max_tokens=64, quantization="nf4")
    assert found.path == str(tiny_gpt2.resolve())
    assert found.adapter == str(adapter.resolve())
    assert (found.max_tokens, found.quantization) == (64, "nf4")
    assert found.fingerprint == fingerprint(found)


def test_auto_precision_follows_the_device(tiny_gpt2):
    assert resolve(tiny_gpt2).dtype == "float32"
    assert resolve(tiny_gpt2, on_gpu=True).dtype == "bfloat16"
    assert resolve(tiny_gpt2, on_gpu=True, dtype="float16").dtype == "float16"
    assert resolve(tiny_gpt2).fingerprint != resolve(tiny_gpt2, on_gpu=True).fingerprint


def problem(model, **settings):
    with pytest.raises(InputError) as caught:
        resolve(model, **settings)
    (text,) = caught.value.problems
    return text


def test_missing_folder_is_named_with_its_key(tmp_path):
    text = problem(tmp_path / "nowhere")
    assert text.startswith("targets[0].model: no such folder: ")
    assert "nowhere" in text


def test_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "is a file; give the folder" in problem(tmp_path / "model.safetensors")


def test_folder_without_config_says_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    text = problem(tmp_path)
    assert "no config.json" in text
    assert "notes.txt" in text


def test_empty_folder_says_so(tmp_path):
    assert "found: nothing" in problem(tmp_path)


def test_adapter_in_place_of_a_model_says_how_to_name_both(adapter):
    text = problem(adapter)
    assert "PEFT adapter" in text
    assert "`adapter`" in text
    assert "`model`" in text


def test_adapter_with_its_bases_config_says_the_same(adapter, tiny_gpt2):
    shutil.copy(tiny_gpt2 / "config.json", adapter)
    text = problem(adapter)
    assert "this is a PEFT adapter: name it as `adapter` and its base as `model`" in text


def test_model_in_place_of_an_adapter_is_refused_under_its_own_key(tiny_gpt2):
    text = problem(tiny_gpt2, adapter=str(tiny_gpt2))
    assert text.startswith("targets[0].adapter: ")
    assert "adapter_config.json" in text


def test_missing_adapter_is_named(tiny_gpt2, tmp_path):
    text = problem(tiny_gpt2, adapter=str(tmp_path / "no-adapter"))
    assert "adapter: no such folder" in text
    assert "no-adapter" in text


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_refused_with_what_to_do(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"\x80\x02")
    text = problem(folder)
    assert name in text
    assert "unpickles no file" in text
    assert "save_pretrained" in text


def test_pickled_adapter_is_refused(tiny_gpt2, adapter):
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({}, adapter / "adapter_model.bin")
    assert "adapter_model.bin" in problem(tiny_gpt2, adapter=str(adapter))


def test_pickled_adapter_is_refused_whatever_lies_beside_it(tiny_gpt2, adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "optimizer.safetensors")
    torch.save({}, adapter / "adapter_model.bin")
    assert "adapter_model.bin" in problem(tiny_gpt2, adapter=str(adapter))


def test_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    text = problem(folder)
    assert "has no *.safetensors weights (found: config.json" in text
    assert "save_pretrained(folder)" in text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pytorch_model_fsdp_0", "accelerate merge-weights"),
        ("global_step100", "zero_to_fp32.py . . --safe_serialization"),
        ("checkpoint-40", "name a checkpoint of the training, such as "),
        ("model.Q4_K_M.gguf", "gguf_file: model.Q4_K_M.gguf"),
    ],
)
def test_folder_whose_weights_stand_elsewhere_says_what_to_do(folder, name, hint):
    (folder / "model.safetensors").unlink()
    (folder / name).mkdir()
    text = problem(folder)
    assert hint in text
    assert "save_pretrained" not in text


def test_folder_without_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "has no tokenizer" in problem(folder)


def test_name_that_is_nowhere_says_what_to_check():
    text = problem("no-such-owner/no-such-model")
    assert "'no-such-owner/no-such-model'" in text
    assert "local folder" in text


def test_config_that_is_no_json_is_refused_with_its_path(folder):
    (folder / "config.json").write_text("{not json")
    assert "config.json" in problem(folder)


def test_config_that_is_no_object_is_refused(folder):
    (folder / "config.json").write_text("[]")
    assert problem(folder).endswith("config.json should hold an object, but it holds a list")


@pytest.mark.parametrize("header", [b"[1, 2]", b'{"weight": 1}', b'{"weight": {}}'])
def test_weights_whose_header_says_nothing_are_refused(folder, header):
    content = len(header).to_bytes(8, "little") + header
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors is not a whole safetensors file" in problem(folder)


# --------------------------------------------------------------------- remote folders


def put(folder, url):
    fs, path = fsspec.core.url_to_fs(url)
    for file in folder.iterdir():
        fs.pipe_file(f"{path}/{file.name}", file.read_bytes())
    return fs, path


def test_remote_folder_is_the_same_checkpoint(tiny_gpt2):
    put(tiny_gpt2, "memory://remote/model")
    assert resolve("memory://remote/model").fingerprint == resolve(tiny_gpt2).fingerprint


def test_missing_remote_folder_is_named():
    assert "memory://remote/nothing" in problem("memory://remote/nothing")


def test_remote_folder_that_was_trained_on_is_downloaded_again(folder):
    """Weights of one shape have one size: size alone does not tell one checkpoint from the next."""
    put(folder, "memory://remote/trained")
    before = resolve("memory://remote/trained").fingerprint
    flip_one_weight(folder)
    put(folder, "memory://remote/trained")
    after = resolve("memory://remote/trained").fingerprint
    assert after == resolve(folder).fingerprint != before


# -------------------------------------------------------------------------- loaders


def test_loader_loads_what_was_planned(tiny_gpt2):
    model = CausalLMLoader(resolve(tiny_gpt2, max_tokens=20), batch_tokens=77).load()
    assert (model.batch_tokens, model.max_tokens) == (77, 20)
    assert len(model.answer(["And it came to pass"], moments=True)[0].log_prob) > 1


@pytest.mark.parametrize("kind", ["target", "mask_fill", "infill"])
@pytest.mark.parametrize("change", [flip_one_weight, change_tokenizer])
def test_loader_refuses_files_that_changed_after_planning(tmp_path, kind, change):
    folder = tmp_path / "model"
    shutil.copytree(PARAPHRASER if kind == "mask_fill" else BASE, folder)
    if kind == "target":
        planned = resolve(folder)
    else:
        spec = TypeAdapter(TextNeighbors).validate_python({"kind": kind, "model": str(folder)})
        planned = resolve_paraphraser(spec, "neighbors.model")
    change(folder)
    with pytest.raises(RaymiaError, match="not the files that the audit was planned with"):
        planned.loader(PoolSpec()).load()


@pytest.mark.parametrize("kind", ["target", "mask_fill", "infill"])
def test_a_file_that_is_written_to_or_removed_after_it_was_looked_at_is_named(tmp_path, kind):
    folder = tmp_path / "model"
    shutil.copytree(PARAPHRASER if kind == "mask_fill" else BASE, folder)
    (folder / "trainer_state.json").write_text("{}")
    if kind == "target":
        planned = resolve(folder)
    else:
        spec = TypeAdapter(TextNeighbors).validate_python({"kind": kind, "model": str(folder)})
        planned = resolve_paraphraser(spec, "neighbors.model")
    loader = planned.loader(PoolSpec())
    (folder / "trainer_state.json").write_text("is no part of the model")
    for file in files_of(folder):
        unchanged, before = loader.watch(), file.read_bytes()
        unchanged()
        file.write_bytes(before)
        with pytest.raises(RaymiaError, match=f"no longer the files .*: {file} was written to or"):
            unchanged()
        unchanged = loader.watch()
        file.unlink()
        with pytest.raises(RaymiaError, match=f"no longer the files .*: {file} was written to or"):
            unchanged()
        file.write_bytes(before)


def test_of_models_on_one_base_that_one_is_refused_whose_adapter_is_written_to(tiny_gpt2, adapter):
    watches = [resolve(tiny_gpt2, adapter=place).loader(PoolSpec()).watch()
               for place in (None, str(adapter))]  # fmt: skip
    edit_json(adapter / "adapter_config.json", lora_alpha=99)
    watches[0]()
    with pytest.raises(RaymiaError, match=f"{adapter / 'adapter_config.json'} was written to"):
        watches[1]()


def test_loader_refuses_an_adapter_that_changed_after_planning(tiny_gpt2, adapter):
    planned = resolve(tiny_gpt2, adapter=str(adapter))
    edit_json(adapter / "adapter_config.json", lora_alpha=99)
    with pytest.raises(RaymiaError, match="adapter"):
        CausalLMLoader(planned, batch_tokens=64).load()


def test_loader_on_a_machine_without_the_folder_says_so(folder):
    planned = resolve(folder)
    shutil.rmtree(folder)
    with pytest.raises(RaymiaError, match=str(folder)):
        CausalLMLoader(planned, batch_tokens=64).load()


def test_loader_refuses_a_checkpoint_without_the_planned_fingerprint():
    with pytest.raises(RaymiaError):
        CausalLMLoader(checkpoint(BASE), batch_tokens=64).load()


def test_a_touched_file_that_many_share_is_hashed_once_for_all(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"weights")

    class Shares:
        label = "one of many"

        def take_fingerprint(self, once):
            return file_hash(tmp_path / "model.safetensors", once)

        def check(self, once=None):
            assert self.take_fingerprint(once) == digest_file(tmp_path / "model.safetensors")

    watches, hashed = [Watch(Shares()) for _ in range(5)], []
    monkeypatch.setattr(
        source, "digest_file", lambda file: hashed.append(file) or digest_file(file)
    )
    for mode in (0o440, 0o640):
        (tmp_path / "model.safetensors").chmod(mode)
        for watch in watches:
            watch.check()
    assert len(hashed) == 2
