"""LoRAs on diffusion models: read as they were saved, refused where they do not fit, one base for
all."""

from __future__ import annotations

import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from edited import edit
from safetensors.torch import load_file, save_file
from small_image_models import save_model, save_pipeline
from small_loras import TEXT, UNET, adapted, save_by_diffusers, save_by_kohya, save_by_peft
from tiny_models import save_tiny

from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.denoisers import model as denoisers
from raymia.models.denoisers.put_on import idle_adapters
from raymia.models.image_source import resolve_image_model
from raymia.models.loaders import load_together
from raymia.spec import AuditSpec, ModelSpec, PoolSpec
from raymia.spec.file import parse_spec
from raymia.spec.paths import with_absolute_paths
from raymia.util.errors import InputError, RaymiaError
from raymia.util.once import Once

TIMESTEPS = torch.tensor([10, 200, 700])
CAPTIONS = ["a cat", "", "a dog on a mat"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    save_pipeline("stable", folder)
    return folder


def opened(base: Path) -> diffusers.StableDiffusionPipeline:
    return diffusers.StableDiffusionPipeline.from_pretrained(base, safety_checker=None)


def resolved(base: Path, adapter: Path | dict[Path, float] | None = None):
    if isinstance(adapter, dict):
        named = [{"path": str(path), "weight": weight} for path, weight in adapter.items()]
    else:
        named = None if adapter is None else str(adapter)
    spec = ModelSpec(model=str(base), adapter=named)
    return resolve_image_model(spec, "targets[0].model", on_gpu=False)


def noisy(latent_shape) -> torch.Tensor:
    return torch.randn(3, *latent_shape, generator=torch.Generator().manual_seed(0))


def answered(model) -> torch.Tensor:
    return model.predict_noise(noisy(model.latent_shape), TIMESTEPS, CAPTIONS)


def loaded(checkpoint):
    return checkpoint.loader(PoolSpec()).load()


@torch.inference_mode()
def plainly(pipeline, unet=None) -> torch.Tensor:
    """What diffusers' own parts answer."""
    tokens = pipeline.tokenizer(CAPTIONS, padding="max_length", max_length=12, return_tensors="pt")
    states = pipeline.text_encoder(tokens.input_ids).last_hidden_state
    network = unet or pipeline.unet
    return network(noisy((4, 8, 8)), TIMESTEPS, encoder_hidden_states=states).sample


FORMATS = ["diffusers", "diffusers, nothing told", "dora", "kohya", "kohya, dora", "peft",
           "rank-stabilized"]  # fmt: skip


@pytest.mark.parametrize("how", FORMATS)
def test_a_lora_answers_as_the_model_that_was_trained(how, base, tmp_path):
    pipeline = opened(base)
    place, unet, encoder = tmp_path / "lora", pipeline.unet, None
    if how == "peft":
        ranks = {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"conv1": 5}}
        _, unet = save_by_peft(place, unet, seed=3, r=4, lora_alpha=6, **ranks)
    else:
        settings = {"use_dora": "dora" in how, "use_rslora": how == "rank-stabilized"}
        alpha = 4 if "nothing" in how else 8  # what nobody is told of is the rank
        unet = adapted(unet, UNET, seed=1, lora_alpha=alpha, **settings)
        if how in ("diffusers", "kohya"):
            encoder = adapted(pipeline.text_encoder, TEXT, seed=2)
        if "kohya" in how:
            encoders = [] if encoder is None else [encoder]
            place = save_by_kohya(tmp_path / "mine-000010.safetensors", unet, *encoders)
        else:
            save_by_diffusers(place, unet, encoder, told="nothing" not in how)
    found = answered(loaded(resolved(base, place)))
    torch.testing.assert_close(found, plainly(pipeline, unet.eval()), atol=1e-5, rtol=1e-4)
    assert (found - answered(loaded(resolved(base)))).abs().max() > 1e-2


@pytest.mark.parametrize("how", ["diffusers", "kohya"])
def test_a_lora_answers_as_diffusers_fuses_it_into_its_base(how, base, tmp_path):
    pipeline = opened(base)
    unet = adapted(pipeline.unet, ["to_q", "to_out.0"], seed=1)
    if how == "kohya":
        place = save_by_kohya(tmp_path / "mine.safetensors", unet)
    else:
        place = save_by_diffusers(tmp_path / "lora", unet)
    fused = opened(base)
    fused.load_lora_weights(str(place))
    fused.fuse_lora()
    found = answered(loaded(resolved(base, place)))
    torch.testing.assert_close(found, plainly(fused), atol=1e-5, rtol=1e-4)


