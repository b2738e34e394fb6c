"""What an endpoint answers is read, or refused as what it is, whatever its kinds of values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.models.endpoints.client import EndpointClient
from raymia.models.endpoints.resolver import resolve_endpoint
from raymia.spec import PoolSpec
from raymia.spec.models import EndpointTarget
from raymia.util.errors import InputError, RaymiaError

URL, WHERE = "http://server.example/v1", "targets[0].endpoint"
MODELS = {"data": [{"id": "m", "max_model_len": 100}]}
GOOD = {
    "tokens": ["token_id:1", "token_id:2", "token_id:3"],
    "token_logprobs": [None, -1.0, -2.0],
    "top_logprobs": [None, {"token_id:2": -1.0}, {"token_id:3": -1.0}],
}


def completion(log_probs=None, **more):
    said = {**GOOD, **(log_probs or {})}
    return {"model": "m", "choices": [{"logprobs": said}], "usage": {"prompt_tokens": 3}, **more}


def answered(models, answer, later=None):
    """What is said of one text by an endpoint that answers so, later otherwise than at first."""
    said = answer
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(EndpointClient, "get", lambda *_: models)
        patched.setattr(EndpointClient, "post", lambda *_: said)
        target = EndpointTarget.model_validate({"name": "t", "endpoint": URL, "served_model": "m"})
        endpoint = resolve_endpoint(target, WHERE)
        assert endpoint.describe()
        said = answer if later is None else later
        (one,) = endpoint.loader(PoolSpec()).load().answer(["a text"], moments=False)
    return one


def test_a_good_answer_is_read():
    one = answered(MODELS, completion())
    assert one.log_prob.tolist() == [-1.0, -2.0]
    assert one.token_ids.tolist() == [2, 3]
    impossible = completion({"token_logprobs": [None, -math.inf, -9999.0]})
    assert answered(MODELS, impossible).log_prob.tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({"data": [{"id": 7}]}, "/models: id should be a text, but is 7"),
        ({"data": [{"max_model_len": 8}]}, "/models: id should be a text, but is missing"),
        ({"data": [["m"]]}, "expected a list of models under `data`"),
        ({"data": "m"}, "expected a list of models under `data`"),
        ([], "expected a list of models under `data`"),
        ({"data": [{"id": "m", "max_model_len": "x"}]}, "max_model_len should be a whole number"),
        ({"data": [{"id": "m", "max_model_len": -5}]}, "max_model_len should be a whole number"),
        ({"data": [{"id": "m", "root": {"a": [1]}}]}, "root should be a text"),
    ],
)
def test_a_list_of_models_that_is_none_is_refused(models, says):
    with pytest.raises(InputError) as caught:
        answered(models, completion())
    assert str(caught.value).startswith(f"{WHERE}: {URL}")
    assert says in str(caught.value)


NOT_ONE_EACH = "no log-probability for each token of the prompt"
WRONG = [
    ({"tokens": [1, 2, 3]}, NOT_ONE_EACH),
    ({"tokens": "abc"}, NOT_ONE_EACH),
    ({"token_logprobs": [None, "a", "b"]}, NOT_ONE_EACH),
    ({"token_logprobs": [None, {}, {}]}, NOT_ONE_EACH),
    ({"token_logprobs": [None, math.nan, -1.0]}, NOT_ONE_EACH),
    ({"token_logprobs": [None, 5.0, -1.0]}, "a log-probability above 0 (5)"),
    ({"top_logprobs": [None, [1], [2]]}, NOT_ONE_EACH),
    ({"top_logprobs": [None, {"a": "x"}, {"b": "y"}]}, NOT_ONE_EACH),
]


@pytest.mark.parametrize(("said", "says"), WRONG)
def test_an_answer_of_other_kinds_is_refused_at_once_and_later(said, says):
    with pytest.raises(InputError) as caught:
        answered(MODELS, completion(said))
    assert str(caught.value).startswith(f"{WHERE}: m at {URL}: expected the prompt with")
    assert says in str(caught.value)
    with pytest.raises(RaymiaError) as later:
        answered(MODELS, completion(), completion(said))
    assert says in str(later.value)


@pytest.mark.parametrize("count", [-1, "3", True, 2.0, [3]])
def test_a_count_of_tokens_that_is_none_is_refused(count):
    with pytest.raises(InputError, match=f"(?s)^.*{NOT_ONE_EACH}"):
        answered(MODELS, completion(usage={"prompt_tokens": count}))


@pytest.mark.parametrize("token", ["token_id:99999999999", "token_id:x", "token_id:"])
def test_a_token_id_that_is_none_is_refused(token):
    names = {"tokens": ["token_id:1", token, "token_id:3"]}
    with pytest.raises(RaymiaError, match="token ids at first, and now other names of tokens"):
        answered(MODELS, completion(), completion(names))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
THREE = st.lists(VALUES | st.floats(-9, 1), min_size=3, max_size=3)
ANSWERS = VALUES | st.builds(
    lambda said, more: completion(said, **more),
    st.dictionaries(st.sampled_from(sorted(GOOD)), THREE | VALUES),
    st.dictionaries(st.sampled_from(("usage", "choices", "model")), VALUES, max_size=1),
)
KEYS = st.sampled_from(("id", "root", "parent", "owned_by", "max_model_len"))
ENTRIES = st.dictionaries(KEYS, VALUES).map(lambda entry: {"id": "m", **entry})


@given(VALUES | st.fixed_dictionaries({"data": st.lists(ENTRIES, max_size=2)}), ANSWERS)
def test_any_answer_is_read_or_refused(models, answer):
    for listed, first, later in ((models, completion(), None), (MODELS, completion(), answer)):
        try:
            answered(listed, first, later)
        except RaymiaError as error:
            assert URL in str(error)  # noqa: PT017
