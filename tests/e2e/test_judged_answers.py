"""Audits of pairs and of answers with a label, from the audit file to the scores."""

from __future__ import annotations

from functools import partial

import pytest
from small_audit import BASE, console, reweigh
from small_chat_audit import conversation, scores_of, write_chat_audit

from raymia.run.audit import run_audit
from raymia.spec.file import load_spec


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    reweigh(BASE, folder, lambda tensor: tensor * 0.97)
    return folder


def pair(text):
    question, answer = conversation(text)["messages"]
    wrong = {"role": "assistant", "content": " ".join(reversed(answer["content"].split()))}
    return {"prompt": [question], "chosen": [answer], "rejected": [wrong]}


def audited(folder, **sections):
    folder.mkdir()
    spec = load_spec(write_chat_audit(folder, count=4, **sections))
    result = run_audit(spec, console())
    assert result.dropped == []
    return result, scores_of(spec)


@pytest.mark.long
def test_pairs_are_scored_by_their_margin_and_its_halves(tmp_path, other):
    found = {}
    for side in ("chosen", "rejected"):
        result, found[side] = audited(
            tmp_path / side,
            make=pair,
            references={"base": {"model": str(other)}},
            training={"template": "template.jinja"},
            attacks=["margin", "reward@base", "reward_of_other@base", "loss"],
            side=side,
        )
        attacks = [metrics.attack for metrics in result.metrics]
        assert attacks == ["margin", "margin@base", "reward@base", "reward_of_other@base", "loss"]
    chosen, rejected = found["chosen"], found["rejected"]
    # Whichever answer is scored, chosen counts for and rejected against: the halves change places.
    for one, another in (
        ("margin", "margin"), ("margin@base", "margin@base"),
        ("reward@base", "reward_of_other@base"), ("reward_of_other@base", "reward@base"),
    ):  # fmt: skip
        assert chosen[one] == pytest.approx(rejected[another], abs=1e-3)
    assert chosen["loss"] != pytest.approx(rejected["loss"], abs=1e-3)
    assert max(map(abs, chosen["reward@base"].values())) > 0.1


def judged(text, label):
    question, answer = conversation(text)["messages"]
    return {"prompt": [question], "completion": [answer], "label": label}


@pytest.mark.long
def test_the_reward_of_an_answer_is_turned_with_its_label(tmp_path, other):
    found = {
        label: audited(
            tmp_path / str(label),
            make=partial(judged, label=label),
            references={"base": {"model": str(other)}},
            training={"template": "template.jinja"},
            attacks=["reward@base", "loss"],
        )[1]
        for label in (True, False)
    }
    turned = {record: -score for record, score in found[False]["reward@base"].items()}
    assert found[True]["reward@base"] == pytest.approx(turned, abs=1e-4)
    assert found[True]["loss"] == pytest.approx(found[False]["loss"], abs=1e-5)
    assert max(map(abs, turned.values())) > 0.1