@pytest.mark.long
def test_one_base_serves_its_adapters_and_itself(base, tmp_path, monkeypatch):
    places = [
        save_by_diffusers(tmp_path / "a", adapted(opened(base).unet, UNET, seed=1)),
        save_by_kohya(tmp_path / "b.safetensors", adapted(opened(base).unet, ["to_k"], 2, r=2)),
        save_by_diffusers(tmp_path / "c", adapted(opened(base).unet, ["conv2"], 3, use_dora=True)),
    ]
    checkpoints = [resolved(base, place) for place in (*places, None)]
    alone = [answered(loaded(checkpoint)) for checkpoint in checkpoints]
    parts = []
    real = denoisers.load_part
    monkeypatch.setattr(denoisers, "load_part", lambda *a, **k: parts.append(a[1]) or real(*a, **k))
    use = load_together([checkpoint.loader(PoolSpec()) for checkpoint in checkpoints])
    assert [part.folder for part in parts] == ["unet", "vae"]
    for number in (2, 0, 3, 1, 3, 2):
        torch.testing.assert_close(answered(use(number)), alone[number], atol=1e-6, rtol=1e-5)
    assert all((alone[3] - other).abs().max() > 1e-3 for other in alone[:3])


def test_an_adapter_that_was_changed_since_fails_alone(base, tmp_path):
    places = [
        save_by_diffusers(tmp_path / name, adapted(opened(base).unet, ["to_q"], seed))
        for seed, name in enumerate("ab")
    ]
    checkpoints = [resolved(base, place) for place in places]
    whole = answered(loaded(checkpoints[1]))
    file = places[0] / "pytorch_lora_weights.safetensors"
    save_file({name: value * 2 for name, value in load_file(file).items()}, file)
    use = load_together([checkpoint.loader(PoolSpec()) for checkpoint in checkpoints])
    with pytest.raises(RaymiaError, match="not the files that the audit was planned with"):
        use(0)
    torch.testing.assert_close(answered(use(1)), whole)


def test_a_fingerprint_is_that_of_base_and_adapter_wherever_they_lie(base, tmp_path):
    place = save_by_diffusers(tmp_path / "a", adapted(opened(base).unet, ["to_q"], seed=1))
    other = save_by_diffusers(tmp_path / "b", adapted(opened(base).unet, ["to_q"], seed=2))
    shutil.copytree(place, tmp_path / "copy")
    prints = [resolved(base, p).fingerprint for p in (place, tmp_path / "copy", other, None)]
    assert prints[0] == prints[1]
    assert len({*prints}) == 3


# ---------------------------------------------------------------- several at once


