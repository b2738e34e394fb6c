"""Small pipelines of the families that are told more than a caption's last states, by diffusers'
own classes, what these answer, and the table of families in the docs.

    PYTHONPATH=. python tests/support/small_families.py    # writes the table

The test of the table says when it is out of date.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from small_image_models import VOCABULARY, save_pipeline, save_with_classes, unet
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from raymia.models.image_source import resolve_image_model
from raymia.spec import ModelSpec

PAGE = Path(__file__).parents[2] / "docs" / "images.md"
START, END = "<!-- made by tests/support/small_families.py -->\n", "<!-- end -->\n"
Tensor = torch.Tensor
WIDTH = 32
WORDS = ["<pad>", "</s>", "<unk>", "a", "cat", "dog", "on", "mat"]
FAMILIES = ["sdxl", "pixart", "pixart_sigma", "sd3", "sd3_without_t5", "flux", "flux_schnell",
            "aura_flow", "lumina2", "sana",
            "flow_in_pixels"]  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A pipeline, and its network's output by the calls that the pipeline itself makes.

    Attributes
    ----------
    output : of x_t, timesteps and captions.
    is_flow : whether the output is a velocity.
    """

    pipeline: Any
    output: Callable[[Tensor, Tensor, Sequence[str]], Tensor]
    is_flow: bool


def save_family(kind: str, folder: Path) -> Family:
    """Save a pipeline of one of :data:`FAMILIES`."""
    torch.manual_seed(0)
    with torch.inference_mode():
        made = globals()[f"_{kind}"](folder)
        made.pipeline.save_pretrained(folder)
    return made


def _size(noisy: Tensor) -> tuple[int, int]:
    """Height and width of the images of latents."""
    return 2 * noisy.shape[2], 2 * noisy.shape[3]


def _inferred(call: Callable[..., Any]) -> Callable[..., Tensor]:
    @torch.inference_mode()
    def output(noisy: Tensor, timesteps: Tensor, captions: Sequence[str]) -> Tensor:
        return call(noisy, timesteps, list(captions))

    return output


def _vae(**more: Any) -> Any:
    return diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4, sample_size=16, scaling_factor=0.5, **more,
    ).eval()  # fmt: skip


def _clip_tokenizer(folder: Path) -> Any:
    words = folder / "words"
    words.mkdir(parents=True, exist_ok=True)
    (words / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(VOCABULARY)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(
        str(words / "vocab.json"), str(words / "merges.txt"), unk_token="<|endoftext|>",
        bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>",
        model_max_length=12,
    )  # fmt: skip


def _clip(kind: str, width: int = 16) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(VOCABULARY), hidden_size=width, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=12, bos_token_id=0, eos_token_id=1,
        pad_token_id=1, projection_dim=16,
    )  # fmt: skip
    return getattr(transformers, kind)(config).eval()


def _word_tokenizer(**more: Any) -> Any:
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", **more
    )


def _t5(kind: str = "T5EncoderModel") -> tuple[Any, Any]:
    config = {"T5EncoderModel": "T5Config", "UMT5EncoderModel": "UMT5Config"}[kind]
    made = getattr(transformers, config)(
        vocab_size=len(WORDS), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return getattr(transformers, kind)(made).eval(), _word_tokenizer()


def _gemma() -> tuple[Any, Any]:
    config = transformers.Gemma2Config(
        vocab_size=len(WORDS), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, pad_token_id=0, eos_token_id=1,
        bos_token_id=1,
    )  # fmt: skip
    return transformers.Gemma2Model(config).eval(), _word_tokenizer(padding_side="left")


def _sdxl(folder: Path) -> Family:
    network = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(32, 32), norm_num_groups=4, cross_attention_dim=16 + 24,
        attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    ).eval()  # fmt: skip
    tokenizer = _clip_tokenizer(folder)
    pipe = diffusers.StableDiffusionXLPipeline(
        _vae(), _clip("CLIPTextModel"), _clip("CLIPTextModelWithProjection", 24), tokenizer,
        tokenizer, network, diffusers.EulerDiscreteScheduler(), add_watermarker=False,
    )  # fmt: skip

    def call(noisy: Tensor, timesteps: Tensor, captions: list[str]) -> Tensor:
        states, _, pooled, _ = pipe.encode_prompt(
            captions, device="cpu", do_classifier_free_guidance=False
        )
        size = _size(noisy)
        sizes = pipe._get_add_time_ids(size, (0, 0), size, torch.float32, 16)
        added = {"text_embeds": pooled, "time_ids": sizes.repeat(len(captions), 1)}
        return network(
            noisy, timesteps, encoder_hidden_states=states, added_cond_kwargs=added
        ).sample

    return Family(pipe, _inferred(call), is_flow=False)


