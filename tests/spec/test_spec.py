"""The audit file: what is wrong in it is said with the path to the key, all of it together."""

from __future__ import annotations

import copy

import pytest
import yaml

from raymia.spec import (
    MASK_FILL_PRESETS,
    SELF_PROMPT_PRESETS,
    AuditSpec,
    ImageNeighbors,
    MaskFillNeighbors,
    SelfPromptReference,
)
from raymia.spec.file import load_spec, parse_spec
from raymia.util.errors import InputError

FULL = {
    "name": "mine",
    "records": {"members": "m.jsonl", "non_members": ["n.csv", "o.parquet"]},
    "targets": [
        {"name": "one", "model": "./one"},
        {"name": "two", "model": "./base", "adapter": "./lora", "quantization": "nf4"},
    ],
    "references": {
        "base": {"model": "./base"},
        "self_prompt": {"kind": "self_prompt", "preset": "repo", "prompts": "p.jsonl"},
    },
    "neighbors": {"preset": "repo", "model": "./t5"},
    "attacks": ["loss", {"attack": "min_k", "parameters": {"share": 0.1}}],
}


def edited(path, value):
    """FULL with one key set, or removed by ``...``."""
    content = copy.deepcopy(FULL)
    inner = content
    *way, last = path
    for key in way:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return content


def problems(content):
    with pytest.raises(InputError) as caught:
        parse_spec(content, "audit.yaml")
    assert all(p.startswith("audit.yaml: ") for p in caught.value.problems)
    return [p.removeprefix("audit.yaml: ") for p in caught.value.problems]


def problem(path, value):
    (text,) = problems(edited(path, value))
    return text


def test_full_audit_is_understood():
    spec = parse_spec(FULL, "audit.yaml")
    assert spec.records.members == ["m.jsonl"]
    assert spec.targets[1].quantization == "nf4"
    assert spec.references["base"].kind == "model"
    assert spec.references["self_prompt"].texts == 10_000
    assert [a.attack for a in spec.attacks] == ["loss", "min_k"]


def test_smallest_audit_is_understood():
    spec = parse_spec(
        {"records": {"candidates": "c.csv"}, "targets": [{"name": "t", "model": "m"}]}, "a.yaml"
    )
    assert (spec.seed, spec.neighbors, spec.references, spec.attacks) == (0, None, {}, None)


@pytest.mark.parametrize("content", [FULL, edited(["neighbors", "preset"], "paper"),
                                     edited(["references", "self_prompt", "fine_tune"],
                                            {"lora": None, "epochs": 1})])  # fmt: skip
def test_what_the_report_stores_is_an_audit_file_again(content):
    spec = parse_spec(content, "audit.yaml")
    dumped = yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json")))
    assert parse_spec(dumped, "again") == spec
    assert AuditSpec.model_validate(spec.model_dump()) == spec


# ---------------------------------------------------------------------- unknown keys


@pytest.mark.parametrize(
    ("path", "place", "near"),
    [
        (["target"], "target", "targets"),
        (["recrods"], "recrods", "records"),
        (["records", "member"], "records.member", "members"),
        (["targets", 1, "quantisation"], "targets[1].quantisation", "quantization"),
        (["targets", 0, "modle"], "targets[0].modle", "model"),
        (["references", "base", "adaptor"], "references.base.adaptor", "adapter"),
        (["references", "self_prompt", "prompt"], "references.self_prompt.prompt", "prompts"),
        (["neighbors", "mask_shares"], "neighbors.mask_shares", "mask_share"),
        (["attacks", 1, "parameter"], "attacks[1].parameter", "parameters"),
    ],
)
def test_unknown_key_is_named_with_its_path_and_the_nearest_right_one(path, place, near):
    text = problem(path, "x")
    assert text.startswith(f"{place}: unknown key; did you mean {near!r}?")
    assert near in text.split("Known keys here: ")[1].split(", ")


@pytest.mark.parametrize(
    ("section", "key", "place", "near"),
    [
        ({"target": {"gpu": 1}}, "resources", "resources.target.gpu", "gpus"),
        ({"block_record": 1}, "resources", "resources.block_record", "block_records"),
        ({"resample": 1}, "metrics", "metrics.resample", "resamples"),
    ],
)
def test_unknown_key_of_an_optional_section_is_named(section, key, place, near):
    assert problem([key], section).startswith(f"{place}: unknown key; did you mean {near!r}?")


def test_unknown_key_deep_in_a_reference_is_named():
    text = problem(["references", "self_prompt", "fine_tune"], {"lora": {"rank": 8}})
    assert text.startswith("references.self_prompt.fine_tune.lora.rank: unknown key")
    assert text.endswith("Known keys here: alpha, dropout, quantized, r, target_modules")


