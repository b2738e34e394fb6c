"""A model behind an endpoint answers as the same model at hand, or says why not."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from chat_templates import CHATML, chat
from completions_server import MODEL, SECRET, Manners, completions_server
from small_inputs import audit
from tiny_models import BASE, PARAPHRASER, checkpoint

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.training import Training
from raymia.models.endpoints import client as endpoint_client
from raymia.models.endpoints.client import KEY_VARIABLE
from raymia.models.endpoints.loader import EndpointLoader
from raymia.models.endpoints.resolver import resolve_endpoint
from raymia.plan.planning import plan_audit
from raymia.questions.base import Item
from raymia.questions.text import TokenQuestion
from raymia.spec import EndpointTarget, PoolSpec
from raymia.util.errors import InputError, RaymiaError


@pytest.fixture(scope="module")
def running():
    with completions_server() as served:
        yield served


@pytest.fixture
def server(running, monkeypatch):
    """The address and the manners of a server, good ones at first; pauses are short."""
    monkeypatch.setattr(endpoint_client, "FIRST_DELAY", 0.01)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    url, manners = running
    manners.__dict__.update(Manners().__dict__)
    return url, manners


def resolved(url, **settings):
    spec = EndpointTarget.model_validate(
        {"name": "api", "endpoint": url, "served_model": MODEL, "retries": 3, **settings}
    )
    return resolve_endpoint(spec, "targets[0].endpoint")


def connected(url, **settings):
    return EndpointLoader(resolved(url, **settings), actors=1).load()


def test_connections_are_used_again(server, texts):
    """A new one for each thread of each call would run out of files in the end."""
    model = connected(server[0], parallel_requests=3)
    for _ in range(2):
        model.answer(texts[:6], moments=False)
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(8):
        model.answer(texts[:6], moments=False)
    assert len([*Path("/proc/self/fd").iterdir()]) <= before + 3
    assert len(model.client._open) <= 4, "the threads' and that of who made the client"


@pytest.mark.parametrize("style", ["vllm", "strict", "writes"])
def test_answers_equal_those_of_the_model_at_hand(server, base, texts, style):
    texts = texts[:20]
    url, manners = server
    manners.style = style
    model = connected(url)
    for ours, theirs in zip(
        model.answer(texts, moments=True), base.answer(texts, moments=True), strict=True
    ):
        np.testing.assert_allclose(ours.log_prob, theirs.log_prob, atol=1e-5)
        np.testing.assert_array_equal(ours.is_top1, theirs.is_top1)
        if style == "vllm":
            np.testing.assert_array_equal(ours.token_ids, theirs.token_ids)
        else:
            assert ours.token_ids is None
        assert ours.mean_log_prob is None
        assert not ours.truncated


def test_every_text_is_asked_once_and_few_at_a_time(server, texts):
    url, manners = server
    model = connected(url, parallel_requests=3)
    manners.asked.clear()
    model.answer(texts[:12], moments=False)
    assert [manners.asked[text] for text in texts[:12]] == [1] * 12
    assert 1 < manners.max_at_once <= 3


def test_what_another_try_may_mend_is_tried_again(server, texts):
    url, manners = server
    model = connected(url)
    plain = model.answer(texts[:2], moments=False)
    manners.failures = [429, 503]
    again = model.answer(texts[:2], moments=False)
    np.testing.assert_array_equal(plain[0].log_prob, again[0].log_prob)
    assert manners.failures == []


def test_a_server_that_says_when_to_come_back_is_obeyed(server, texts):
    url, manners = server
    model = connected(url)
    manners.failures, manners.retry_after = [429], "0.4"
    started = time.monotonic()
    model.answer(texts[:1], moments=False)
    assert time.monotonic() - started >= 0.4


def test_requests_keep_the_rate_limit(server, texts):
    url, _ = server
    model = connected(url, requests_per_minute=600)  # one in 0.1 s
    started = time.monotonic()
    model.answer(texts[:5], moments=False)
    assert time.monotonic() - started >= 0.4


def test_workers_share_the_limits(server):
    model = EndpointLoader(
        resolved(server[0], requests_per_minute=60, parallel_requests=8), 2
    ).load()
    assert (model.parallel, model.client._pace.gap) == (4, 2.0)


def test_the_limits_hold_for_all_workers_that_a_pool_may_grow_to(server):
    found = resolved(server[0], requests_per_minute=60, parallel_requests=8)
    model = found.loader(PoolSpec(actors=1, max_actors=4)).load()
    assert (model.parallel, model.client._pace.gap) == (2, 4.0)


def test_an_endpoint_has_no_more_workers_than_requests_that_may_be_under_way(server, tmp_path):
    target = {"name": "api", "endpoint": server[0], "served_model": MODEL, "parallel_requests": 8}
    spec = audit(
        tmp_path, BASE, PARAPHRASER, targets=[target], references=None, neighbors=None,
        attacks=["loss"], resources={"target": {"actors": 6, "max_actors": 16}},
    )  # fmt: skip
    (plan,) = plan_audit(resolve_inputs(spec), EvidenceStore(spec.store))
    assert (plan.target.pool.actors, plan.target.pool.max_actors) == (6, 8)
    assert plan.target.loader.actors == 8
    found = resolved(server[0], parallel_requests=8)
    assert found.pool(PoolSpec(actors=16)) == PoolSpec(actors=8)


def test_requests_hold_no_gpu(server):
    where = {"cpus": 0.5, "resources": {"net": 1}}
    given = PoolSpec(
        actors=4, gpus=1, accelerator_type="A10G", **where,
        labels={"raymia/pool": "near", "ray.io/accelerator-type": "A10G"},
    )  # fmt: skip
    found = resolved(server[0]).pool(given)
    assert found == PoolSpec(actors=4, labels={"raymia/pool": "near"}, **where)


def test_an_endpoint_that_stays_away_is_named_with_what_to_do(server, texts):
    url, manners = server
    model = connected(url)
    manners.answers_left = 2
    with pytest.raises(RaymiaError) as caught:
        model.answer(texts[:6], moments=False)
    assert f"{url}/completions: no answer in 4 tries (last: ConnectionError)" in str(caught.value)
    assert "run it again to go on" in str(caught.value)


def test_a_text_that_the_server_refuses_is_an_answer_with_its_reason(server, texts):
    url, manners = server
    model = connected(url)
    manners.longest = 20
    long, short = texts[1], "Just a few words."
    table = TokenQuestion().ask(model, [Item("long", 0, long), Item("short", 0, short)])
    refused, answered = table.to_pylist()
    assert refused["error"].startswith("refused by the endpoint; came: ")
    assert "maximum context length is 20" in refused["error"]
    assert refused["log_prob"] is None
    assert answered["error"] is None
    assert answered["mean_log_prob"] is None
    assert len(answered["log_prob"]) == len(answered["token_ids"]) == len(answered["is_top1"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("html", "expected JSON, got text/html: '<html>Welcome to nginx</html>'"),
        ("no_logprobs", "got no log-probability for each token of the prompt (`logprobs`)"),
        ("no_echo", "got no log-probability for each token of the prompt (`logprobs`)"),
        ("other_model", "got the answer of another model, 'another'"),
    ],
)
def test_a_wrong_answer_is_refused_before_the_run(server, wrong, said):
    url, manners = server
    manners.wrong = wrong
    with pytest.raises(InputError) as caught:
        resolved(url)
    assert str(caught.value).startswith("targets[0].endpoint: ")
    assert said in str(caught.value)


def test_a_model_that_is_not_served_is_refused_with_those_that_are(server):
    with pytest.raises(InputError, match=r"serves no model 'big'; it serves: tiny"):
        resolved(server[0], served_model="big")


def test_a_server_without_a_list_of_models_will_do(server):
    url, manners = server
    with_list = resolved(url)
    manners.has_models_page = False
    assert resolved(url).fingerprint != with_list.fingerprint


def test_nobody_at_the_address():
    with pytest.raises(InputError, match="no answer in 1 tries"):
        resolved("http://127.0.0.1:9/v1", retries=0)


def test_the_fingerprint_is_of_the_name_and_what_is_said_of_it(server):
    url, manners = server
    first = resolved(url)
    assert resolved(url, retries=1, parallel_requests=1).fingerprint == first.fingerprint
    manners.root = "/models/other"
    assert resolved(url).fingerprint != first.fingerprint
    with pytest.raises(RaymiaError, match="otherwise than when the audit was planned"):
        EndpointLoader(first, actors=1).load()


def test_the_key_goes_to_the_server_and_nowhere_else(server, monkeypatch, texts):
    url, manners = server
    manners.key = SECRET
    with pytest.raises(InputError, match=f"status 401; {KEY_VARIABLE} is not set") as caught:
        resolved(url)
    monkeypatch.setenv(KEY_VARIABLE, f"{SECRET}-wrong")
    with pytest.raises(InputError, match=f"status 401; {KEY_VARIABLE} is not accepted") as wrong:
        resolved(url)
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    endpoint = resolved(url)
    model = EndpointLoader(endpoint, actors=1).load()
    manners.failures = [418]  # its message quotes the key
    with pytest.raises(RaymiaError) as quoted:
        model.answer(texts[:1], moments=False)
    assert "you came with Bearer ***" in str(quoted.value)
    assert isinstance(pickle.loads(pickle.dumps(quoted.value)), type(quoted.value))
    seen = [caught.value, wrong.value, quoted.value, endpoint, pickle.dumps(endpoint)]
    assert not any(SECRET in str(thing) for thing in seen)


# ------------------------------------------------------------------ conversations

TURNS = (chat("Hi", "Good day."), chat("What is a heron?", "A bird.", "And?", "It wades."))
CHATS = [json.dumps({"messages": turns}) for turns in TURNS]
TRAINED = Training("chat", "assistant", template=CHATML)


def chatting(url):
    return EndpointLoader(resolved(url, tokenizer=str(BASE)).read_as(TRAINED), actors=1).load()


@pytest.mark.parametrize("style", ["vllm", "strict", "writes"])
def test_conversations_are_sent_as_tokens_and_their_answers_alone_are_scored(server, style):
    url, manners = server
    manners.style = style
    at_hand = load_causal_lm(checkpoint(BASE, training=TRAINED), batch_tokens=512)
    expected = at_hand.answer(CHATS, moments=False)
    for ours, theirs in zip(chatting(url).answer(CHATS, moments=False), expected, strict=True):
        np.testing.assert_allclose(ours.log_prob, theirs.log_prob, atol=1e-5)
        np.testing.assert_array_equal(ours.token_ids, theirs.token_ids)


def test_a_server_that_adds_a_template_of_its_own_is_refused(server):
    url, manners = server
    model = chatting(url)
    manners.wrong = "own_template"
    with pytest.raises(RaymiaError, match="puts a template of its own around a prompt"):
        model.answer(CHATS, moments=False)


def test_a_conversation_that_cannot_be_rendered_is_answered_with_the_reason(server):
    url, _ = server
    (answer,) = chatting(url).answer([json.dumps({"messages": chat("Hi")})], moments=False)
    assert "no turn of the assistant" in answer.error


def test_how_records_are_read_is_part_of_what_an_endpoint_is_filed_under(server):
    url, _ = server
    plain, told = resolved(url), resolved(url, tokenizer=str(BASE))
    assert plain.fingerprint == told.fingerprint
    read = told.read_as(TRAINED)
    assert read.fingerprint not in (plain.fingerprint, told.read_as(None).fingerprint)
    assert told.read_as(None).fingerprint == plain.fingerprint
    read.check(read.client(share=1))
