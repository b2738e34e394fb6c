"""A server that has the target's weights writes the texts of a self-prompt reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_templates import CHATML
from command_line import raymia
from completions_server import MODEL, Manners, completions_server
from small_audit import write_small_audit
from small_inputs import audit
from small_self_prompt import PROMPTS, made, small_recipe
from tiny_models import BASE, checkpoint, save_tiny

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal.training import Training
from raymia.models.endpoints.writing import Server
from raymia.prepare.self_prompt import SelfPromptRecipe
from raymia.prepare.served import LOOKS
from raymia.util.errors import RaymiaError


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[str, Manners]]:
    with completions_server() as (url, manners):
        yield url, manners


@pytest.fixture
def manners(serving: tuple[str, Manners]) -> Manners:
    fresh, (_, used) = Manners(), serving
    for name, value in vars(fresh).items():
        setattr(used, name, value)
    return used


@pytest.fixture
def server(serving: tuple[str, Manners], manners: Manners) -> Server:
    del manners
    return Server(serving[0], MODEL, None, 30, 0)


def recipe(
    server: Server | None, training: Training | None = None, **settings: Any
) -> SelfPromptRecipe:
    return small_recipe(training, server, **{"max_tokens": 20, **settings})


def test_texts_go_on_from_the_prompts_and_a_batch_is_asked_at_once(
    server: Server, manners: Manners, base: Any, tmp_path: Path
) -> None:
    one = recipe(server)
    texts = made(one, tmp_path / "a")
    facts = EvidenceStore(str(tmp_path / "a")).prepared_facts(one.key) or {}
    assert len({*texts}) == 8
    for number, text in enumerate(texts):
        begun = base.tokenizer.decode(base.encode([PROMPTS[number % 5]])[0][:4])
        assert text.startswith(begun)
        assert len(text) > len(begun)
    assert manners.max_at_once == 4
    assert sum(manners.asked.values()) == 8 + 1 + LOOKS, "each text, the model, and looks at it"
    assert facts["mean_tokens_written"] <= 16
    assert made(recipe(server), tmp_path / "b") == texts


def test_the_likeliest_tokens_are_those_that_the_target_writes(
    server: Server, tmp_path: Path
) -> None:
    served = made(recipe(server, top_k=1), tmp_path / "served")
    assert served == made(recipe(None, top_k=1), tmp_path / "own")


def test_the_models_own_taste_is_not_drawn_by(
    server: Server, manners: Manners, tmp_path: Path
) -> None:
    """vLLM takes it from a checkpoint's `generation_config.json` where a request is silent."""
    texts = made(recipe(server), tmp_path / "plain")
    manners.taste = {"top_k": 1}
    assert made(recipe(server), tmp_path / "tasted") == texts
    sampling = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens"}
    assert {*manners.last} >= sampling
    assert (manners.last["top_p"], manners.last["repetition_penalty"]) == (1, 1)


def test_answers_to_prompts_are_written_too(server: Server, tmp_path: Path) -> None:
    training = Training("chat", "assistant", template=CHATML)
    texts = made(recipe(server, training, prompts="none", max_tokens=48), tmp_path)
    assert len(texts) >= 2
    assert all('"role":"assistant"' in text.replace(" ", "") for text in texts)


def test_texts_of_a_server_are_not_taken_for_the_targets_own(server: Server) -> None:
    one, own, other = recipe(server), recipe(None), recipe(replace(server, served_model="b"))
    assert len({each.material_key for each in (one, own, other)}) == 3
    assert "written_by" not in own.spec.model_dump(exclude_none=True)
    assert f"t, which {server.url} serves, writes 8 texts" in one.describe("t")
    assert one.shares == 1


def test_other_weights_are_refused(server: Server, tmp_path: Path) -> None:
    own = save_tiny(tmp_path / "other", "gpt2")
    other = replace(recipe(server), target=checkpoint(own).with_fingerprint())
    with pytest.raises(RaymiaError, match=r"written_by: tiny at http.* nats from the target's"):
        made(other, tmp_path / "store")