def test_key_like_no_other_lists_the_known_ones():
    text = problem(["zzzzzz"], 1)
    assert "did you mean" not in text
    assert "records" in text


# ----------------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("path", "value", "place", "says"),
    [
        (["records"], ..., "records", "required and missing"),
        (["targets"], ..., "targets", "required and missing"),
        (["targets", 1, "model"], ..., "targets[1].model", "required and missing"),
        (
            ["references", "self_prompt", "prompts"],
            ...,
            "references.self_prompt.prompts",
            "missing",
        ),
        (["targets"], [], "targets", "at least 1"),
        (["targets", 0, "name"], "a b", "targets[0].name", "'a b'"),
        (["targets", 0, "quantization"], "int4", "targets[0].quantization", "'int8' (got 'int4')"),
        (["targets", 0, "dtype"], "fp16", "targets[0].dtype", "got 'fp16'"),
        (["targets", 0, "max_tokens"], 1, "targets[0].max_tokens", "got 1"),
        (["seed"], -1, "seed", "got -1"),
        (["seed"], "lucky", "seed", "got 'lucky'"),
        (["records"], {}, "records", "at least one path under members, non_members or candidates"),
        (["fail_if"], ["any.auk > 0.6"], "fail_if[0]", "did you mean 'auc'?"),
        (["neighbors", "count"], 0, "neighbors.count", "got 0"),
        (["neighbors", "mask_share"], 1.0, "neighbors.mask_share", "got 1.0"),
        (["neighbors", "preset"], "papers", "neighbors.preset", "'repo' (got 'papers')"),
        (["neighbors", "preset"], ["repo"], "neighbors.preset", "'repo'"),
        (["references", "base"], "./base", "references.base", ""),
        (["references", "base", "kind"], "modl", "references.base", "modl"),
        (
            ["references", "self_prompt", "temperature"],
            0,
            "references.self_prompt.temperature",
            "0",
        ),
        (["metrics"], {"fprs": [0.1, 1.5]}, "metrics.fprs[1]", "got 1.5"),
        (["metrics"], {"fprs": [0.01, 0.1, 0.01]}, "metrics.fprs", "more than once: 0.01"),
        (["metrics"], {"priors": [0.5, 0.5]}, "metrics.priors", "more than once: 0.5"),
        (["resources"], {"target": {"actors": 0}}, "resources.target.actors", "got 0"),
        (["records"], ["m.jsonl"], "records", "dictionary"),
        (["attacks"], [], "attacks", ""),
    ],
)
def test_wrong_value_is_named_with_its_path_and_what_came(path, value, place, says):
    text = problem(path, value)
    assert text.startswith(f"{place}: ")
    assert says in text


def test_all_problems_are_reported_together():
    content = edited(["targets", 0, "modle"], "x")
    content["seed"] = -1
    content["neighbors"]["count"] = 0
    del content["records"]
    places = {text.split(": ")[0] for text in problems(content)}
    assert places == {"targets[0].modle", "seed", "neighbors.count", "records"}


def test_target_names_given_twice_are_refused():
    assert "must be unique; given more than once: one" in problem(["targets", 1, "name"], "one")


@pytest.mark.parametrize("base", ["bass", "self_prompt"])
def test_self_prompt_needs_a_base_that_is_a_model(base):
    text = problem(["references", "self_prompt", "base"], base)
    assert f"references.self_prompt.base is {base!r}" in text
    assert f"`{base}: {{model: PATH}}`" in text


def test_window_with_more_spans_than_t5_can_tell_apart_is_refused():
    content = edited(["neighbors", "window"], 5_000)
    (text,) = problems(content)
    assert text.startswith("neighbors: window 5000 and mask_share 0.3 give 375 spans")


def test_key_written_twice_is_refused(tmp_path):
    """YAML keeps the last of two equal keys: the first would vanish without a word."""
    path = tmp_path / "audit.yaml"
    path.write_text(yaml.safe_dump(FULL) + "\nseed: 1\nseed: 2\n")
    with pytest.raises(InputError, match="seed"):
        load_spec(path)


# ---------------------------------------------------------------------------- presets


@pytest.mark.parametrize("preset", MASK_FILL_PRESETS)
def test_neighbor_preset_sets_its_values(preset):
    made = MaskFillNeighbors(model="t5", preset=preset).model_dump()
    assert {key: made[key] for key in MASK_FILL_PRESETS[preset]} == MASK_FILL_PRESETS[preset]


