"""What the release gate decided, in the XML that build servers show as tests."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from raymia.results.gate_result import GateOutcome
from raymia.results.result import RunResult
from raymia.spec.conditions import COUNTS, parse_condition
from raymia.util.credentials import hidden

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


PROBLEMS = {
    "failed": ("failure", "leak"),
    "undecided": ("failure", "undecided"),
    "not_evaluated": ("error", "not evaluated"),
}
"""Element and type of what closes the gate."""


def junit_xml(result: RunResult) -> bytes:
    """Write the outcomes of a gate as JUnit XML.

    Each condition on each target is a test case. One that is met is a ``failure`` of the type
    ``leak``, or ``too few records`` where it is on their number. One that is undecided is a
    ``failure`` of the type ``undecided``, or ``skipped`` where undecided conditions do not close
    the gate. One that could not be evaluated is an ``error``. So a build fails where the gate is
    closed, and says by which.
    """
    skips = result.undecided == "pass"
    undecided = sum(outcome.status == "undecided" for outcome in result.gate)
    failed = sum(outcome.status == "failed" for outcome in result.gate)
    failed += 0 if skips else undecided
    errors = sum(outcome.status == "not_evaluated" for outcome in result.gate)
    counts = {
        "tests": str(len(result.gate)),
        "failures": str(failed),
        "errors": str(errors),
        "time": f"{result.seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "raymia", **counts})
    when = result.created.removesuffix("Z").removesuffix("+00:00")  # the schema has no time zone
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "name": _text(result.name),
            **counts,
            "skipped": str(undecided * skips),
            "timestamp": _text(when),
        },
    )
    for outcome in result.gate:
        _add_case(suite, outcome, result.name, skips)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _add_case(suite: ElementTree.Element, outcome: GateOutcome, name: str, skips: bool) -> None:
    names = {"classname": f"{name}.{outcome.target}", "name": f"not {outcome.condition}"}
    case = ElementTree.SubElement(
        suite, "testcase", {key: _text(value) for key, value in names.items()} | {"time": "0.000"}
    )
    if outcome.status == "passed":
        ElementTree.SubElement(case, "system-out").text = _text(outcome.reason)
        return
    if outcome.status == "undecided" and skips:
        ElementTree.SubElement(case, "skipped", {"message": _text(f"undecided: {outcome.reason}")})
        return
    tag, kind = PROBLEMS[outcome.status]
    if outcome.status == "failed" and parse_condition(outcome.condition).metric in COUNTS:
        kind = "too few records"
    problem = ElementTree.SubElement(case, tag, {"type": kind, "message": _text(outcome.reason)})
    problem.text = _text(f"{outcome.target}: {outcome.condition}\n{outcome.reason}")


def _text(text: str) -> str:
    return _NOT_IN_XML.sub("�", hidden(text))
