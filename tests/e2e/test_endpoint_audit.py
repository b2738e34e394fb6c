"""An audit of a model behind an endpoint: what it can run, what it says it cannot, dying midway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import raymia
from completions_server import MODEL, SECRET, completions_server
from small_audit import BASE, Models, console, passages, raw_rows, scores_by_row, write_small_audit

from raymia.modalities.resolve import resolve_inputs
from raymia.models.endpoints.client import KEY_VARIABLE
from raymia.results.folder import load_result
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec, parse_spec
from raymia.util.errors import InputError

NO_MOMENTS = "an endpoint gives no moments of log p over the vocabulary"


def endpoint(url: str, **settings: Any) -> dict[str, Any]:
    return {"name": "api", "endpoint": url, "served_model": MODEL, "retries": 1, **settings}


def test_an_endpoint_that_dies_midway_and_comes_back(tmp_path: Path, models: Models) -> None:
    texts = passages()
    with completions_server(models.target, key=SECRET) as (url, manners):
        file = write_small_audit(
            tmp_path, models, members=texts[:6], non_members=texts[24:30], neighbors=None,
            targets=[{"name": "local", "model": str(models.target)}, endpoint(url)],
            resources={"block_records": 4},
        )  # fmt: skip
        manners.answers_left = 1 + 7  # one to see whether it answers, then a block of four and more
        died = raymia("audit", file, columns=200, **{KEY_VARIABLE: SECRET})
        assert died.returncode == 3, died.stderr  # the other target is there
        half = load_result(str(tmp_path / "run"))
        (failed,) = half.failed
        assert failed.name == "api"
        assert f"{url}/completions: no answer in 2 tries" in failed.reason
        assert {m.target for m in half.metrics} == {"local"}
        assert f"{url}/completions: no answer in 2 tries" in " ".join(died.stdout.split())
        assert "Traceback" not in died.stderr + died.stdout
        stored = len(raw_rows(tmp_path / "store", "text.tokens"))
        assert stored >= 24 + 4  # target and reference here, and the first block of the endpoint

        manners.answers_left, manners.key = None, None
        manners.asked.clear()
        result = run_audit(load_spec(file), console())
        assert sum(manners.asked[text] for text in texts) == 36 - stored

    assert result.complete
    assert result.problems == [
        f"target api: left out fast_detect, min_k_plus_plus, surp: {NO_MOMENTS}"
    ]
    scores = scores_by_row(tmp_path / "run")
    both = {(a, r) for t, a, r in scores if t == "api"}
    assert {a for a, _ in both} >= {"loss", "zlib", "min_k", "ez@base", "wbc@base", "ratio@base"}
    assert {a for t, a, _ in scores if t == "local"} - {a for a, _ in both} == {
        "fast_detect", "min_k_plus_plus", "surp"
    }  # fmt: skip
    for attack, record in both:
        assert scores["api", attack, record] == pytest.approx(
            scores["local", attack, record], abs=1e-5
        )
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(written) > 5
    assert not any(SECRET.encode() in path.read_bytes() for path in written)
    assert SECRET not in died.stdout + died.stderr


def test_attacks_that_an_endpoint_has_no_answer_for_are_refused_before_anything_is_asked(
    tmp_path: Path, models: Models
) -> None:
    with completions_server(style="strict") as (url, manners):
        file = write_small_audit(
            tmp_path, models, neighbors=None, targets=[endpoint(url)], self_prompt=True,
            attacks=["loss", "min_k_plus_plus", "wbc@base"],
        )  # fmt: skip
        with pytest.raises(InputError) as caught:
            resolve_inputs(load_spec(file))
        assert sum(manners.asked[text] for text in passages()) == 0
    first, second, third = caught.value.problems
    assert first.startswith("references.self_prompt: a self-prompt reference is made from texts")
    assert second == f"attacks: 'min_k_plus_plus' cannot be run on 'api': {NO_MOMENTS}"
    assert third.startswith(
        "attacks: 'wbc@base' cannot be run on 'api': this server gives no token"
    )


def test_the_plan_says_what_is_left_out(tmp_path: Path, models: Models) -> None:
    with completions_server(style="strict") as (url, manners):
        file = write_small_audit(tmp_path, models, neighbors=None, targets=[endpoint(url)])
        done = raymia("plan", file, columns=200)
        assert sum(manners.asked[text] for text in passages()) == 0
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.split())
    assert f"target api: left out fast_detect, min_k_plus_plus, surp: {NO_MOMENTS}" in printed
    assert "target api: left out ez@base, wbc@base: this server gives no token ids" in printed
    assert f"{MODEL} at {url}" in printed


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"endpoint": "ftp://host/v1"}, "endpoint should be a URL such as https://host/v1"),
        ({"endpoint": "https://user:pass@host/v1"}, "RAYMIA_ENDPOINT_KEY"),
        ({"served_model": None}, "targets[0].served_model"),
        ({"api_key": SECRET}, "targets[0].api_key: unknown key"),
        ({"retry": 3}, "targets[0].retry: unknown key; did you mean 'retries'?"),
        ({"quantization": "nf4"}, "targets[0].quantization: unknown key"),
    ],
)
def test_a_wrong_section_is_refused_with_its_key(target: dict[str, Any], said: str) -> None:
    content = {
        "records": {"members": "m.jsonl"},
        "targets": [{**endpoint("https://host/v1/"), **target}],
        "references": {"base": {"model": str(BASE)}},
    }
    with pytest.raises(InputError) as caught:
        parse_spec(content, "audit.yaml")
    assert said in str(caught.value)
    assert "user:pass" not in str(caught.value)
    assert SECRET not in str(caught.value)