def test_neighbor_presets_are_the_published_settings():
    paper, repo = (MaskFillNeighbors(model="t5", preset=p) for p in ("paper", "repo"))
    assert (repo.unit, repo.mask_share, repo.span, repo.buffer) == ("word", 0.3, 2, 1)
    assert (repo.count, repo.top_k, repo.temperature) == (10, 50, 1.0)
    assert (paper.unit, paper.mask_share, paper.count) == ("token", 0.2, 20)  # 10 pairs


def test_what_the_file_says_is_laid_over_the_preset():
    made = MaskFillNeighbors(model="t5", preset="repo", count=3, top_k=None)
    assert (made.count, made.top_k, made.mask_share) == (3, None, 0.3)


@pytest.mark.parametrize("preset", SELF_PROMPT_PRESETS)
def test_self_prompt_preset_sets_its_values(preset):
    made = SelfPromptReference(kind="self_prompt", preset=preset, prompts="p.jsonl")
    wanted = SELF_PROMPT_PRESETS[preset]
    assert (made.texts, made.prompt_tokens, made.max_tokens, made.top_k) == tuple(
        wanted[key] for key in ("texts", "prompt_tokens", "max_tokens", "top_k")
    )
    assert made.fine_tune.epochs == wanted["fine_tune"]["epochs"]
    assert made.fine_tune.learning_rate == wanted["fine_tune"]["learning_rate"]
    assert made.fine_tune.lora is not None
    assert (made.fine_tune.lora.r, made.fine_tune.lora.alpha) == (64, 16)


def test_nested_section_is_laid_over_the_preset_key_by_key():
    made = SelfPromptReference(
        kind="self_prompt", preset="repo", prompts="p", fine_tune={"epochs": 1, "lora": {"r": 8}}
    )
    assert (made.fine_tune.epochs, made.fine_tune.batch_size) == (1, 4)
    assert made.fine_tune.learning_rate == 5e-5
    assert made.fine_tune.lora.r == 8


def test_preset_can_be_told_to_fine_tune_all_weights():
    made = SelfPromptReference(
        kind="self_prompt", preset="paper", prompts="p", fine_tune={"lora": None}
    )
    assert made.fine_tune.lora is None
    assert made.fine_tune.epochs == 4


def test_presets_are_not_changed_by_their_use():
    before = copy.deepcopy((MASK_FILL_PRESETS, SELF_PROMPT_PRESETS))
    MaskFillNeighbors(model="t5", preset="repo", count=3)
    SelfPromptReference(kind="self_prompt", preset="repo", prompts="p", fine_tune={"epochs": 9})
    assert before == (MASK_FILL_PRESETS, SELF_PROMPT_PRESETS)


# -------------------------------------------------------------------------- the file


def refused(path):
    with pytest.raises(InputError) as caught:
        load_spec(path)
    (text,) = caught.value.problems
    assert text.startswith(str(path))
    return text


def test_missing_file_says_where_to_start(tmp_path):
    assert "no such audit file; `raymia demo`" in refused(tmp_path / "audit.yaml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "but it is empty"),
        (b"# only a comment\n", "but it is empty"),
        (b"- a\n- b\n", "but it is a list"),
        (b"just text", "but it is a str"),
        (b"a: [1, 2\nb: 3", "not valid YAML"),
        (b"a: b: c", "not valid YAML"),
        (b"name: caf\xe9", "not UTF-8 text"),
    ],
)
def test_file_that_is_no_mapping_is_refused(tmp_path, content, says):
    path = tmp_path / "audit.yaml"
    path.write_bytes(content)
    assert says in refused(path)


def test_yaml_error_says_the_line(tmp_path):
    path = tmp_path / "audit.yaml"
    path.write_text("name: a\nrecords: [1, 2\nseed: 3\n")
    assert 'in "audit.yaml", line 3' in refused(path)


def test_folder_in_place_of_the_file_is_refused(tmp_path):
    assert "it is a folder, and a file is expected" in refused(tmp_path)


def test_yaml_may_run_no_code(tmp_path):
    path = tmp_path / "audit.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n")
    assert "not valid YAML" in refused(path)


def test_relative_paths_are_relative_to_the_file_not_to_where_one_stands(tmp_path, monkeypatch):
    home = tmp_path / "audits"
    for name in ("one", "base", "lora", "t5"):
        (home / name).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (home / "audit.yaml").write_text(yaml.safe_dump({**FULL, "store": "../store"}))
    monkeypatch.chdir(tmp_path / "elsewhere")
    spec = load_spec("../audits/audit.yaml")
    assert spec.records.members == [str(home / "m.jsonl")]
    assert spec.records.non_members == [str(home / "n.csv"), str(home / "o.parquet")]
    assert spec.output == str(home / "raymia-run")
    assert spec.store == str(tmp_path / "store")
    assert [t.model for t in spec.targets] == [str(home / "one"), str(home / "base")]
    assert spec.targets[1].adapter == str(home / "lora")
    assert spec.references["base"].model == str(home / "base")
    assert spec.references["self_prompt"].prompts == [str(home / "p.jsonl")]
    assert spec.references["self_prompt"].base == "base", "a name of a reference, not a path"
    assert spec.neighbors.model == str(home / "t5")