@pytest.fixture(scope="module")
def three(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of other modules, ranks and formats."""
    folder, pipeline = tmp_path_factory.mktemp("loras"), opened(base)
    unet, encoder = adapted(pipeline.unet, UNET, 1), adapted(pipeline.text_encoder, TEXT, 2)
    return [
        save_by_diffusers(folder / "a", unet, encoder),
        save_by_kohya(
            folder / "b.safetensors", adapted(opened(base).unet, ["to_q", "to_k"], 3, r=2)
        ),
        save_by_diffusers(folder / "c", adapted(opened(base).unet, ["to_q", "conv2"], 4)),
    ]


@pytest.mark.long
@pytest.mark.parametrize("weights", [(0.7, -0.3, 0.0), (1.0, 1.0, 1.0), (0.0, 2.0, 0.5)], ids=str)
def test_adapters_with_weights_answer_as_diffusers_sets_them(weights, base, three):
    pipeline = opened(base)
    for name, place in zip("abc", three, strict=True):
        pipeline.load_lora_weights(str(place), adapter_name=name)
    pipeline.set_adapters([*"abc"], [*weights])
    found = answered(loaded(resolved(base, dict(zip(three, weights, strict=True)))))
    torch.testing.assert_close(found, plainly(pipeline), atol=1e-4, rtol=1e-4)


@pytest.mark.long
def test_sums_of_adapters_share_the_base_with_each_of_them(base, three):
    ways = [{three[0]: 0.5, three[1]: 2.0}, three[1], {three[1]: 0.25}, None]
    checkpoints = [resolved(base, way) for way in ways]
    alone = [answered(loaded(checkpoint)) for checkpoint in checkpoints]
    use = load_together([checkpoint.loader(PoolSpec()) for checkpoint in checkpoints])
    for number in (2, 0, 1, 3, 0, 2):
        torch.testing.assert_close(answered(use(number)), alone[number], atol=1e-6, rtol=1e-5)
    assert "with 2 LoRAs on " in checkpoints[0].describe()
    assert checkpoints[0].label.startswith("0.5 x ")


def test_a_fingerprint_is_that_of_the_weights_too_and_one_adapter_keeps_its_own(base, three):
    one, two, _ = three
    prints = [
        resolved(base, way).fingerprint
        for way in (one, {one: 1.0}, {one: 0.5}, {one: 1.0, two: 0.5}, {one: 0.5, two: 1.0})
    ]
    assert prints[0] == prints[1]
    assert len({*prints}) == 4


def test_one_of_several_that_cannot_be_put_on_fails_all_that_it_is_part_of(base, three, tmp_path):
    place = save_by_diffusers(tmp_path / "d", adapted(opened(base).unet, ["to_v"], 5))
    checkpoints = [resolved(base, {three[0]: 1.0, place: 1.0}), resolved(base, three[0])]
    whole = answered(loaded(checkpoints[1]))
    file = place / "pytorch_lora_weights.safetensors"
    save_file({name: value * 2 for name, value in load_file(file).items()}, file)
    use = load_together([checkpoint.loader(PoolSpec()) for checkpoint in checkpoints])
    with pytest.raises(RaymiaError, match="not the files that the audit was planned with"):
        use(0)
    torch.testing.assert_close(answered(use(1)), whole)


def test_one_of_several_is_refused_by_its_own_key(base, three, tmp_path):
    def said(*paths: Path) -> str:
        named = [{"path": str(path)} for path in paths]
        with pytest.raises(InputError) as caught:
            resolve_image_model(
                ModelSpec(model=str(base), adapter=named), "targets[0].model", on_gpu=False
            )
        return caught.value.problems[0]

    nowhere = tmp_path / "none.safetensors"
    assert said(three[0], nowhere) == f"targets[0].adapter[1].path: no such file: {nowhere}"
    assert said(three[1], three[1]).endswith("is on the model already; give it one weight")


def test_a_list_of_adapters_is_read_from_the_audit_file_with_errors_by_their_keys(tmp_path):
    def read(adapter: object) -> AuditSpec:
        return parse_spec(
            {"name": "n", "targets": [{"name": "t", "model": "base", "adapter": adapter}],
             "records": {"kind": "image", "members": ["a"]}, "output": "o", "store": "s"}, "a.yaml",
        )  # fmt: skip

    spec = with_absolute_paths(read([{"path": "./a", "weight": 0.5}, {"path": "./b"}]), tmp_path)
    found = [(Path(one.path).name, one.weight) for one in spec.targets[0].adapter]
    assert found == [("a", 0.5), ("b", 1.0)]
    assert all(Path(one.path).parent == tmp_path for one in spec.targets[0].adapter)
    for adapter, problem in (
        ([{"path": "a", "wieght": 2}], "adapter[0].wieght: unknown key; did you mean 'weight'?"),
        ([{"path": "a", "weight": "x"}], "adapter[0].weight: "),
        ([], "adapter: List should have at least 1 item"),
        (3, "adapter: Input should be a valid string (got 3)"),
    ):
        with pytest.raises(InputError) as caught:
            read(adapter)
        assert caught.value.problems[0].startswith(f"a.yaml: targets[0].{problem}")


def test_a_language_model_refuses_a_list_of_adapters(tmp_path):
    save_tiny(tmp_path)
    spec = ModelSpec(model=str(tmp_path), adapter=[{"path": "a"}, {"path": "b", "weight": 2}])
    with pytest.raises(InputError, match="a language model has one adapter, and 2 are listed"):
        resolve_causal_lm(spec, "targets[0].model", on_gpu=False)


# ---------------------------------------------------------------- what is refused


def refusal(base: Path, adapter: Path) -> str:
    with pytest.raises(InputError) as caught:
        resolved(base, adapter)
    (problem,) = caught.value.problems
    assert problem.startswith("targets[0].adapter: ")
    return problem


def test_an_adapter_of_another_base_is_refused_by_the_names_of_its_modules(base, tmp_path):
    pipeline = opened(base)
    place = save_by_kohya(tmp_path / "lora.safetensors", adapted(pipeline.unet, ["to_q"], seed=1))
    renamed = {n.replace("down_blocks_0", "down_blocks_7"): v for n, v in load_file(place).items()}
    save_file(renamed, place)
    said = refusal(base, place)
    assert "does not fit its base: 2 of its 8 modules are not in the base" in said
    assert "lora_unet_down_blocks_7_attentions_0_transformer_blocks_0_attn1_to_q" in said


def test_an_adapter_of_another_shape_is_refused_with_both(base, tmp_path):
    unet = adapted(opened(base).unet, ["attn2.to_k"], seed=1)
    place = save_by_diffusers(tmp_path, unet) / "pytorch_lora_weights.safetensors"
    tensors = load_file(place)
    wide = {n: torch.ones(4, 24) if "down.weight" in n else v for n, v in tensors.items()}
    save_file(wide, place)
    said = refusal(base, place)
    assert "4 of its 4 modules have another shape there" in said
    assert "matrices of [64, 4] and [4, 24] for a weight of [64, 16]" in said


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a", "1 of its tensors are none of a "),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "1 of its modules lack "),
        ("lora_unet_mid_block_nowhere.alpha", "1 of its modules lack one of the two matrices"),
    ],
)  # fmt: skip
def test_a_kohya_file_with_unknown_keys_is_refused_by_their_names(tensor, why, base, tmp_path):
    unet = adapted(opened(base).unet, ["to_q"], seed=1)
    place = save_by_kohya(tmp_path / "lora.safetensors", unet, **{tensor: torch.ones(4, 4)})
    said = refusal(base, place)
    assert why in said
    assert tensor in said


def test_an_adapter_of_an_encoder_that_the_base_lacks_is_refused(base, tmp_path):
    name = "lora_te2_text_model_encoder_layers_0_mlp_fc1"
    down, up = torch.ones(4, 16), torch.ones(32, 4)
    halves = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    unet = adapted(opened(base).unet, ["to_q"], seed=1)
    said = refusal(base, save_by_kohya(tmp_path / "lora.safetensors", unet, **halves))
    assert f"1 of its 9 modules are not in the base ({name}.lora_down.weight)" in said


def test_magnitudes_of_columns_are_refused_where_rows_have_them(base, tmp_path):
    """LyCORIS can write a DoRA either way; of a square weight the lengths do not tell which."""
    unet = adapted(opened(base).unet, ["attn1.to_q"], seed=1, use_dora=True)
    place = save_by_kohya(tmp_path / "lora.safetensors", unet)
    turned = {n: v.T.contiguous() if "dora" in n else v for n, v in load_file(place).items()}
    save_file(turned, place)
    assert "a magnitude of [1, 64] for a weight of [64, 64]" in refusal(base, place)


def test_an_adapter_that_changes_the_base_beside_itself_is_refused(base, tmp_path):
    place, _ = save_by_peft(tmp_path, opened(base).unet, seed=1, r=4)
    edit(place / "adapter_config.json", init_lora_weights="pissa")
    assert "changes the weights of its base beside the adapter (init_lora_weights" in refusal(
        base, place
    )


def test_a_folder_without_one_adapter_says_what_is_there(base, tmp_path):
    assert "holds no adapter in safetensors (found: nothing)" in refusal(base, tmp_path)
    torch.save({}, tmp_path / "pytorch_lora_weights.bin")
    assert "raymia unpickles no file it was given" in refusal(base, tmp_path)
    for name in ("one", "two"):
        save_by_kohya(tmp_path / f"{name}.safetensors", adapted(opened(base).unet, ["to_q"], 1))
    assert "holds 2 files of weights (one.safetensors, two.safetensors)" in refusal(base, tmp_path)
    assert "no such file" in refusal(base, tmp_path / "three.safetensors")


def test_an_adapter_of_an_autoencoder_is_refused_with_its_family(base, tmp_path):
    save_model("autoencoder_kl", tmp_path / "vae")
    place = save_by_diffusers(tmp_path / "lora", adapted(opened(base).unet, ["to_q"], 1))
    assert "is of the family autoencoder" in refusal(tmp_path / "vae", place)


def test_a_lora_in_a_pipelines_folder_is_named_or_refused(base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    elsewhere = save_by_diffusers(tmp_path / "lora", adapted(opened(base).unet, ["to_q"], 1))
    file = shutil.copy(elsewhere / "pytorch_lora_weights.safetensors", tmp_path / "base")
    with pytest.raises(InputError, match="name the file of a LoRA as `adapter`, or take out what"):
        resolved(tmp_path / "base")
    with pytest.raises(InputError, match=r"holds pytorch_lora_weights\.safetensors beside"):
        resolved(tmp_path / "base", elsewhere)
    found = resolved(tmp_path / "base", Path(file))
    assert found.fingerprint == resolved(base, elsewhere).fingerprint


def test_what_peft_put_on_a_text_encoder_is_found_there(base, tmp_path):
    pipeline = opened(base)
    place, encoder = save_by_peft(tmp_path / "lora", pipeline.text_encoder, seed=3, targets=TEXT)
    pipeline.text_encoder = encoder.eval()
    found = answered(loaded(resolved(base, place)))
    torch.testing.assert_close(found, plainly(pipeline), atol=1e-5, rtol=1e-4)
    assert (found - answered(loaded(resolved(base)))).abs().max() > 1e-3


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_file_of_peft_is_scaled_by_the_config_beside_it_whatever_it_is_called(
    part, base, tmp_path
):
    pipeline = opened(base)
    targets = UNET if part == "unet" else TEXT
    settings = {"r": 4, "lora_alpha": 1, "use_rslora": True}
    place, tuned = save_by_peft(tmp_path, getattr(pipeline, part), 3, targets, **settings)
    setattr(pipeline, part, tuned.eval())
    (place / "adapter_model.safetensors").rename(place / "dog-epoch3.safetensors")
    checkpoint = resolved(base, place)
    found = answered(loaded(checkpoint))
    torch.testing.assert_close(found, plainly(pipeline), atol=1e-5, rtol=1e-4)
    edit(place / "adapter_config.json", lora_alpha=16)
    assert resolved(base, place).fingerprint != checkpoint.fingerprint
    edit(place / "adapter_config.json", init_lora_weights="pissa")
    assert "changes the weights of its base" in refusal(base, place)
    (place / "adapter_config.json").unlink()
    said = refusal(base, place / "dog-epoch3.safetensors")
    assert said.endswith(
        "dog-epoch3.safetensors: PEFT has written it, and its scale stands in no "
        "adapter_config.json beside it; copy that of the training there"
    )


def test_a_file_of_lycoris_in_its_own_names_is_refused_by_that_name(base, tmp_path):
    place = save_by_kohya(tmp_path / "lora.safetensors", adapted(opened(base).unet, ["to_q"], 1))
    own = {n.replace("lora_unet_", "lycoris_"): v for n, v in load_file(place).items()}
    save_file(own, place)
    said = refusal(base, place)
    assert "one of LyCORIS in names of its own, as SimpleTuner writes them" in said
    assert "give the base" not in said


def test_a_matrix_without_its_other_is_named_with_what_it_lacks(base, tmp_path):
    place = save_by_diffusers(tmp_path, adapted(opened(base).unet, ["to_q"], seed=1))
    file = place / "pytorch_lora_weights.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if "up" in name or "lora_B" in name)
    del tensors[gone]
    save_file(tensors, file)
    assert "has no up beside it); copy the file again" in refusal(base, place)


def test_an_adapter_that_changes_nothing_is_said(base, tmp_path):
    place = save_by_diffusers(tmp_path / "zero", adapted(opened(base).unet, ["to_q"], seed=1))
    own = save_by_diffusers(tmp_path / "own", adapted(opened(base).unet, ["to_q"], seed=1))
    file = place / "pytorch_lora_weights.safetensors"
    tensors = load_file(file)
    save_file({n: t * 0 if "up" in n or "lora_B" in n else t for n, t in tensors.items()}, file)
    models = {
        "begun": resolved(base, place), "trained": resolved(base, own),
        "off": resolved(base, {own: 0.0}), "plain": resolved(base),
    }  # fmt: skip
    lines = list(idle_adapters(models, Once()))
    assert lines == [
        "begun: the adapter pytorch_lora_weights.safetensors changes nothing: all that it adds is "
        "zero, as before its first step of training",
        "off: the adapter pytorch_lora_weights.safetensors changes nothing: its weight is 0",
    ]
