"""What is wrong with what a target wrote is said, and what is right is not."""

import pytest

from raymia.results.references import reference_lines
from raymia.results.result import ReferenceCard

GOOD = {
    "written_repeats_itself": 0.02, "written_twice": 0.0, "written_almost_twice": 0.0,
    "answers_begin_alike": 0.1,
    "ngrams_shared_with_members": 0.001, "texts": 500, "perplexity_on_domain_text": 31.2,
}  # fmt: skip


def lines(**facts):
    card = ReferenceCard(
        target="tuned", name="own", kind="self_prompt", model="m", facts={**GOOD, **facts}
    )
    return list(reference_lines([card]))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"written_repeats_itself": 0.5}, "tuned repeats itself in 50 % of what it wrote for own"),
        ({"written_almost_twice": 0.4},
         "tuned wrote 40 % of the texts for own more than once, or nearly"),
        ({"answers_begin_alike": 0.9}, "tuned begins 90 % of its answers for own with the same"),
        ({"ngrams_shared_with_members": 0.2}, "tuned recites members: 20 % of the n-grams"),
    ],
)  # fmt: skip
def test_a_target_that_refuses_repeats_itself_or_recites_is_named(facts, said):
    (line,) = lines(**facts)
    assert line.startswith(said)


def test_nothing_is_said_of_what_is_as_it_should_be_or_was_not_measured():
    assert lines() == []
    assert lines(ngrams_shared_with_members="nan") == []