def test_a_server_that_goes_is_named_and_what_it_wrote_is_kept(
    server: Server, manners: Manners, base: Any, tmp_path: Path
) -> None:
    """The fourth prompt is in the first of two batches alone."""
    whole = made(recipe(server), tmp_path / "whole")
    manners.answers_left = LOOKS + 4
    with pytest.raises(RaymiaError, match="no answer in 1 tries"):
        made(recipe(server), tmp_path / "store")
    manners.answers_left = None
    manners.asked.clear()
    assert made(recipe(server), tmp_path / "store") == whole
    prompts = [str(base.encode([prompt])[0][:4]) for prompt in PROMPTS]
    assert {*prompts} - {*manners.asked} == {prompts[3]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"style": "strict"}, "unknown argument.* raymia needs a server of completions that is"),
        ({"wrong": "html"}, "expected JSON"),
        ({"wrong": "other_model"}, "the answer of another model, 'another'"),
        ({"wrong": "no_logprobs"}, "no tokens by their ids in"),
        ({"wrong": "nothing"}, "writes nothing after the first prompts, so it cannot be seen"),
        (
            {"most_written": 5},
            "a text that it cut after 5 of 16 tokens. The server has a limit of its own",
        ),
        ({"wrong": "words"}, "0 ids of 16 tokens"),
    ],
)
def test_another_kind_of_server_is_refused(
    server: Server, manners: Manners, tmp_path: Path, change: dict[str, str], why: str
) -> None:
    for name, value in change.items():
        setattr(manners, name, value)
    with pytest.raises(RaymiaError, match=why):
        made(recipe(server), tmp_path)


def test_a_model_that_is_not_served_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RaymiaError, match="serves no model 'nobody'; it serves: tiny"):
        made(recipe(replace(server, served_model="nobody")), tmp_path)


def test_all_references_that_a_server_writes_for_at_once_share_its_limit(tmp_path: Path) -> None:
    own = {"kind": "self_prompt", "prompts": "none", "max_tokens": 16}
    by = {"endpoint": "http://127.0.0.1:9/v1", "requests_per_minute": 60}
    references = {
        "base": {"model": str(BASE)},
        **{name: {**own, "temperature": t, "written_by": by} for name, t in (("a", 1), ("b", 2))},
    }
    spec = audit(
        tmp_path, BASE, None, references=references, neighbors=None,
        attacks=["ratio@a", "ratio@b"], resources={"reference": {"actors": 1, "max_actors": 4}},
    )  # fmt: skip
    inputs = resolve_inputs(spec)
    for name in ("a", "b"):
        server = inputs.modality.recipe(inputs, name, "one").server
        assert isinstance(server, Server)
        assert server.requests_per_minute == 30


def test_an_audit_file_names_the_server_and_the_target_by_its_name(
    server: Server, manners: Manners, tmp_path: Path
) -> None:
    file = write_small_audit(
        tmp_path, None, targets=[{"name": MODEL, "model": str(BASE)}], self_prompt=True,
        neighbors=None, attacks=["loss", "ratio@self_prompt"],
    )  # fmt: skip
    content = yaml.safe_load(file.read_text())
    content["references"]["self_prompt"]["written_by"] = {"endpoint": server.url + "/"}
    file.write_text(yaml.safe_dump(content))
    assert f"tiny, which {server.url} serves, writes 16 texts" in raymia("plan", file).stdout
    assert sum(manners.asked.values()) == 0, "a plan does not need the server"
    assert raymia("audit", file).returncode == 0
    assert sum(manners.asked.values()) == 16 + 1 + LOOKS
    content["references"]["self_prompt"]["written_by"]["served_model"] = MODEL
    content["targets"] += [{"name": "other", "model": str(BASE), "max_tokens": 60}]
    file.write_text(yaml.safe_dump(content))
    assert "'tiny' is one model, and each of 2 targets writes" in raymia("plan", file).stderr
    content["references"]["self_prompt"]["written_by"] = {"endpoint": "http://me:secret@host/v1"}
    file.write_text(yaml.safe_dump(content))
    refused = raymia("plan", file)
    assert "references.self_prompt.written_by: endpoint should be a bare URL" in refused.stderr
    assert "secret" not in refused.stderr
