"""Where groups were split, what is decided of records is decided on groups, or not at all."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml
from made_up_verdicts import as_groups, audit

from raymia.metrics.summary import LimitedEstimate
from raymia.results.disguise import Disguise
from raymia.results.privacy import claims_of
from raymia.results.ranking import rank
from raymia.results.redaction import redact
from raymia.results.telling import not_ruled_out
from raymia.results.verdict import reach_verdict
from raymia.scoring.judge import _group_notes
from raymia.spec import TargetSpec

LEAK = audit({"tuned/loss": 3.0}, n=300)


def test_a_claim_of_single_records_is_not_tried_on_groups():
    claim = {"epsilon": 0.1, "delta": 1e-5}
    spec = SimpleNamespace(targets=[TargetSpec(name="tuned", model="m", claim=claim)])
    (of_records,) = claims_of(spec, LEAK)
    assert of_records.status == "failed"
    split = LEAK.model_copy(
        update={"split_by_group": True, "group_metrics": as_groups(LEAK.metrics)}
    )
    (of_groups,) = claims_of(spec, split)
    assert of_groups.status == "not_evaluated"
    assert "it is of single records" in of_groups.reason


def test_a_leak_is_strong_by_the_groups_where_groups_were_split():
    assert reach_verdict(LEAK).finding == "leaks_strongly"
    weak = audit({"tuned/loss": 1.2}, n=60)
    assert reach_verdict(weak).finding == "leaks"
    split = LEAK.model_copy(
        update={"split_by_group": True, "group_metrics": as_groups(weak.metrics)}
    )
    assert reach_verdict(split).finding == "leaks"


def test_names_of_groups_that_mix_members_and_others_are_not_in_a_redacted_run():
    notes = _group_notes(["Maria Schmidt", "patient-0031"], 0)
    run = LEAK.model_copy(update={"problems": notes, "audit_yaml": "{}"})
    assert "Maria Schmidt" in run.model_dump_json()
    told = redact(
        run, Disguise.of_audit(b"secret", yaml.safe_load(run.audit_yaml))
    ).model_dump_json()
    assert "Maria Schmidt" not in told
    assert "2 groups mix members and others" in json.loads(told)["problems"][0]


@pytest.mark.parametrize(("high", "said"), [(0.5025, "0.51"), (0.5549, "0.56"), (0.55, "0.55")])
def test_what_is_not_ruled_out_is_rounded_up(high, said):
    result = audit({"tuned/loss": 0.0}, n=300)
    entry = result.metrics[0].model_copy(
        update={"auc": LimitedEstimate(value=0.5, low=0.5, high=high)}
    )
    result = result.model_copy(update={"metrics": [entry]})
    assert f"an AUC of up to {said} (" in not_ruled_out(result, rank(result.metrics))
