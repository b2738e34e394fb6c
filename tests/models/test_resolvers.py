"""What a checkpoint can do is known from its configs and headers, before a model is built."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
import transformers
from edited import edit
from small_families import save_family
from small_image_models import save_model, save_pipeline
from tiny_models import BASE, PARAPHRASER, checkpoint, save_adapter, save_tiny

from raymia.models.causal.reading import Rendered
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.image_source import image_families, resolve_image_model
from raymia.models.paraphrasers.resolver import resolve_paraphraser
from raymia.models.samples.resolver import Samples
from raymia.spec import InfillNeighbors, MaskFillNeighbors, ModelSpec, PoolSpec
from raymia.util.errors import InputError

SMALL_SHARDS = {"max_shard_size": "8KB"}
SMALL = {"vocab_size": 2048, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
OTHER_TEXTS = {
    "mpt": transformers.MptConfig(**SMALL, d_model=32, n_heads=2, n_layers=2, max_seq_len=40),
    "bloom": transformers.BloomConfig(**SMALL, hidden_size=32, n_head=2, n_layer=2),
    "opt": transformers.OPTConfig(
        **SMALL, hidden_size=32, word_embed_proj_dim=32, ffn_dim=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=48,
    ),
    "decoder of BERT": transformers.BertConfig(
        **SMALL, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=56, is_decoder=True,
    ),
    "decoder of RoBERTa": transformers.RobertaConfig(
        **{**SMALL, "pad_token_id": 1}, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, max_position_embeddings=58, is_decoder=True,
    ),
}  # fmt: skip


@pytest.fixture
def no_models(monkeypatch):
    """Whoever builds a model that has numbers fails."""
    real = torch.nn.Module.__init__

    def build(self, *args, **options):
        assert torch.get_default_device().type == "meta", "a model was built"
        real(self, *args, **options)

    def arm():
        monkeypatch.setattr(torch.nn.Module, "__init__", build)

    return arm


def hollow(folder):
    """Leave the headers of weights alone: their data is a hole in the file."""
    for file in folder.rglob("*.safetensors"):
        content, size = file.read_bytes(), file.stat().st_size
        header = content[: 8 + int.from_bytes(content[:8], "little")]
        file.write_bytes(header)
        os.truncate(file, size)


def text_model(folder, **settings):
    spec = ModelSpec(model=str(folder), **settings)
    return resolve_causal_lm(spec, "targets[0].model", on_gpu=False)


def image_model(folder, **settings):
    spec = ModelSpec(model=str(folder), **settings)
    return resolve_image_model(spec, "targets[0].model", on_gpu=False)


def refusal(resolve, folder, **settings):
    with pytest.raises(InputError) as caught:
        resolve(folder, **settings)
    (problem,) = caught.value.problems
    assert problem.startswith("targets[0].")
    return problem


def save_other(folder, kind):
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(OTHER_TEXTS[kind]).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return folder


# ------------------------------------------------------------------ language models


@pytest.mark.parametrize("kind", ["gpt2", "llama", "falcon-alibi", "gptj", "gemma2", *OTHER_TEXTS])
def test_facts_of_a_language_model_are_what_the_loaded_one_says(tmp_path, no_models, kind):
    (save_other if kind in OTHER_TEXTS else save_tiny)(tmp_path, kind)
    loaded = text_model(tmp_path).loader(PoolSpec()).load()
    hollow(tmp_path)
    no_models()
    found = text_model(tmp_path)
    assert found.context == loaded.max_tokens
    assert found.facts.vocabulary == loaded.model.config.get_text_config().vocab_size
    assert found.facts.model_type == loaded.model.config.model_type
    assert found.facts.parameters == loaded.model.num_parameters()
    assert f"{found.facts.parameters:,} parameters" in found.describe()


@pytest.mark.parametrize("kind", OTHER_TEXTS)
def test_text_of_the_whole_context_is_answered(tmp_path, kind):
    """A context that is too long by one token is an index error in the model."""
    model = text_model(save_other(tmp_path, kind)).loader(PoolSpec()).load()
    model.reader.read = lambda texts: [Rendered([5, 7] * 60) for _ in texts]
    (answer,) = model.answer(["a long text"], moments=False)
    assert len(answer.log_prob) == (model.max_tokens or 120) - 1
    assert np.isfinite(answer.log_prob).all()


def test_context_is_less_what_an_adapter_puts_before_a_text(tmp_path, tiny_gpt2):
    adapter = save_adapter(tmp_path / "a", tiny_gpt2, method="PrefixTuning", num_virtual_tokens=4)
    assert text_model(tiny_gpt2, adapter=str(adapter)).context == 124
    assert text_model(tiny_gpt2, adapter=str(adapter), max_tokens=100).context == 100
    assert text_model(tiny_gpt2).context == 128


def test_stride_that_is_longer_than_the_context_is_refused(tiny_gpt2):
    problem = refusal(text_model, tiny_gpt2, long_texts="windows", stride=128)
    assert problem.startswith("targets[0].stride: 128 is not less than the 128 tokens")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"is_encoder_decoder": True}, "it has an encoder"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "was trained for another task"),
        ({"model_type": "bert"}, "each token sees those after it"),
        ({"model_type": "xlnet"}, "each token sees those after it"),
        ({"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}, "another task"),
    ],
)
def test_what_is_no_causal_language_model_is_refused(tmp_path, no_models, changes, why):
    save_tiny(tmp_path)
    edit(tmp_path / "config.json", **changes)
    hollow(tmp_path)
    no_models()
    problem = refusal(text_model, tmp_path)
    assert "not a causal language model" in problem
    assert why in problem


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_is_fetched_from_another_repository_is_refused(tmp_path, file):
    """What it is when the model is loaded, no fingerprint says."""
    folder = save_tiny(tmp_path / "m")
    named = {"AutoModelForCausalLM": "lab/code--modeling_x.X", "AutoTokenizer": [None, "own.Own"]}
    edit(folder / file, auto_map=named)
    with pytest.raises(InputError, match=r"another repository \(lab/code--modeling_x.X\)"):
        text_model(folder, trust_remote_code=True)
    assert text_model(folder).fingerprint


def test_encoders_that_transformers_saves_are_refused(tmp_path, no_models):
    config = transformers.BertConfig(**SMALL, hidden_size=32, num_hidden_layers=1,
                                     num_attention_heads=2, intermediate_size=32)  # fmt: skip
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path)
    no_models()
    assert "is a bert model, not a causal language model" in refusal(text_model, tmp_path)


def test_decoder_whose_config_says_that_it_is_none_is_no_encoder(tmp_path):
    """Old configs write it out, and mean a decoder beside an encoder."""
    save_tiny(tmp_path)
    edit(tmp_path / "config.json", is_decoder=False)
    assert text_model(tmp_path).context == 128


def test_table_of_positions_that_is_shorter_than_the_config_says_is_refused(tmp_path, no_models):
    save_tiny(tmp_path)
    edit(tmp_path / "config.json", n_positions=256)
    no_models()
    problem = refusal(text_model, tmp_path)
    assert "says that the model reads 256 tokens" in problem
    assert "transformer.wpe.weight, has 128" in problem


def test_architecture_that_transformers_does_not_know_is_refused(tmp_path):
    save_tiny(tmp_path)
    edit(tmp_path / "config.json", model_type="llama-of-tomorrow")
    assert "transformers cannot read the config of" in refusal(text_model, tmp_path)


def test_base_is_read_once_for_many_adapters(tmp_path, tiny_gpt2, monkeypatch):
    from raymia.util.once import Once

    adapters = [save_adapter(tmp_path / str(n), tiny_gpt2, seed=n) for n in range(3)]
    reads, once = [], Once()
    real = transformers.AutoConfig.from_pretrained
    monkeypatch.setattr(
        transformers.AutoConfig,
        "from_pretrained",
        lambda *a, **k: reads.append(a) or real(*a, **k),
    )
    for adapter in adapters:
        spec = ModelSpec(model=str(tiny_gpt2), adapter=str(adapter))
        resolve_causal_lm(spec, "model", on_gpu=False, once=once)
    assert len(reads) == 1


def test_paraphrasers_are_of_their_kind(tiny_gpt2):
    spec = MaskFillNeighbors(model=str(tiny_gpt2))
    with pytest.raises(InputError, match="not an encoder-decoder such as T5"):
        resolve_paraphraser(spec, "neighbors.model")
    with pytest.raises(InputError, match="not a causal language model"):
        resolve_paraphraser(InfillNeighbors(kind="infill", model=str(PARAPHRASER)), "n.model")


# --------------------------------------------------------------------------- images

KINDS = ["ddpm", "ddim", "pndm", "ldm", "stable", "dit"]


@pytest.mark.parametrize("kind", KINDS)
def test_facts_of_a_pipeline_are_what_the_loaded_one_says(tmp_path, no_models, kind):
    saved = save_pipeline(kind, tmp_path).pipeline
    loaded = image_model(tmp_path).loader(PoolSpec()).load()
    hollow(tmp_path)
    no_models()
    found = image_model(tmp_path)
    network = getattr(saved, "unet", None) or saved.transformer
    assert found.network.kind == type(network).__name__
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.scheduler == type(saved.scheduler).__name__
    assert found.train_timesteps == loaded.path.timesteps
    assert found.prediction == loaded.path.prediction
    assert (found.shape, found.latent_shape) == (loaded.shape, loaded.latent_shape)
    assert found.is_captioned == (loaded.embed is not None)
    assert (found.autoencoder is None) == (loaded.autoencoder is None)
    assert found.describe().startswith(f"{found.network.kind}, {found.parameters:,} parameters")


def test_facts_of_an_autoencoder_and_of_a_pixel_model_are_the_loaded_ones(tmp_path, no_models):
    for kind in ("autoencoder_kl", "imagegpt"):
        save_model(kind, tmp_path / kind)
    autoencoder = image_model(tmp_path / "autoencoder_kl").loader(PoolSpec()).load()
    pixels = image_model(tmp_path / "imagegpt").loader(PoolSpec()).load()
    hollow(tmp_path)
    no_models()
    found = image_model(tmp_path / "autoencoder_kl")
    assert (found.shape, found.latents) == (autoencoder.shape, autoencoder.latent_shape)
    assert found.parameters == sum(p.numel() for p in autoencoder.network.parameters())
    other = image_model(tmp_path / "imagegpt")
    assert (other.shape, other.colors) == (pixels.shape, len(pixels.palette))
    assert other.parameters == sum(p.numel() for p in pixels.model.parameters())


def test_every_family_of_images_has_a_name_of_its_own():
    names = [family.family for family in image_families()]
    assert sorted(names) == ["autoencoder", "denoiser", "pixels"]


@pytest.mark.parametrize(
    ("kind", "part", "changes", "why"),
    [
        ("stable", "unet", {"in_channels": 9}, "takes 9 channels, and the pipeline's latents have "
         "4; it is made for inpainting"),
        ("stable", "unet", {"in_channels": 8}, "takes 8 channels"),
        ("stable", "unet", {"addition_embed_type": "image"}, "more than a caption and the image's"),
        ("stable", "unet", {"time_cond_proj_dim": 256}, "latent consistency"),
        ("stable", "unet", {"num_class_embeds": 1000}, "is told a class of each image beside its"),
        ("ddpm", "unet", {"class_embed_type": "identity"}, "in another way than by its number"),
        ("ddpm", "unet", {"out_channels": 3}, "takes 1 channels and gives 3"),
        ("dit", "transformer", {"_class_name": "HunyuanDiT2DModel"}, "is DiTPipeline, whose "
         "network is a HunyuanDiT2DModel; raymia knows how to ask those of UNet, Stable Diffusion"),
        ("dit", "transformer", {"_class_name": "PixArtTransformer2DModel"}, "is conditioned on text"
         ", and the pipeline has no text_encoder"),
        ("dit", "transformer", {"_class_name": "Transformer2DModel",
                                "norm_type": "ada_norm_single"}, "which tells PixArt's apart"),
        ("stable", "vae", {"_class_name": "AsymmetricAutoencoderKL"},
         "has the class AsymmetricAutoencoderKL"),
        ("stable", "vae", {"latents_mean": [0.0] * 4}, "channel by channel"),
    ],
)  # fmt: skip
def test_network_that_wants_more_than_an_image_is_refused(
    tmp_path, no_models, kind, part, changes, why
):
    save_pipeline(kind, tmp_path)
    edit(tmp_path / part / "config.json", **changes)
    hollow(tmp_path)
    no_models()
    assert why in refusal(image_model, tmp_path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"text_encoder": [None, None]}, "conditioned on text, and the pipeline has no "),
        ({"text_encoder": ["transformers", "T5EncoderModel"]}, "whose text_encoder is a T5"),
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
          "_class_name": "StableDiffusionXLPipeline"}, "with text_encoder_2, and raymia"),
    ],
)  # fmt: skip
def test_pipeline_that_is_conditioned_otherwise_is_refused(tmp_path, no_models, changes, why):
    save_pipeline("stable", tmp_path)
    edit(tmp_path / "model_index.json", **changes)
    no_models()
    assert why in refusal(image_model, tmp_path)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("CMStochasticIterativeScheduler", "the scheduler of a consistency model"),
        ("LCMScheduler", "the scheduler of a consistency model"),
        ("TCDScheduler", "the scheduler of a consistency model"),
        ("SCMScheduler", "the scheduler of a consistency model"),
        ("FlowMatchLCMScheduler", "the scheduler of a consistency model"),
        ("EDMEulerScheduler", "the scheduler of an EDM"),
        ("EDMDPMSolverMultistepScheduler", "the scheduler of an EDM"),
        ("ScoreSdeVeScheduler", "the scheduler of a VE diffusion"),
        ("KarrasVeScheduler", "the scheduler of a VE diffusion"),
        ("IPNDMScheduler", "whose schedule has no alphas_cumprod"),
        ("FlowMapEulerDiscreteScheduler", "whose schedule has no alphas_cumprod"),
    ],
)
def test_schedule_of_another_family_is_refused_by_its_kind(tmp_path, no_models, name, why):
    save_pipeline("ddpm", tmp_path)
    edit(tmp_path / "scheduler" / "scheduler_config.json", _class_name=name)
    no_models()
    said = refusal(image_model, tmp_path)
    assert why in said
    assert name in said


def test_sigmas_of_an_edm_are_refused_behind_another_schedulers_name(tmp_path):
    save_pipeline("ddpm", tmp_path)
    edit(tmp_path / "scheduler" / "scheduler_config.json", _class_name="EulerDiscreteScheduler",
         timestep_type="continuous", sigma_min=0.002, sigma_max=700.0)  # fmt: skip
    assert "the scheduler of an EDM, EulerDiscreteScheduler" in refusal(image_model, tmp_path)


def test_pipeline_without_a_denoising_network_says_what_it_is(tmp_path):
    save_pipeline("ddpm", tmp_path)
    shutil.rmtree(tmp_path / "unet")
    edit(tmp_path / "model_index.json", _class_name="WuerstchenDecoderPipeline")
    assert "is a WuerstchenDecoderPipeline without a unet" in refusal(image_model, tmp_path)


def noise_of(model):
    images = torch.linspace(0, 1, 2 * int(np.prod(model.shape))).reshape(2, *model.shape)
    return model.predict_noise(model.encode(images), torch.tensor([3, 700]))


@pytest.mark.parametrize("kind", ["ddpm", "stable", "sd3"])
@pytest.mark.parametrize(
    ("variant", "shards"), [("fp16", {}), ("fp16", SMALL_SHARDS), (None, SMALL_SHARDS)]
)
def test_pipeline_saved_as_a_variant_or_in_shards_answers_as_the_plain_one(
    tmp_path, kind, variant, shards
):
    save = save_family if kind == "sd3" else save_pipeline
    saved = save(kind, tmp_path / "plain").pipeline
    saved.save_pretrained(tmp_path / "other", variant=variant, **shards)
    found = image_model(tmp_path / "other")
    assert found.network.variant == variant
    indices = {file.parent.name for file in (tmp_path / "other").rglob("*.index*.json")}
    parts = [part for part in (found.network, found.autoencoder, *found.text_encoders) if part]
    assert indices == ({part.folder for part in parts} if shards else set())
    plain, other = (
        image_model(tmp_path / name).loader(PoolSpec()).load() for name in ("plain", "other")
    )
    rounded = 1e-6 if kind == "sd3" else 0  # of sums over weights that begin at other addresses
    torch.testing.assert_close(noise_of(other), noise_of(plain), rtol=0, atol=rounded)


def test_of_shards_and_a_variant_in_shards_the_plain_ones_are_read(tmp_path):
    saved = save_family("sd3", tmp_path / "plain").pipeline
    saved.save_pretrained(tmp_path / "both", **SMALL_SHARDS)
    with torch.inference_mode():  # in which it was made
        saved.to(torch.float16).save_pretrained(tmp_path / "both", variant="fp16", **SMALL_SHARDS)
    plain, both = (
        image_model(tmp_path / name).loader(PoolSpec()).load() for name in ("plain", "both")
    )
    torch.testing.assert_close(noise_of(both), noise_of(plain), rtol=0, atol=1e-6)


@pytest.mark.parametrize("part", ["transformer", "text_encoder_3"])
def test_pipeline_that_lacks_a_shard_is_refused_before_it_is_loaded(tmp_path, no_models, part):
    saved = save_family("sd3", tmp_path / "plain").pipeline
    saved.save_pretrained(tmp_path / "other", **SMALL_SHARDS)
    next((tmp_path / "other" / part).glob("*-00002-of-*")).unlink()
    no_models()
    assert f"{part}: its weights lack" in refusal(image_model, tmp_path / "other")


def test_several_variants_without_a_plain_one_are_refused(tmp_path):
    save_pipeline("ddpm", tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    for variant in ("fp16", "ema"):
        shutil.copy(weights, weights.with_suffix(f".{variant}.safetensors"))
    assert image_model(tmp_path).network.variant is None
    weights.unlink()
    assert "several variants and none is plain" in refusal(image_model, tmp_path)


@pytest.mark.parametrize("index", [True, False], ids=["with index", "without"])
def test_pipeline_that_lies_flat_answers_as_one_in_subfolders(tmp_path, index):
    saved = save_pipeline("ddpm", tmp_path / "whole").pipeline
    saved.unet.save_pretrained(tmp_path / "flat")
    saved.scheduler.save_pretrained(tmp_path / "flat")
    if index:
        shutil.copy(tmp_path / "whole" / "model_index.json", tmp_path / "flat")
    whole, flat = (
        image_model(tmp_path / name).loader(PoolSpec()).load() for name in ("whole", "flat")
    )
    torch.testing.assert_close(noise_of(flat), noise_of(whole), rtol=0, atol=0)
    assert image_model(tmp_path / "flat").capabilities.why_not({"generation"})
    assert not image_model(tmp_path / "whole").capabilities.why_not({"generation"})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n_positions": 63}, "63 n_positions"),
        ({"vocab_size": 17}, "8 colors, and config.json a vocabulary of 17"),
    ],
)
def test_pixel_model_whose_files_do_not_fit_each_other_is_refused(tmp_path, change, why):
    save_model("imagegpt", tmp_path)
    edit(tmp_path / "config.json", **change)
    assert why in refusal(image_model, tmp_path)


def test_pixel_model_without_its_colors_is_refused(tmp_path):
    save_model("imagegpt", tmp_path)
    edit(tmp_path / "preprocessor_config.json", clusters=None)
    assert "no clusters" in refusal(image_model, tmp_path)


def test_autoencoder_without_the_side_of_its_images_is_refused(tmp_path):
    save_model("autoencoder_kl", tmp_path)
    edit(tmp_path / "config.json", sample_size=None)
    assert "sample_size should be a whole number from 1 on, but is missing" in refusal(
        image_model, tmp_path
    )


# ----------------------------------------------------------------------- abilities


def test_abilities_that_are_lacking_are_said_with_the_reason(tiny_gpt2):
    plain, quantized = (checkpoint(tiny_gpt2, quantization=q) for q in ("none", "int8"))
    assert plain.capabilities.why_not({"gradients", "moments", "prefixes"}) == []
    assert quantized.capabilities.why_not({"moments", "gradients"}) == [
        "int8 weights have no gradient; audit the checkpoint unquantized"
    ]


def test_ability_that_a_family_says_nothing_of_is_lacking_with_its_name():
    samples = Samples.of(["images"], ["a"], (1, 8, 8))
    assert samples.capabilities.why_not({"weights"}) == [
        "a model of the kind samples does not give its weights, or what is done inside of it"
    ]
