"""Of a checkpoint on another machine, what is read is downloaded, and nothing else."""

from __future__ import annotations

import shutil
from collections import namedtuple

import fsspec
import pytest
from small_gguf import save_gguf
from small_image_models import save_pipeline
from tiny_models import save_adapter, save_tiny

from raymia.models.causal.loader import CausalLMLoader
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.image_source import resolve_image_model
from raymia.models.source import PICKLES, Reads, bring, locate, origins_of
from raymia.spec import ModelSpec
from raymia.storage import downloads
from raymia.storage.downloads import ORIGINS
from raymia.storage.remote import StorageError
from raymia.util.errors import InputError
from raymia.util.once import Once

LEFT_BY_A_TRAINING = (
    "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "trainer_state.json",
    "global_step9/mp_rank_00_model_states.pt", "pytorch_model_fsdp_0/__0_0.distcp",
    "checkpoint-5/optimizer.pt", "checkpoint-5/model.safetensors", "checkpoint-5/config.json",
)  # fmt: skip
READ_OR_SMALL = {"trainer_state.json", "checkpoint-5/config.json"}


@pytest.fixture
def far(tmp_path, monkeypatch):
    """Puts a folder on another machine; says what of it was downloaded."""
    monkeypatch.setenv("RAYMIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("raymia.models.source.SMALL_BYTES", 64)
    url = f"memory://far-{tmp_path.name}/run"
    fs, path = fsspec.core.url_to_fs(url)
    got, get_file = [], type(fs).get_file

    def noting(self, name, place, **options):
        got.append(str(name).removeprefix(f"{path}/"))
        get_file(self, name, place, **options)

    monkeypatch.setattr(type(fs), "get_file", noting)

    def put(folder):
        for file in (file for file in folder.rglob("*") if file.is_file()):
            fs.pipe_file(f"{path}/{file.relative_to(folder)}", file.read_bytes())
        return url, got

    return put


def trained(folder, names=LEFT_BY_A_TRAINING):
    """The folder as a training leaves it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name == "checkpoint-5/model.safetensors":
            shutil.copy(next(folder.glob("*.safetensors")), folder / name)
        else:
            (folder / name).write_text("{}" if name.endswith(".json") else "x" * 100)
    return folder


def text(model, **settings):
    spec = ModelSpec(model=str(model), **settings)
    return resolve_causal_lm(spec, "targets[0].model", on_gpu=False)


def names_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_of_a_trained_language_model_no_more_comes_than_is_read(tmp_path, far):
    folder = save_tiny(tmp_path / "model", "gpt2")
    read = names_in(folder)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= read
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    (folder / "modeling_own.py").write_text("x = 1\n" * 20)
    read |= {"additional_chat_templates/rag.jinja", "modeling_own.py"}
    url, got = far(trained(folder))
    found, local = text(url), text(folder)
    assert set(got) == read | READ_OR_SMALL
    assert (found.fingerprint, found.architecture(Once())) == (
        local.fingerprint,
        local.architecture(Once()),
    )
    assert [CausalLMLoader(c, batch_tokens=64).memory(Once()) for c in (found, local)] == [
        CausalLMLoader(text(save_tiny(tmp_path / "alone", "gpt2")), 64).memory(Once())
    ] * 2


def test_an_adapter_comes_without_its_optimizer(tmp_path, far, tiny_gpt2):
    folder = trained(save_adapter(tmp_path / "adapter", tiny_gpt2))
    url, got = far(folder)
    found = text(tiny_gpt2, adapter=url)
    assert found.fingerprint == text(tiny_gpt2, adapter=str(folder)).fingerprint
    assert not [name for name in got if "optimizer" in name or "checkpoint-5/model" in name]


def test_of_a_pipeline_the_weights_of_all_parts_come(tmp_path, far):
    """And those of checkpoints in it, since its fingerprint is of them too."""
    folder = tmp_path / "pipeline"
    save_pipeline("ddpm", folder)
    part = next(folder.glob("*/*.safetensors")).relative_to(folder).as_posix()
    names = ("optimizer.bin", "checkpoint-5/optimizer.bin", "random_states_0.pkl")
    trained(folder, names)
    (folder / "checkpoint-5" / "model.safetensors").write_bytes((folder / part).read_bytes())
    url, got = far(folder)
    found, local = (
        resolve_image_model(ModelSpec(model=str(m)), "targets[0].model", on_gpu=False)
        for m in (url, folder)
    )
    assert found.fingerprint == local.fingerprint
    assert {part, "checkpoint-5/model.safetensors"} <= set(got)
    assert not set(got) & set(names)


def test_of_gguf_files_the_one_that_is_named_comes(tmp_path, far):
    folder = save_tiny(tmp_path / "model", "gpt2")
    for name in ("small.gguf", "other.gguf"):
        save_gguf(folder, name=name)
    url, got = far(folder)
    found = text(url, gguf_file="small.gguf")
    assert found.fingerprint == text(folder, gguf_file="small.gguf").fingerprint
    assert "small.gguf" in got
    assert not {"other.gguf", "model.safetensors"} & set(got)
    with pytest.raises(InputError, match=r"found: other\.gguf, small\.gguf"):
        text(url, gguf_file="third.gguf")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pytorch_model.bin", "has its weights in pytorch_model.bin only"),
        ("model.gguf", "name the file as `gguf_file: model.gguf`"),
        ("global_step9/mp_rank_00_model_states.pt", "DeepSpeed saved it in shards"),
        ("pytorch_model_fsdp_0/__0_0.distcp", "FSDP saved it in shards"),
        ("checkpoint-5/model.safetensors", "name a checkpoint of the training, such as"),
    ],
)
def test_a_folder_without_weights_is_refused_as_it_is_here(tmp_path, far, name, said):
    folder = save_tiny(tmp_path / "model", "gpt2")
    trained(folder, [name])
    (folder / "model.safetensors").unlink()
    url, got = far(folder)
    for place in (url, folder):
        with pytest.raises(InputError, match=said):
            text(place)
    assert name not in got


def test_a_tokenizer_comes_without_weights(tmp_path, far):
    url, got = far(save_tiny(tmp_path / "model", "gpt2"))
    locate(url, None, Reads("none"), where="targets[0].tokenizer")
    assert "tokenizer.json" in got
    assert "model.safetensors" not in got


def test_a_worker_downloads_what_the_driver_did(tmp_path, far):
    url, got = far(trained(save_tiny(tmp_path / "model", "gpt2")))
    found = text(url)
    origins, before = origins_of([found]), sorted(got)
    shutil.rmtree(found.path)
    ORIGINS.clear()
    got.clear()
    bring(origins)
    assert sorted(got) == before
    found.check()


def test_a_folder_that_does_not_fit_is_not_begun(tmp_path, far, monkeypatch):
    folder = trained(save_tiny(tmp_path / "model", "gpt2"))
    url, got = far(folder)
    taken = {n for n in names_in(folder) if "checkpoint-5/m" not in n}
    taken -= {n for n in taken if any((folder / n).match(p) for p in (*PICKLES, "*.distcp"))}
    size = sum((folder / name).stat().st_size for name in taken)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage(size - 1))
    with pytest.raises(StorageError, match=rf"^{url}: 0\.0 GiB of it are to be downloaded to .*"):
        text(url)
    assert got == []
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage(size))
    assert text(url).fingerprint == text(folder).fingerprint
