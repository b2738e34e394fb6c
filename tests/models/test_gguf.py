"""GGUF files: what is refused before one is read, and what its fingerprint is of."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from small_gguf import save_gguf
from tiny_models import checkpoint, fingerprint, save_adapter, save_tiny

from raymia.models.causal.family import _load_base
from raymia.models.causal.loader import CausalLMLoader
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.spec import ModelSpec
from raymia.util.errors import InputError
from raymia.util.once import Once


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "small.Q4_1.gguf").write_bytes(b"GGUF one")
    return tmp_path


def resolve(folder, name, **settings):
    spec = ModelSpec(model=str(folder), gguf_file=name, **settings)
    return resolve_causal_lm(spec, "targets[0].model", on_gpu=False)


def test_file_that_is_not_there_is_named_with_those_that_are(folder):
    with pytest.raises(InputError) as caught:
        resolve(folder, "large.gguf")
    (problem,) = caught.value.problems
    assert problem.startswith("targets[0].model: no file large.gguf in ")
    assert "small.Q4_1.gguf" in problem


def test_missing_package_is_named_with_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="gguf is not installed here, and GGUF files need it"):
        resolve(folder, "small.Q4_1.gguf")


def test_fingerprint_is_of_the_files_content(folder):
    there = checkpoint(folder, gguf_file="small.Q4_1.gguf")
    before = fingerprint(there)
    (folder / "other.gguf").write_bytes(b"another file changes nothing")
    assert fingerprint(there) == before
    (folder / "small.Q4_1.gguf").write_bytes(b"GGUF two")
    assert fingerprint(there) != before


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_gguf(tmp_path_factory.mktemp("gguf"))


def adapter_of(folder, **settings):
    base = save_tiny(folder / "base", "llama", vocab_size=64, **settings)
    return save_adapter(folder / "adapter", base)


def with_adapter(base, adapter):
    return resolve(base, "small.gguf", adapter=str(adapter))


def test_an_adapter_that_fits_the_model_in_the_file_is_taken(llama, tmp_path):
    assert with_adapter(llama, adapter_of(tmp_path)).facts.vocabulary == 64


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_hidden_layers": 3}, "for which the model that its adapter_config.json describes"),
        ({"hidden_size": 64, "head_dim": 32}, "size mismatch"),
    ],
)
def test_an_adapter_of_another_base_is_refused_before_the_file_is_loaded(
    llama, tmp_path, settings, said
):
    with pytest.raises(InputError, match=r"targets.0..adapter: .*does not fit its base") as caught:
        with_adapter(llama, adapter_of(tmp_path, **settings))
    assert said in str(caught.value)


def test_what_it_takes_in_memory_is_that_of_its_numbers_unpacked(llama):
    found = CausalLMLoader(resolve(llama, "small.gguf"), batch_tokens=100).memory(Once())
    layer = 2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32
    assert found.weights == 4 * (2 * 64 * 32 + 32 + 2 * layer)
    assert found.working > 100 * 32 * 4


def test_a_packed_file_is_unpacked_and_asks_the_hub_for_no_kernel(tmp_path, monkeypatch):
    """transformers would run code from there, and answer otherwise where it can be had."""

    def asked():
        raise AssertionError("a kernel of the model hub")

    kernels = pytest.importorskip("transformers.quantizers.quantizer_gguf")
    monkeypatch.setattr(kernels, "get_gguf_kernel", asked)
    found = {}
    for name in ("plain", "packed"):
        folder = save_gguf(tmp_path / name, packed=name == "packed")
        model = _load_base(resolve(folder, "small.gguf"))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        with torch.no_grad():
            found[name] = model(input_ids=torch.arange(9)[None]).logits
    assert (found["plain"] - found["packed"]).abs().max() < 0.1 * found["plain"].abs().max()


def test_quantization_on_top_of_a_file_is_refused_before_it_is_loaded(llama):
    with pytest.raises(InputError, match=r"targets\[0\].quantization: .*leave out 'nf4'"):
        resolve(llama, "small.gguf", quantization="nf4")
