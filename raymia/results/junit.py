"""What the release gate decided, in the XML that build servers show as tests."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from raymia.results.gate_result import GateOutcome
from raymia.results.result import RunResult

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


def junit_xml(result: RunResult) -> bytes:
    """Write the outcomes of a gate as JUnit XML.

    Each condition on each target is a test case. One that is met is a ``failure``; one that could
    not be evaluated is an ``error``, so that a build fails by either and says by which.
    """
    failed = sum(outcome.status == "failed" for outcome in result.gate)
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
        {"name": _text(result.name), **counts, "skipped": "0", "timestamp": _text(when)},
    )
    for outcome in result.gate:
        _add_case(suite, outcome, result.name)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _add_case(suite: ElementTree.Element, outcome: GateOutcome, name: str) -> None:
    names = {"classname": f"{name}.{outcome.target}", "name": f"not {outcome.condition}"}
    case = ElementTree.SubElement(
        suite, "testcase", {key: _text(value) for key, value in names.items()} | {"time": "0.000"}
    )
    if outcome.status == "passed":
        ElementTree.SubElement(case, "system-out").text = _text(outcome.reason)
        return
    is_met = outcome.status == "failed"
    problem = ElementTree.SubElement(
        case,
        "failure" if is_met else "error",
        {"type": "leak" if is_met else "not evaluated", "message": _text(outcome.reason)},
    )
    problem.text = _text(f"{outcome.target}: {outcome.condition}\n{outcome.reason}")


def _text(text: str) -> str:
    return _NOT_IN_XML.sub("�", text)