def _of_pixart(kind: str, **more: Any) -> Family:
    network = diffusers.PixArtTransformer2DModel(
        num_attention_heads=3, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1,
        cross_attention_dim=24, sample_size=8, patch_size=2, caption_channels=WIDTH, **more,
    ).eval()  # fmt: skip
    encoder, tokenizer = _t5()
    scheduler = diffusers.DPMSolverMultistepScheduler()
    pipe = getattr(diffusers, kind)(tokenizer, encoder, _vae(), network, scheduler)

    def call(noisy: Tensor, timesteps: Tensor, captions: list[str]) -> Tensor:
        states, mask, *_ = pipe.encode_prompt(
            captions, do_classifier_free_guidance=False, clean_caption=False
        )
        added: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
        if network.use_additional_conditions:
            height, width = map(float, _size(noisy))
            added["resolution"] = torch.tensor([[height, width]]).repeat(len(captions), 1)
            added["aspect_ratio"] = torch.tensor([[height / width]]).repeat(len(captions), 1)
        return network(
            noisy, encoder_hidden_states=states, encoder_attention_mask=mask, timestep=timesteps,
            added_cond_kwargs=added,
        ).sample[:, :4]  # fmt: skip

    return Family(pipe, _inferred(call), is_flow=False)


def _pixart(_: Path) -> Family:
    return _of_pixart("PixArtAlphaPipeline", use_additional_conditions=True)


def _pixart_sigma(_: Path) -> Family:
    return _of_pixart("PixArtSigmaPipeline")


def _flow() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)


def _of_sd3(folder: Path, *, with_t5: bool) -> Family:
    network = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=WIDTH,
        caption_projection_dim=16, pooled_projection_dim=32, pos_embed_max_size=8,
    ).eval()  # fmt: skip
    clip, tokenizer = "CLIPTextModelWithProjection", _clip_tokenizer(folder)
    encoder, other = _t5() if with_t5 else (None, None)
    pipe = diffusers.StableDiffusion3Pipeline(
        network, _flow(), _vae(shift_factor=0.1), _clip(clip), tokenizer, _clip(clip), tokenizer,
        encoder, other,
    )  # fmt: skip

    def call(noisy: Tensor, timesteps: Tensor, captions: list[str]) -> Tensor:
        states, _, pooled, _ = pipe.encode_prompt(
            captions, captions, captions, do_classifier_free_guidance=False
        )
        return network(
            noisy, timestep=timesteps, encoder_hidden_states=states, pooled_projections=pooled
        ).sample

    return Family(pipe, _inferred(call), is_flow=True)


def _sd3(folder: Path) -> Family:
    return _of_sd3(folder, with_t5=True)


def _sd3_without_t5(folder: Path) -> Family:
    return _of_sd3(folder, with_t5=False)


def _of_flux(folder: Path, *, is_guided: bool) -> Family:
    network = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=16,
        guidance_embeds=is_guided, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip
    encoder, other = _t5()
    pipe = diffusers.FluxPipeline(
        _flow(), _vae(shift_factor=0.1), _clip("CLIPTextModel"), _clip_tokenizer(folder), encoder,
        other, network,
    )  # fmt: skip

    def call(noisy: Tensor, timesteps: Tensor, captions: list[str]) -> Tensor:
        states, pooled, text_ids = pipe.encode_prompt(captions, captions)
        count, _, height, width = noisy.shape
        places = pipe._prepare_latent_image_ids(
            count, height // 2, width // 2, "cpu", torch.float32
        )
        packed = network(
            hidden_states=pipe._pack_latents(noisy, count, 4, height, width),
            timestep=timesteps / 1000,
            guidance=torch.ones(count) if is_guided else None, pooled_projections=pooled,
            encoder_hidden_states=states, txt_ids=text_ids, img_ids=places,
        ).sample  # fmt: skip
        return pipe._unpack_latents(packed, *_size(noisy), pipe.vae_scale_factor)

    return Family(pipe, _inferred(call), is_flow=True)


def _flux(folder: Path) -> Family:
    return _of_flux(folder, is_guided=True)


def _flux_schnell(folder: Path) -> Family:
    return _of_flux(folder, is_guided=False)