def test_urls_absolute_paths_and_hub_names_stay_as_they_are(tmp_path):
    content = {
        "records": {"members": ["s3://bucket/m.jsonl", "/data/m.jsonl"]},
        "store": "s3://bucket/store",
        "targets": [
            {"name": "a", "model": "meta-llama/Llama-3.2-1B"},
            {"name": "b", "model": "gs://bucket/model", "adapter": "owner/adapter"},
            {"name": "c", "model": "/models/c"},
        ],
    }
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(content))
    spec = load_spec(tmp_path / "audit.yaml")
    assert spec.records.members == ["s3://bucket/m.jsonl", "/data/m.jsonl"]
    assert spec.store == "s3://bucket/store"
    assert [t.model for t in spec.targets] == [
        "meta-llama/Llama-3.2-1B", "gs://bucket/model", "/models/c"
    ]  # fmt: skip
    assert spec.targets[1].adapter == "owner/adapter"


def test_folder_beside_the_file_wins_over_a_hub_name(tmp_path):
    (tmp_path / "gpt2").mkdir()
    content = {"records": {"members": "m.csv"}, "targets": [{"name": "a", "model": "gpt2"}]}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(content))
    assert load_spec(tmp_path / "audit.yaml").targets[0].model == str(tmp_path / "gpt2")


def test_missing_local_folder_is_not_taken_for_a_hub_name(tmp_path):
    content = {"records": {"members": "m.csv"}, "targets": [{"name": "a", "model": "./gone"}]}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(content))
    assert load_spec(tmp_path / "audit.yaml").targets[0].model == str(tmp_path / "gone")


def test_every_field_is_described():
    """One object feeds the file, the command line and the docs."""
    schema = AuditSpec.model_json_schema()
    documented = {"kind", "name", "output", "store", "seed"}
    for model in (
        "TargetSpec",
        "TextRecordsSpec",
        "ImageRecordsSpec",
        "ImageNeighbors",
        "DenoisingSpec",
    ):
        for name, field in schema["$defs"][model]["properties"].items():
            assert field.get("description") or name in documented, f"{model}.{name}"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"kind": "infill", "model": "m", "candidate": 2}, "neighbors.candidate: unknown key; did"),
        ({"kind": "infill"}, "neighbors.model: this key is required"),
        ({"kind": "infill", "model": "m", "candidates": 0}, "neighbors.candidates: "),
        (
            {"kind": "substitute", "model": "m"},
            "neighbors.model: unknown key; Known keys here: count, kind, share",
        ),
        ({"kind": "substitute", "share": 1.0}, "neighbors.share: "),
        ({"kind": "substitutes"}, "neighbors: Input tag 'substitutes'"),
        ("t5", "neighbors: "),
    ],
)
def test_wrong_section_on_neighbors_is_told_by_the_keys_of_its_kind(section, said):
    assert problem(["neighbors"], section).startswith(said)


def test_a_perturbation_that_auto_would_choose_twice_is_refused():
    said = "crop comes 2 times; name each kind once"
    with pytest.raises(ValueError, match=said):
        ImageNeighbors(kind="auto", among=["crop", "blur", "crop"])
    assert ImageNeighbors(kind="auto", among=["crop", "blur"]).kinds == ["crop", "blur"]


def test_neighbors_are_by_mask_filling_where_the_file_does_not_say():
    content = edited(["neighbors"], {"model": "t5"})
    assert isinstance(parse_spec(content, "audit.yaml").neighbors, MaskFillNeighbors)


def test_infillers_path_is_relative_to_the_audit_file(tmp_path):
    (tmp_path / "gpt2").mkdir()
    content = edited(["neighbors"], {"kind": "infill", "model": "gpt2"})
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(content))
    assert load_spec(tmp_path / "audit.yaml").neighbors.model == str(tmp_path / "gpt2")


def test_earlier_name_of_a_key_goes_on_working_with_a_note(capsys):
    content = edited(["resources"], {"target": {"most_actors": 3}})
    assert parse_spec(content, "audit.yaml").resources.target.max_actors == 3
    assert capsys.readouterr().err == "note: audit.yaml: `most_actors` is now `max_actors`\n"


def test_a_key_by_both_of_its_names_is_refused():
    content = edited(["resources"], {"target": {"most_actors": 3, "max_actors": 3}})
    [problem] = problems(content)
    assert problem.startswith("resources.target: most_actors and max_actors are one key")
