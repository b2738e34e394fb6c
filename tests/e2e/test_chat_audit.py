"""Audits of conversations and of preferences, from the audit file to the report."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import yaml
from chat_templates import WRITES_THE_DAY
from small_audit import BASE, console, passages, reweigh
from small_chat_audit import conversation, scores_of, write_chat_audit, write_rows
from tiny_models import checkpoint
from transformers import AutoTokenizer

from raymia.cli.main import print_result
from raymia.cli.plan import audit_plan
from raymia.cli.show import show
from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training
from raymia.models.tokenizers import tokenizer_of
from raymia.plan.planning import plan_audit
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec
from raymia.util.errors import InputError

ATTACKS = [
    "loss", "zlib", "lowercase", "recall", "pac", "dc_pdd", "neighbor", "detect_gpt", "spv@base",
    "difference@self_prompt",
]  # fmt: skip


def page(spec):
    return Path(spec.output, "report.html").read_text(encoding="utf-8")


def lines(path):
    return Path(path).read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    reweigh(BASE, folder, lambda tensor: tensor * 0.97)
    return folder


@pytest.fixture(scope="module")
def trained_audit(tmp_path_factory, other):
    folder = tmp_path_factory.mktemp("chat")
    tune = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    file = write_chat_audit(
        folder,
        attacks=ATTACKS,
        references={
            "base": {"model": str(other)},
            "self_prompt": {"kind": "self_prompt", "prompts": "prompts.jsonl", "texts": 4,
                            "max_tokens": 80, "fine_tune": tune},
        },
        neighbors={"kind": "substitute", "count": 2},
        probes={"swaps": {"count": 2}},
        corpus={"files": write_rows(folder / "corpus.jsonl", [{"text": t} for t in passages(3)])},
        report={"texts": True},
    )  # fmt: skip
    return load_spec(file), run_audit(load_spec(file), console())


def test_every_attack_scores_every_conversation(trained_audit):
    _, result = trained_audit
    assert [metrics.attack for metrics in result.metrics if metrics.n_members == 8] == ATTACKS
    assert result.dropped == []
    assert result.complete


def test_evidence_is_on_the_answers_alone(trained_audit):
    spec, _ = trained_audit
    store = EvidenceStore(spec.store)
    inputs = resolve_inputs(spec)
    plan = plan_audit(inputs, store)[0]
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    answers = {
        one["messages"][1]["content"] + "<|eot|>"
        for name in ("members", "non_members")
        for one in map(json.loads, lines(getattr(spec.records, name)[0]))
    }
    key = next(p.key for p in plan.target.questions if p.key.kind == "text.tokens")
    ids = set(inputs.records.ids)
    rows = [row for row in store.read(key).to_pylist() if row["record_id"] in ids]
    assert {tokenizer.decode(row["token_ids"]) for row in rows} == answers


def test_attacks_on_texts_take_the_words_that_are_scored(trained_audit):
    """Of the answer alone, which the model is asked for anew here."""
    spec, _ = trained_audit
    payload = resolve_inputs(spec).records.table["payload"][0].as_py()
    question, answer = json.loads(payload)["messages"]
    template = Path(spec.training.template).read_text(encoding="utf-8")

    def mean_of(answer):
        turns = [question, {"role": "assistant", "content": answer}]
        training = Training("chat", "assistant", template=template)
        model = load_causal_lm(checkpoint(BASE, training=training), batch_tokens=512)
        (found,) = model.answer([json.dumps({"messages": turns})], moments=False)
        return float(np.mean(found.log_prob, dtype=np.float64)), found

    mean, found = mean_of(answer["content"])
    lowered, _ = mean_of(answer["content"].lower())
    size = len(zlib.compress(answer["content"].encode()))
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    counts = np.zeros(len(tokenizer))
    for line in lines(spec.corpus.files[0]):
        np.add.at(counts, tokenizer(json.loads(line)["text"])["input_ids"], 1)
    rarity = -np.log((1 + counts) / (counts.sum() + len(counts)))
    _, first = np.unique(found.token_ids, return_index=True)
    rare = np.exp(found.log_prob[first]) * rarity[found.token_ids[first]]
    assert rare.min() < 0.01 < rare.max()
    scores = {attack: of[json.dumps(json.loads(payload))] for attack, of in scores_of(spec).items()}
    for attack, expected in (
        ("loss", mean), ("zlib", mean / size), ("lowercase", -mean / lowered),
        ("dc_pdd", np.minimum(rare, 0.01).mean()),
    ):  # fmt: skip
        assert scores[attack] == pytest.approx(expected, rel=1e-3), attack


def test_neighbors_change_the_answer_and_leave_the_question(trained_audit):
    spec, _ = trained_audit
    inputs = resolve_inputs(spec)
    plan = plan_audit(inputs, EvidenceStore(spec.store))[0]
    made = EvidenceStore(spec.store).read(plan.neighbors.questions[0].key).to_pylist()
    payloads = dict(
        zip(inputs.records.ids, inputs.records.table["payload"].to_pylist(), strict=True)
    )
    assert len(made) == 32
    for row in made:
        own, changed = (
            json.loads(p)["messages"] for p in (payloads[row["record_id"]], row["payload"])
        )
        assert changed[0] == own[0]
        assert changed[1] != own[1]


def test_the_second_run_asks_nothing_and_another_template_asks_anew(trained_audit, tmp_path):
    spec, _ = trained_audit
    planned = plan_audit(resolve_inputs(spec), EvidenceStore(spec.store))
    assert not planned.is_missing_anything
    template = tmp_path / "blank.jinja"
    template.write_text(Path(spec.training.template).read_text() + " ")
    other = spec.model_copy(
        update={"training": spec.training.model_copy(update={"template": str(template)})}
    )
    again = plan_audit(resolve_inputs(other), EvidenceStore(spec.store))
    assert again[0].target.stored == 0


def test_the_reference_was_made_of_answers_and_says_so(trained_audit):
    _, result = trained_audit
    (card,) = [card for card in result.references if card.name.startswith("self_prompt")]
    facts = json.dumps(card.model_dump(mode="json"))
    for fact in ("prompts_begin_with_the_same_tokens", "ended_by_themselves", "mean_tokens"):
        assert fact in facts
    assert 0 <= card.facts["ngrams_shared_with_members"] < 0.5
    for fact in ("perplexity_on_written_text", "perplexity_on_domain_text", "written_twice"):
        assert fact in card.facts


def test_what_is_assumed_stands_in_the_plan_and_in_the_report(trained_audit):
    spec, result = trained_audit
    assumed = "training: it is assumed that no record was cut; say `max_length` where some were"
    assert assumed in result.problems
    out = console()
    out.print(audit_plan(spec), soft_wrap=True)
    assert assumed in re.sub(r"\s+", " ", out.file.getvalue())


def told_by_others(text):
    """A conversation whose roles are not those of the template."""
    turns = conversation(text)["messages"]
    renamed = {"user": "human", "assistant": "bot"}
    return {"messages": [{**turn, "role": renamed[turn["role"]]} for turn in turns]}


@pytest.mark.long
def test_why_conversations_have_no_answer_stands_in_the_plan_and_at_the_end(tmp_path):
    file = write_chat_audit(tmp_path, count=4, attacks=["loss"])
    members = tmp_path / "members.jsonl"
    first, *others = passages(24)[:4]
    rows = [conversation(first), *map(told_by_others, others)]
    members.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec, out = load_spec(file), console()
    why = (
        "3 x the conversation has no turn of the assistant; call the role of answers so, or say "
        "`loss_on: all`; came: 'human', 'bot'"
    )
    out.print(audit_plan(spec), soft_wrap=True)
    planned = re.sub(r"\s+", " ", out.file.getvalue())
    assert f"of 8 records that were looked at, 3 will have no answer from tuned: {why}" in planned
    result = run_audit(spec, console())
    print_result(result, spec.output, out)
    printed = re.sub(r"\s+", " ", out.file.getvalue())
    assert f"no answer: {why.replace('the conv', 'target:tuned: the conv', 1)}" in printed


def test_the_report_shows_what_was_scored_and_what_was_not(trained_audit):
    spec, result = trained_audit
    pieces = result.text_examples[0].pieces
    assert pieces[0].part == "context"
    assert [piece.turn for piece in pieces if piece.turn] == ["user", "assistant"]
    assert "<|user|>" in pieces[0].text
    assert any(piece.part == "scored" and piece.log_prob is not None for piece in pieces)
    html = page(spec)
    assert re.search(r'<b class="turn">user</b><span class="context"[^>]*>[^<]+', html)
    assert '<b class="turn">assistant</b>' in html
    assert re.search(r'<span class="(rise|fall)" style="--depth:[01]\.\d\d" title="log p ', html)
    assert '<span class="cut" style' not in html


def test_the_report_shows_what_was_cut_and_what_was_scored_of_a_long_conversation(tmp_path, other):
    def long(text):
        question, answer = conversation(text)["messages"]
        return {"messages": [{**question, "content": text + " and so on" * 40}, answer]}

    file = write_chat_audit(
        tmp_path,
        count=3,
        make=long,
        training={"template": "template.jinja", "loss_on": "assistant", "max_length": 210},
        references={"base": {"model": str(other)}},
        attacks=["difference@base"],
        report={"texts": True},
    )
    spec = load_spec(file)
    run_audit(spec, console())
    shown = page(spec)
    assert re.search(r'<b class="turn">user</b><span class="context"[^>]*>[^<]+', shown)
    assert re.search(r"… \d+ characters left out … ", shown)
    assert re.search(r'<span[^>]* title="log p ', shown)
    cut = map(unescape, re.findall(r'<span class="cut" style[^>]*>([^<]+)', shown))
    rows = [row for side in ("members", "non_members") for row in lines(tmp_path / f"{side}.jsonl")]
    answers = [json.loads(row)["messages"][1]["content"] + "<|eot|>" for row in rows]
    found = {answer for words in cut for answer in answers if answer.endswith(words)}
    assert len(found) > 1


def test_a_record_is_shown_with_what_is_scored_between_brackets(tmp_path, capsys):
    file = write_chat_audit(tmp_path, count=2)
    inputs = resolve_inputs(load_spec(file))
    show(file, inputs.records.ids[1][:12], None)
    turns = json.loads(inputs.records.table["payload"][1].as_py())["messages"]
    printed = capsys.readouterr().out
    question, answer = (turn["content"] for turn in turns)
    assert f"<|user|>\n\n{question}<|eot|><|assistant|>\n\n\u27e6{answer}<|eot|>\u27e7" in printed
    assert re.search(r"\d+ tokens, of which \d+ are scored; 0 more were cut off", printed)
    with pytest.raises(InputError, match="4 records have an id that begins with ''"):
        show(file, "", None)
    with pytest.raises(InputError, match="no record has an id that begins with 'zz'"):
        show(file, "zz", None)


def test_what_a_training_cut_off_is_shown_as_that(tmp_path, capsys):
    training = {"template": "template.jinja", "max_length": 40}
    file = write_chat_audit(tmp_path, count=2, training=training)
    inputs = resolve_inputs(load_spec(file))
    show(file, inputs.records.ids[0], None)
    printed = capsys.readouterr().out
    (target,) = inputs.targets.values()
    payload = inputs.records.table["payload"][0].as_py()
    whole = replace(target.training, max_length=None)
    more = len(TrainedReader(tokenizer_of(target), whole).read([payload])[0].ids) - 40
    assert re.search(rf"40 tokens, of which \d+ are scored; {more} more were cut off", printed)
    left, cut = printed.split("\u27e6")[1].rstrip("\n").split("\u27e7")
    assert left + cut == json.loads(payload)["messages"][1]["content"] + "<|eot|>"
    assert left
    assert cut


def test_a_record_that_is_not_scored_is_shown_with_the_reason_and_its_text(tmp_path, capsys):
    training = {"template": "template.jinja", "max_length": 60}
    file = write_chat_audit(tmp_path, count=2, training=training)
    question, answer = conversation(passages(24)[0])["messages"]
    long = {"messages": [{**question, "content": question["content"] * 9}, answer]}
    others = lines(tmp_path / "members.jsonl")[1:]
    (tmp_path / "members.jsonl").write_text("\n".join([json.dumps(long), *others]))
    show(file, resolve_inputs(load_spec(file)).records.ids[0], None)
    printed = capsys.readouterr().out
    assert "not scored: no token carried a loss among the 60 tokens" in printed
    assert f"<|user|>\n\n{long['messages'][0]['content']}<|eot|>" in printed
    assert answer["content"] in printed


@pytest.mark.training
def test_self_prompting_needs_no_prompts(tmp_path, other):
    file = write_chat_audit(
        tmp_path,
        attacks=["difference@from_nothing"],
        count=4,
        references={
            "base": {"model": str(other)},
            "from_nothing": {"kind": "self_prompt", "prompts": "none", "texts": 4,
                             "max_tokens": 60, "fine_tune": {"epochs": 1, "batch_size": 4}},
        },
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    assert result.complete, result.problems
    assert [metrics.attack for metrics in result.metrics] == ["difference@from_nothing"]


# ------------------------------------------------------------------ what is refused


def refused(folder, match, **sections):
    file = write_chat_audit(folder, **sections)
    with pytest.raises(InputError, match=match):
        resolve_inputs(load_spec(file))


def test_a_tokenizer_without_a_template_says_what_to_write(tmp_path):
    refused(tmp_path, "has no chat template; name the one that the training used", training={})


def test_a_loss_that_means_nothing_for_the_format_is_refused(tmp_path):
    training = {"template": "template.jinja", "loss_on": "completion"}
    refused(tmp_path, "means nothing for records of the format chat", training=training)


@pytest.mark.parametrize("prompts", ["none", "prompts.jsonl"])
def test_first_tokens_of_prompts_mean_nothing_for_conversations(tmp_path, prompts):
    (tmp_path / "prompts.jsonl").write_text(json.dumps(conversation("Whose is it? His.")) + "\n")
    made = {"kind": "self_prompt", "prompts": prompts, "prompt_tokens": 4}
    references = {"base": {"model": str(BASE)}, "own": made}
    refused(
        tmp_path, r"references\.own\.prompt_tokens: texts of files alone", references=references
    )


def test_a_template_that_no_record_can_be_read_by_is_refused_before_a_model_is_loaded(tmp_path):
    (tmp_path / "raises.jinja").write_text("{{ raise_exception('no such role') }}")
    training = {"template": "raises.jinja"}
    refused(tmp_path, "not one of 16 records.*no such role", training=training)


def test_a_limit_that_leaves_no_answer_is_refused(tmp_path):
    training = {"template": "template.jinja", "max_length": 4}
    refused(tmp_path, "no token carried a loss among the 4 tokens", training=training)


def test_a_template_that_writes_the_day_writes_that_of_the_training(tmp_path):
    (tmp_path / "day.jinja").write_text(WRITES_THE_DAY)
    training = {"template": "day.jinja"}
    refused(tmp_path, "say that of the training as `date", training=training)
    dated = {**training, "date": "2025-03-09"}
    (target,) = resolve_inputs(
        load_spec(write_chat_audit(tmp_path, training=dated))
    ).targets.values()
    assert target.training.template.startswith('{{ "09 Mar 2025" }}')
    (tmp_path / "day.jinja").write_text("{% set f = '%Y' %}{{ strftime_now(f) }}")
    refused(tmp_path, "in a form that it makes up", training=dated)


OTHERWISE = [
    {"name": "one", "model": str(BASE)},
    {"name": "two", "model": str(BASE),
     "training": {"template": "template.jinja", "loss_on": "all"}},
]  # fmt: skip


@pytest.mark.long
def test_each_target_is_compared_with_references_that_read_as_it_was_trained(tmp_path, other):
    file = write_chat_audit(
        tmp_path,
        count=4,
        targets=OTHERWISE,
        references={"base": {"model": str(other)}},
        attacks=["ez@base", "difference@base"],
    )
    inputs = resolve_inputs(load_spec(file))
    plans = plan_audit(inputs, EvidenceStore(str(tmp_path / "store")))
    stages = [stage.name for plan in plans for stage in plan.references.values()]
    assert stages == ["reference:base", "reference:base:two"]
    result = run_audit(load_spec(file), console())
    assert result.complete, result.problems
    assert {(m.target, m.attack, m.n_members) for m in result.metrics} == {
        (target, attack, 4)
        for target in ("one", "two")
        for attack in ("ez@base", "difference@base")
    }


def test_neighbors_serve_targets_that_were_trained_on_the_same_parts_alone(tmp_path):
    neighbors = {"kind": "substitute", "count": 2}
    refused(tmp_path, "on other parts of the records", targets=OTHERWISE, neighbors=neighbors)


def test_a_checkpoints_own_template_is_taken_and_that_of_its_copy_is_the_same(tmp_path):
    for name in ("one", "two"):
        shutil.copytree(BASE, tmp_path / name)
        (tmp_path / name / "chat_template.jinja").write_text("{{ messages[0].content }}: "
            "{% generation %}{{ messages[1].content }}{% endgeneration %}")  # fmt: skip
    targets = [{"name": name, "model": name} for name in ("one", "two")]
    file = write_chat_audit(tmp_path, targets=targets, training={"loss_on": "assistant"})
    one, two = resolve_inputs(load_spec(file)).targets.values()
    assert one.fingerprint == two.fingerprint
    assert one.training.template.startswith("{{ messages[0].content }}")


def test_the_audit_file_of_plain_texts_is_as_it_was(tmp_path):
    rows = "".join(json.dumps({"text": f"passage {n} of many words"}) + "\n" for n in range(4))
    (tmp_path / "m.jsonl").write_text(rows)
    spec = {"records": {"members": "m.jsonl"}, "targets": [{"name": "t", "model": str(BASE)}]}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(spec))
    inputs = resolve_inputs(load_spec(tmp_path / "audit.yaml"))
    assert inputs.targets["t"].training is None
    assert inputs.spec.records.format is None
    assert inputs.assumed == ()
