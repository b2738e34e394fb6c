"""Everything an audit names is checked before any model is loaded, and told together."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from small_inputs import audit, write_jsonl, write_rows
from tiny_models import BASE, PARAPHRASER, beginning_model, passages, save_adapter

from raymia.attacks import registry
from raymia.inputs.attack_list import name_attacks
from raymia.modalities import resolve as resolving
from raymia.modalities.resolve import resolve_inputs
from raymia.util.errors import InputError


@pytest.fixture
def made(tmp_path, tiny_gpt2):
    return lambda **changes: audit(tmp_path / "audit", tiny_gpt2, PARAPHRASER, **changes)


def labels(spec):
    return [named.label for named in name_attacks(spec)]


def problems(action, *args):
    with pytest.raises(InputError) as caught:
        action(*args)
    return caught.value.problems


# --------------------------------------------------------------------------- attacks


def test_default_is_every_attack_with_every_reference(made):
    found = labels(made())
    assert {
        "detect_gpt", "difference@base", "difference@self_prompt", "ez@base", "ez@self_prompt",
        "fast_detect", "learned_combination", "loss", "lowercase", "min_k", "min_k_plus_plus",
        "neighbor", "ratio@base", "ratio@self_prompt", "spv@base", "spv@self_prompt", "surp",
        "wbc@base", "wbc@self_prompt", "zlib",
    } <= {*found}  # fmt: skip
    kinds = {name.partition("@")[0]: registry()[name.partition("@")[0]] for name in found}
    assert found == [
        label
        for name, kind in kinds.items()
        for label in (
            [f"{name}@base", f"{name}@self_prompt"] if "reference" in kind.needs else [name]
        )
    ]
    assert [*kinds] == sorted(kinds)
    assert not any(kind.needs & {"shadows", "population", "corpus"} for kind in kinds.values())


def test_default_is_what_the_file_gives_the_means_for(made):
    found = labels(made(references=None, neighbors=None))
    assert {
        "fast_detect", "learned_combination", "loss", "lowercase", "min_k", "min_k_plus_plus",
        "surp", "zlib",
    } <= {*found}  # fmt: skip
    assert not any(
        "reference" in registry()[name].needs or "neighbors" in registry()[name].asks
        for name in found
    )
    assert "neighbor" in labels(made(references=None))
    assert not any(x.startswith("spv") for x in labels(made(references=None)))
    assert not any(x.startswith("spv") for x in labels(made(neighbors=None)))
    assert "difference@base" in labels(made(neighbors=None))


def test_attack_that_asks_much_runs_by_default_where_its_section_says_so(made):
    quick = labels(made(neighbors=None, references=None))
    asked = {"swaps": {}, "samples": {"count": 2}, "gradient": {}}
    more = labels(made(neighbors=None, references=None, probes=asked))
    new = set(more) - set(quick)
    assert {"pac", "samia", "grad_norm"} <= new
    assert all({*asked} & {*registry()[name].asks} for name in new)
    assert labels(made(attacks=["pac", "spv_embedding@base"])) == ["pac", "spv_embedding@base"]


def test_population_and_known_members_bring_their_attacks(made, tmp_path):
    texts = passages(14)
    records = {
        **made().records.model_dump(exclude={"population", "known_members"}),
        "population": write_jsonl(tmp_path / "population.jsonl", [texts[0], *texts[9:12]]),
        "known_members": write_jsonl(tmp_path / "known.jsonl", texts[11:14]),
    }
    spec = made(records=records, corpus={"files": write_jsonl(tmp_path / "c.jsonl", texts)})
    new = set(labels(spec)) - set(labels(made()))
    assert new >= {"con_recall", "dc_pdd", "recall"} | {
        f"{name}@{reference}"
        for name in ("rmia", "quantile")
        for reference in ("base", "self_prompt")
    }
    for kind in (registry()[label.partition("@")[0]] for label in new):
        assert kind.needs & {"population", "corpus"} or {*kind.asks} & {
            "prefixed", "member_prefixed",
        }  # fmt: skip
    inputs = resolve_inputs(spec)
    assert list(inputs.population.values()) == texts[9:12]
    assert list(inputs.known_members.values()) == texts[12:14]
    assert {a.reason for a in inputs.records.set_aside} == {
        "a text of the population that is also a record",
        "a known member that is also a text of the population",
    }
    assert inputs.payloads["payload"].to_pylist()[-3:] == texts[9:12]


def test_shadow_knows_what_it_was_trained_on(made, tmp_path, tiny_gpt2):
    texts = passages(9)
    shadow = {
        "kind": "shadow",
        "model": str(tiny_gpt2),
        "members": write_jsonl(tmp_path / "s.jsonl", [texts[0], texts[4], "not a record"]),
    }
    spec = made(references={"s1": shadow}, neighbors=None)
    found = labels(spec)
    assert {"lira", "lira_offline", "lira_t", "lira_t_offline"} <= set(found)
    assert not [label for label in found if "@" in label], "a shadow is a reference by name alone"
    assert labels(made(references={"s1": shadow}, neighbors=None, attacks=["difference@s1"]))
    with pytest.raises(InputError, match="needs a reference that is no shadow"):
        name_attacks(made(references={"s1": shadow}, neighbors=None, attacks=["difference"]))
    inputs = resolve_inputs(spec)
    ids = inputs.records.ids
    assert {ids[0], ids[4]} < inputs.shadow_members["s1"]
    assert not {ids[1], ids[2]} & inputs.shadow_members["s1"]
    assert set(inputs.references) == {"s1"}


def test_what_cannot_be_read_of_a_shadows_members_is_set_aside_and_named(made, tmp_path, tiny_gpt2):
    """A record that is lost there would count as one that the shadow was not trained on; one that
    is there twice is not lost."""
    texts = passages(9)
    path = write_jsonl(tmp_path / "s.jsonl", [texts[0], "", texts[4], texts[0]])
    shadow = {"kind": "shadow", "model": str(tiny_gpt2), "members": path}
    inputs = resolve_inputs(made(references={"s1": shadow}, neighbors=None))
    assert [(one.where, one.reason) for one in inputs.records.set_aside] == [
        (f"{path} line 2", "a member of a shadow that is empty or white space only")
    ]
    ids = inputs.records.ids
    assert inputs.shadow_members["s1"] == {ids[0], ids[4]}


def test_attack_with_a_reference_runs_with_each_or_with_the_one_named(made):
    assert labels(made(attacks=["spv"])) == ["spv@base", "spv@self_prompt"]
    (named,) = name_attacks(made(attacks=["spv@self_prompt"]))
    assert (named.label, named.reference) == ("spv@self_prompt", "self_prompt")


def test_parameters_and_names_stand_in_the_label(made):
    asked = [
        {"attack": "min_k", "parameters": {"share": 0.1}},
        {"attack": "min_k", "parameters": {"share": 0.5}, "name": "half"},
        {"attack": "spv@base", "parameters": {"space": "log"}, "name": "mine"},
    ]
    named = name_attacks(made(attacks=asked))
    assert [n.label for n in named] == ["min_k(share=0.1)", "half", "mine@base"]
    assert named[0].attack.share == 0.1
    assert named[2].attack.space == "log"


@pytest.mark.parametrize(
    ("attacks", "changes", "says"),
    [
        (
            ["mia"],
            {},
            "attacks[0]: no attack 'mia'; did you mean 'rmia'? there are: con",
        ),
        (["lira"], {}, "attacks[0]: 'lira' needs shadows; add references of `kind: shadow`"),
        (["rmia"], {}, "'rmia' needs texts that are no members"),
        (["recall"], {}, "name a file of them as `population` under `records`"),
        (["dc_pdd"], {}, "add a section `corpus`"),
        (["learned_combination"], {}, "combines the scores of other attacks; name them too"),
        (["loss", "spv@bass"], {}, "attacks[1]: no reference 'bass'; there are: base, self_prompt"),
        (["loss@base"], {}, "attacks[0]: 'loss' uses no reference"),
        (["spv"], {"neighbors": None}, "add a section `neighbors`"),
        (["difference"], {"references": None}, "add one under `references`"),
        (["loss", "loss"], {}, "'loss' is given twice; give one of them a name of its own"),
        (["spv", "spv@base"], {}, "'spv@base' is given twice, as 'spv' runs with every reference"),
        ([{"attack": "min_k", "parameters": {"share": 2}}], {}, "share should be in (0, 1]"),
        ([{"attack": "loss", "parameters": {"k": 2}}], {}, "has no parameter 'k'"),
    ],
)
def test_attack_that_cannot_run_is_refused_with_its_place(made, attacks, changes, says):
    (text,) = problems(name_attacks, made(attacks=attacks, **changes))
    assert says in text


def test_all_wrong_attacks_are_named_together(made):
    found = problems(name_attacks, made(attacks=["mia", "loss", "loss@base", "rmia"]))
    assert [text.split(":")[0] for text in found] == ["attacks[0]", "attacks[2]", "attacks[3]"]


# ------------------------------------------------------------------------- resolving


def test_everything_is_resolved(made, tiny_gpt2):
    inputs = resolve_inputs(made())
    assert inputs.records.table.num_rows == 6
    assert list(inputs.targets) == ["one"]
    assert list(inputs.references) == ["base"]
    assert inputs.targets["one"].path == str(tiny_gpt2)
    assert inputs.references["base"].fingerprint != inputs.targets["one"].fingerprint
    assert len(inputs.modality.prompts["self_prompt"]) == 3
    assert inputs.modality.paraphraser.dtype == "float32"


def test_resolving_loads_no_model(made, monkeypatch):
    import transformers

    for name in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoTokenizer"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", None)
    resolve_inputs(made())


def test_problems_of_all_parts_are_reported_together(made, tmp_path):
    spec = made(
        records={"members": str(tmp_path / "gone.jsonl")},
        targets=[
            {"name": "a", "model": str(tmp_path / "no model")},
            {"name": "b", "model": str(tmp_path)},
        ],
        references={
            "base": {"model": str(tmp_path / "no base")},
            "sp": {"kind": "self_prompt", "prompts": str(tmp_path / "no.jsonl")},
        },
        neighbors={"model": str(tmp_path / "no t5")},
        attacks=["mia"],
    )
    found = problems(resolve_inputs, spec)
    for place in ("attacks[0]", "gone.jsonl", "targets[0].model", "targets[1].model",
                  "references.base.model", "no.jsonl", "neighbors.model"):  # fmt: skip
        assert sum(place in text for text in found) == 1, place
    assert len(found) == 7


def test_prompt_that_is_a_record_is_set_aside_and_not_used(made, tmp_path):
    """A prompt among the records would teach the reference a member."""
    texts = passages(9)
    path = write_jsonl(tmp_path / "mixed.jsonl", [texts[0], texts[7], texts[4], "", texts[7]])
    references = {
        "base": {"model": made().references["base"].model},
        "sp": {"kind": "self_prompt", "prompts": path},
    }
    inputs = resolve_inputs(made(references=references))
    assert inputs.modality.prompts["sp"] == (texts[7],)
    reasons = {a.where.split()[-1]: a.reason for a in inputs.records.set_aside}
    assert reasons["1"] == reasons["3"] == "a prompt that is also a record"
    assert reasons["4"] == "a prompt that is empty or white space only"


def test_prompts_that_are_all_records_are_refused(made, tmp_path):
    path = write_jsonl(tmp_path / "records.jsonl", passages(6))
    references = {
        "base": {"model": made().references["base"].model},
        "sp": {"kind": "self_prompt", "prompts": path},
    }
    (text,) = problems(resolve_inputs, made(references=references))
    assert text.startswith("references.sp.prompts: not one usable prompt")


def test_prompts_without_their_column_name_it(made, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"body": "x"}\n')
    references = {
        "base": {"model": made().references["base"].model},
        "sp": {"kind": "self_prompt", "prompts": str(tmp_path / "p.jsonl")},
    }
    (text,) = problems(resolve_inputs, made(references=references))
    assert "no column 'text'; found: body" in text


def test_conversations_beside_a_missing_file_of_records_are_not_called_texts_without_their_column(
    made, tmp_path
):
    (tmp_path / "chats.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n')
    (tmp_path / "asked.csv").write_text("question,answer\nWhy?,So.\n")
    chats, asked = str(tmp_path / "chats.jsonl"), str(tmp_path / "asked.csv")
    references = {
        "base": {"model": made().references["base"].model},
        "sp": {"kind": "self_prompt", "prompts": chats},
    }
    gone = str(tmp_path / "gone.jsonl")
    records = {"members": gone, "non_members": asked}
    spec = made(records=records, references=references)
    missing, unknown = problems(resolve_inputs, spec)
    assert f"{gone}: no such file" in missing
    assert "found: question, answer" in unknown
    assert "prompt and completion, or chosen and rejected" in unknown


def test_base_with_an_adapter_cannot_be_fine_tuned(made, tmp_path, tiny_gpt2):
    adapter = save_adapter(tmp_path / "adapter", tiny_gpt2)
    references = {
        "base": {"model": str(tiny_gpt2), "adapter": str(adapter)},
        "sp": {"kind": "self_prompt", "prompts": str(tmp_path / "audit" / "p.jsonl")},
    }
    made()
    (text,) = problems(resolve_inputs, made(references=references))
    assert text.startswith("references.sp.base: 'base' has an adapter")


def test_pickled_target_is_refused_before_anything_is_loaded(made, tmp_path, tiny_gpt2):
    shutil.copytree(tiny_gpt2, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "model.bin")
    (text,) = problems(
        resolve_inputs, made(targets=[{"name": "a", "model": str(tmp_path / "pickled")}])
    )
    assert text.startswith("targets[0].model: ")
    assert "model.bin" in text


# --------------------------------------------------------------------------- the release gate


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("spv@self_promt.auc > 0.6", "no attack 'spv@self_promt'; did you mean 'spv@self_prompt'?"),
        ("onne:any.auc > 0.6", "no target 'onne'; did you mean 'one'? there are: one"),
        ("any.tpr@5%fpr > 0.1", "no tpr@5%fpr; did you mean tpr@10%fpr?"),
    ],
)
def test_condition_on_what_is_not_measured_is_refused(made, condition, says):
    (problem,) = problems(resolve_inputs, made(fail_if=[condition]))
    assert problem.startswith(f"{condition!r}: {says}")


def test_condition_that_nothing_could_decide_is_refused(made, tmp_path):
    alone = {"candidates": write_jsonl(tmp_path / "c.jsonl", passages(3))}
    (problem,) = problems(resolve_inputs, made(records=alone, fail_if=["any.auc > 0.6"]))
    assert problem.startswith("fail_if: conditions are on what is measured, which takes members")


def test_conditions_on_what_is_measured_are_taken(made):
    given = ["any.auc > 0.6", "one:*@self_prompt.tpr@1%fpr >= 0.05", "verdict >= leaks"]
    assert resolve_inputs(made(fail_if=given)).spec.fail_if == given


def in_groups(folder, column="book", **groups):
    """Members and non-members with a column of groups, which are given by the one and the other."""
    texts, found = iter(passages(6)), {}
    for side, names in groups.items():
        rows = [{"text": next(texts), "book": name} for name in names]
        found[side] = write_rows(folder / f"{side}.jsonl", rows)
    return {**found, "group_column": column}


APART = {"members": ["a", "a", "b"], "non_members": ["c", "d", "d"]}
MIXED = {"members": ["a", "a", "b"], "non_members": ["b", "a", "b"]}


@pytest.mark.parametrize(
    ("condition", "groups", "why"),
    [
        ("any.auc > 0.6 by group", None, "no record has a group; name the column of groups as"),
        ("any.auc > 0.6 by group", MIXED, "groups are measured where some have members alone"),
        ("extraction > 0.01", None, "extraction is counted in what a target writes for the attack "
         "`samia`, on texts, which is not run on one; run it"),
        ("extraction > 0.01", APART, "whole groups were split, and extraction counts records"),
    ],
)  # fmt: skip
def test_a_condition_that_no_outcome_of_the_audit_could_decide_is_refused(
    made, tmp_path, condition, groups, why
):
    changes = {} if groups is None else {"records": in_groups(tmp_path, **groups)}
    attacks = ["loss", "samia"] if groups else ["loss"]
    (problem,) = problems(resolve_inputs, made(attacks=attacks, fail_if=[condition], **changes))
    assert problem.startswith(f"fail_if: {condition!r}: {why}")


def test_a_condition_on_groups_or_on_extraction_is_taken_where_they_are_measured(made, tmp_path):
    groups = {"records": in_groups(tmp_path, **APART)}
    by_group = ["any.auc > 0.6 by group"]
    assert resolve_inputs(made(attacks=["loss"], fail_if=by_group, **groups)).spec.fail_if
    alone = ["extraction > 0.01"]
    assert resolve_inputs(made(attacks=["samia"], fail_if=alone)).spec.fail_if == alone


def test_a_condition_on_an_attack_that_one_of_its_targets_is_spared_is_refused(made, monkeypatch):
    """As an endpoint is of attacks on weights: its gate could never open."""
    targets = [{"name": name, "model": str(BASE)} for name in ("one", "two")]
    spec = made(targets=targets, attacks=["loss", "zlib"], fail_if=["zlib.auc > 0.6"])
    spared = replace(resolve_inputs(spec), left_out={("two", "zlib"): "why"})
    monkeypatch.setattr(resolving, "leave_out_unserved", lambda _: spared)
    (problem,) = problems(resolve_inputs, spec)
    assert problem.startswith("fail_if: 'zlib.auc > 0.6': 'zlib' is not run on two; name the")
    for said in ("one:zlib.auc > 0.6", "any.auc > 0.6"):
        named = spec.model_copy(update={"fail_if": [said]})
        spared = replace(spared, spec=named)
        assert resolve_inputs(named).spec.fail_if == [said]


def test_coins_that_were_not_fair_are_refused(made, tmp_path):
    texts = iter(passages(80, start=9))

    def inputs(groups, column=None):
        """So many groups of members, and of non-members, with so many records each."""
        records = {} if column is None else {"group_column": column}
        for kind, (count, size) in groups.items():
            path = tmp_path / f"{kind}.jsonl"
            rows = [
                {"text": next(texts), "doc": f"{kind} {group}"}
                for group in range(count)
                for _ in range(size)
            ]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            records[kind] = str(path)
        return made(records=records, metrics={"inclusion": "randomized"})

    (problem,) = problems(resolve_inputs, inputs({"members": (30, 1), "non_members": (2, 1)}))
    assert problem.startswith("metrics.inclusion: `randomized` says that a fair coin decided")
    assert "30 of 32 were" in problem
    by_group = {"members": (2, 15), "non_members": (2, 1)}
    assert resolve_inputs(inputs(by_group, "doc")).spec.metrics.inclusion == "randomized"


@pytest.mark.parametrize(
    ("training", "is_said"),
    [({}, True), ({"training": {"eos": False}}, True),
     ({"training": {"special_tokens": False}}, False),
     ({"training": {"special_tokens": True}}, False)],
)  # fmt: skip
def test_that_texts_would_begin_twice_is_said_until_it_is_told(made, tmp_path, training, is_said):
    model, begin = beginning_model(tmp_path / "model"), "<|endoftext|>"
    paths = {kind: tmp_path / f"{kind}.jsonl" for kind in ("members", "non_members")}
    for kind, path in paths.items():
        write_rows(path, [{"text": f"{begin}What is a {kind} {n}?"} for n in range(4)])
    spec = made(
        records={kind: str(path) for kind, path in paths.items()},
        targets=[{"name": "tuned", "model": str(model)}],
        neighbors=None, references={}, attacks=["loss"], **training,
    )  # fmt: skip
    lines = [line for line in resolve_inputs(spec).assumed if "special_tokens" in line]
    assert len(lines) == is_said
    assert all(line.startswith(f"training: a record begins with {begin!r}") for line in lines)


@pytest.mark.parametrize(
    "content",
    [{"max_length": 64, "dataset_text_field": "formatted"},
     {"sequence_len": 64, "datasets": [{"type": "completion", "field": "formatted"}]}],
)  # fmt: skip
def test_texts_of_another_column_than_was_trained_are_refused(made, tmp_path, content):
    config, paths = tmp_path / "sft.json", [tmp_path / "m.jsonl", tmp_path / "n.jsonl"]
    config.write_text(json.dumps(content))
    for path in paths:
        write_rows(path, [{"text": f"{path} {n}", "formatted": f"{path} {n}!"} for n in range(4)])
    records = dict(zip(("members", "non_members"), map(str, paths), strict=True))
    alone = {"neighbors": None, "references": {}, "attacks": ["loss"]}
    alone["training"] = {"config": str(config)}
    found = problems(resolve_inputs, made(records=records, **alone))
    assert [one.partition(": ")[0] for one in found] == [*map(str, paths)]
    assert "its column 'formatted', and records.text_column is 'text'" in found[0]
    for column in ("formatted", "text"):
        named = made(records={**records, "text_column": column}, **alone)
        assert resolve_inputs(named).records.count(True) == 4
    for path in paths:
        write_rows(path, [{"text": f"{path} {n}"} for n in range(4)])
    assert resolve_inputs(made(records=records, **alone)).records.count(True) == 4


def test_texts_beside_prompts_and_completions_are_none_of_what_trl_trained_on(made, tmp_path):
    config, paths = tmp_path / "sft.json", [tmp_path / "m.jsonl", tmp_path / "n.jsonl"]
    config.write_text(json.dumps({"max_length": 64, "completion_only_loss": True}))
    for path in paths:
        rows = [{"text": f"{path} {n}", "prompt": "What?", "completion": f" {n}"} for n in range(4)]
        write_rows(path, rows)
    records = dict(zip(("members", "non_members"), map(str, paths), strict=True))
    alone = {"neighbors": None, "references": {}, "attacks": ["loss"]}
    by_trl = {**alone, "training": {"config": str(config)}}
    assert resolve_inputs(made(records=records, **alone)).records.count(True) == 4
    found = problems(resolve_inputs, made(records=records, **by_trl))
    assert [one.partition(": ")[0] for one in found] == [*map(str, paths)]
    assert "TRL trains on prompt and completion; name the format as `format`" in found[0]
    named = made(records={**records, "format": "text"}, **by_trl)
    assert resolve_inputs(named).records.count(True) == 4