def _aura_flow(_: Path) -> Family:
    network = diffusers.AuraFlowTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=1,
        num_single_dit_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=WIDTH, caption_projection_dim=16, pos_embed_max_size=64,
    ).eval()  # fmt: skip
    encoder, tokenizer = _t5("UMT5EncoderModel")
    pipe = diffusers.AuraFlowPipeline(tokenizer, encoder, _vae(), network, _flow())

    def call(noisy: Tensor, timesteps: Tensor, captions: list[str]) -> Tensor:
        states, *_ = pipe.encode_prompt(captions, do_classifier_free_guidance=False)
        return network(noisy, encoder_hidden_states=states, timestep=timesteps / 1000).sample

    return Family(pipe, _inferred(call), is_flow=True)


def _lumina2(_: Path) -> Family:
    network = diffusers.Lumina2Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=24, num_layers=1,
        num_refiner_layers=1, num_attention_heads=2, num_kv_heads=1, multiple_of=8,
        axes_dim_rope=(4, 4, 4), cap_feat_dim=WIDTH,
    ).eval()  # fmt: skip
    pipe = diffusers.Lumina2Pipeline(network, _flow(), _vae(shift_factor=0.1), *_gemma())

    def call(noisy: Tensor, timesteps: Tensor, captions: list[str]) -> Tensor:
        states, mask, none, no_mask = pipe.encode_prompt(captions)  # the last two of empty ones
        for row, caption in enumerate(captions):
            if not caption:
                states[row], mask[row] = none[row], no_mask[row]
        return -network(
            noisy, timestep=1 - timesteps / 1000, encoder_hidden_states=states,
            encoder_attention_mask=mask,
        ).sample  # fmt: skip

    return Family(pipe, _inferred(call), is_flow=True)


def _sana(_: Path) -> Family:
    network = diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=4, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8,
        caption_channels=WIDTH, sample_size=8, timestep_scale=2.0,
    ).eval()  # fmt: skip
    stages = {"block_types": ("ResBlock", "EfficientViTBlock"), "block_out_channels": (8, 8),
              "layers_per_block": (1, 1), "qkv_multiscales": ((), (5,))}  # fmt: skip
    vae = diffusers.AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, downsample_block_type="conv",
        upsample_block_type="interpolate", scaling_factor=0.4,
        **{f"{half}_{key}": value for half in ("encoder", "decoder")
           for key, value in stages.items()},
    ).eval()  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    encoder, tokenizer = _gemma()
    pipe = diffusers.SanaPipeline(tokenizer, encoder, vae, network, scheduler)

    def call(noisy: Tensor, timesteps: Tensor, captions: list[str]) -> Tensor:
        states, mask, *_ = pipe.encode_prompt(captions, do_classifier_free_guidance=False)
        return network(
            noisy, encoder_hidden_states=states, encoder_attention_mask=mask,
            timestep=timesteps * network.config.timestep_scale,
        ).sample  # fmt: skip

    return Family(pipe, _inferred(call), is_flow=True)


def _flow_in_pixels(_: Path) -> Family:
    network = unet()
    pipe = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler())
    pipe.register_modules(scheduler=_flow())

    def call(noisy: Tensor, timesteps: Tensor, _: list[str]) -> Tensor:
        return network(noisy, timesteps).sample

    return Family(pipe, _inferred(call), is_flow=True)


def rows() -> Iterator[tuple[str, ...]]:
    plain = ("ddpm", "ldm", "stable", "stable_2", "dit")
    kinds: dict[str, Callable[[str, Path], Any]] = dict.fromkeys(plain, save_pipeline)
    kinds["classes"] = lambda _, folder: save_with_classes(folder, 4)
    kinds |= dict.fromkeys(FAMILIES, save_family)
    for kind, save in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            save(kind, Path(folder))
            found = resolve_image_model(ModelSpec(model=folder), kind, on_gpu=False)
        encoders = [f"`{part.kind}`" for part in found.text_encoders]
        where = "latents" if found.autoencoder else "pixels"
        yield (
            found.face.name,
            f"`{found.network.kind}`",
            where,
            ", ".join(encoders),
            found.prediction,
        )


def table() -> str:
    head = ("family", "network", "in", "text encoders", "predicts")
    made = dict.fromkeys(f"| {' | '.join(row)} |\n" for row in rows())
    return "".join([f"| {' | '.join(head)} |\n", "|---|---|---|---|---|\n", *made])


def written() -> str:
    """The table that the page has."""
    return PAGE.read_text().split(START, 1)[1].split(END, 1)[0]


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(START)
    after = rest.partition(END)[2]
    sys.exit(PAGE.write_text(f"{before}{START}\n{table()}\n{END}{after}") and None)
