"""The XML of the gate is what build servers read."""

from xml.etree import ElementTree

import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores

from raymia.report.files import write_run
from raymia.results.gate import decide_again
from raymia.results.gate_result import GateOutcome
from raymia.results.junit import junit_xml

CONDITIONS = [
    "ez@self_prompt.auc > 0.5",
    "loss.auc > 0.99",
    "loss.tpr@0.1%fpr > 0.5",
    "zlib.auc > 0.5",
]


@pytest.fixture(scope="module")
def gated(result):
    return result.model_copy(update={"gate": decide_again(result, CONDITIONS)})


def test_every_condition_on_every_target_is_a_test_case(gated):
    root = ElementTree.fromstring(junit_xml(gated))
    (suite,) = root
    cases = list(suite)
    assert (root.tag, suite.tag, {c.tag for c in cases}) == (
        "testsuites",
        "testsuite",
        {"testcase"},
    )
    assert [(c.get("classname"), c.get("name")) for c in cases] == [
        (f"reviews.{target}", f"not {condition}")
        for condition in CONDITIONS
        for target in ("tuned", "base")
    ]
    kinds = [[(child.tag, child.get("type")) for child in case] for case in cases]
    assert kinds == (
        2 * [[("failure", "leak")]]
        + 2 * [[("system-out", None)]]
        + 2 * [[("failure", "undecided")]]
        + 2 * [[("error", "not evaluated")]]
    )


def test_an_undecided_condition_is_skipped_where_it_does_not_close_the_gate(gated):
    root = ElementTree.fromstring(junit_xml(gated.model_copy(update={"undecided": "pass"})))
    assert (root.get("failures"), root[0].get("skipped")) == ("2", "2")
    skipped = root.findall(".//skipped")
    assert len(skipped) == 2
    assert skipped[0].get("message").startswith("undecided: loss: TPR at 0.1 % FPR is not resolv")


def test_counts_and_attributes_are_those_of_junit(gated):
    root = ElementTree.fromstring(junit_xml(gated))
    for element in (root, root[0]):
        assert {k: element.get(k) for k in ("tests", "failures", "errors", "time")} == {
            "tests": "8", "failures": "4", "errors": "2", "time": "75.000",
        }  # fmt: skip
    assert set(root[0].attrib) == {
        "name", "tests", "failures", "errors", "skipped", "time", "timestamp",
    }  # fmt: skip
    assert root[0].get("timestamp") == "2026-11-21T22:00:00"
    for case in root[0]:
        assert set(case.attrib) == {"classname", "name", "time"}
        for problem in (*case.iter("failure"), *case.iter("error")):
            assert set(problem.attrib) == {"type", "message"}


def test_a_failure_has_the_figures(gated):
    failure = ElementTree.fromstring(junit_xml(gated)).find(".//failure")
    outcome = gated.gate[0]
    assert failure.get("message") == outcome.reason
    assert "ez@self_prompt: AUC 0.9" in outcome.reason
    assert outcome.condition in failure.text


def test_nothing_from_outside_breaks_the_xml(result):
    nasty = "</failure>\"'<&>\x00\x1b\ud800]]>\n"
    outcome = GateOutcome(condition="any.auc > 0", target="t", status="failed", reason="r")
    outcomes = [outcome.model_copy(update={key: nasty}) for key in ("target", "reason")]
    document = junit_xml(result.model_copy(update={"gate": outcomes, "name": nasty}))
    first, second = ElementTree.fromstring(document)[0]
    kept = nasty.translate({0: "�", 0x1B: "�", 0xD800: "�"})
    assert first.get("classname") == f"{kept}.{kept}"
    assert second[0].get("message") == kept


def test_the_file_lies_beside_the_report_and_goes_with_its_run(tmp_path, gated):
    scores = made_up_scores()
    write_run(str(tmp_path), gated, [scores], made_up_curves(scores))
    assert (tmp_path / "junit.xml").read_bytes() == junit_xml(gated)
    write_run(str(tmp_path), made_up_result(scores), [scores], made_up_curves(scores))
    assert not (tmp_path / "junit.xml").exists()
