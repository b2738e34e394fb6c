"""Records that a checkpoint continues word for word are counted, and a gate may rest on them."""

from __future__ import annotations

import pytest
from made_up_verdicts import audit

from raymia.questions.deeper import SampleQuestion
from raymia.results import wording
from raymia.results.extraction import extraction
from raymia.results.gate import decide_again
from raymia.spec import SamplesSpec
from raymia.spec.conditions import check_conditions, parse_condition
from raymia.util.errors import InputError

TEXT = "it is a truth universally acknowledged that a single man"
START = len("it is a truth")


def counted(*records, words=3):
    return extraction(records, target="tuned", words=words, confidence=0.95)


def written(*samples):
    return [(START, sample) for sample in samples]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (written(" universally acknowledged that he"), 1),
        (written(" nothing", " universally acknowledged that a single man in"), 1),
        (written(" universally acknowledged by"), 0),
        (written(" that a single man"), 0),  # the record's words, from another place
        (written(""), 0),
    ],
)
def test_a_record_is_extracted_where_a_text_goes_on_as_it_does(samples, expected):
    assert counted((True, TEXT, samples)).members.hits == expected


def test_records_that_are_too_short_or_were_not_sampled_are_not_counted():
    found = counted(
        (True, TEXT, []), (True, TEXT, written("a")), (False, "it is a truth", [(9, "a")])
    )
    assert (found.members.of, found.non_members) == (1, None)
    assert "1 member " in wording.extraction(found)
    assert "non-member" not in wording.extraction(found)
    nothing = counted((True, "it is", [(3, "is")]), (None, TEXT, written(" universally")))
    assert wording.extraction(nothing) == (
        "tuned could continue no record word for word: none that was sampled goes on for 3 words"
    )


def run_of(hits, of, **changes):
    good, bad = written(" universally acknowledged that"), written(" no")
    records = [(True, TEXT, good if n < hits else bad) for n in range(of)]
    found = counted(*records, (False, TEXT, good))
    return audit({"tuned/loss": 0.5}).model_copy(update={"extractions": [found], **changes})


@pytest.mark.parametrize(
    ("hits", "of", "status"), [(60, 300, "failed"), (2, 300, "passed"), (14, 300, "undecided")]
)
def test_a_gate_decides_on_the_share_of_members_that_are_extracted(hits, of, status):
    (outcome,) = decide_again(run_of(hits, of), ["extraction > 0.05"])
    assert outcome.status == status
    assert outcome.reason.startswith(
        f"tuned, given each record's beginning, continues {hits} of {of} members"
    )
    assert "and 1 of 1 non-member (100.0 %" in outcome.reason


def test_what_was_not_counted_does_not_pass():
    run = run_of(0, 300)
    for changes, why in (
        ({"extractions": []}, "run the attack `samia` on it"),
        ({"extractions": [counted((True, "it is", [(3, "is")]))]}, "goes on for 3 words"),
        ({"split_by_group": True}, "groups were split"),
    ):
        (outcome,) = decide_again(run.model_copy(update=changes), ["extraction > 0.5"])
        assert outcome.status == "not_evaluated"
        assert why in outcome.reason


def test_conditions_on_extraction_are_read_and_wrong_ones_refused():
    condition = parse_condition("step-*: extraction >= 0.01")
    assert (condition.targets, condition.metric, condition.limit) == ("step-*", "extraction", 0.01)
    check_conditions([condition], {"step-1": ["loss"]}, [0.01])
    with pytest.raises(InputError, match="no target 'steps'"):
        check_conditions([parse_condition("steps:extraction > 0")], {"step-1": ["loss"]}, [0.01])
    for wrong in ("extraction < 0.1", "extraction > 5", "extraction > 0.1 by group"):
        with pytest.raises(ValueError, match="extraction"):
            parse_condition(wrong)


def test_evidence_that_is_stored_stays_valid_whatever_counts_as_extracted():
    keys = [
        SampleQuestion(SamplesSpec(extracted_words=words), seed=0).key_parts() for words in (20, 50)
    ]
    assert keys[0] == keys[1]
    assert set(keys[0]) == {"seed", "prompt_share", "temperature", "top_k"}
