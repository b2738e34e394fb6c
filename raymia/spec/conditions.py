"""Conditions of the release gate: what must not be so.

`[TARGET:]ATTACK.METRIC > NUMBER`, with `by group` behind it for the figures of groups of records;
`[TARGET:]verdict >= leaks`; `[TARGET:]extraction > NUMBER`, the share of members that a checkpoint
writes on word for word; and `members < NUMBER` or `non_members < NUMBER`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Literal

from raymia.util.errors import InputError

METRICS = ("auc", "balanced_accuracy", "epsilon", "tpr@1%fpr")
FINDINGS = ("leaks", "leaks_strongly")
"""Verdicts that a condition may name, in the order of what they say."""
COUNTS = ("members", "non_members")
FORM = (
    "[TARGET:]ATTACK.METRIC > NUMBER, where METRIC is auc, balanced_accuracy, epsilon or tpr@1%fpr "
    "(any budget of metrics.fprs), as in spv@self_prompt.tpr@1%fpr > 0.05; or "
    "[TARGET:]verdict >= leaks; or [TARGET:]extraction > NUMBER; or members < NUMBER"
)
_PARTS = re.compile(
    r"(?P<subject>[^<>]+?)\s*(?P<operator>>=|>|<)\s*(?P<limit>[^<>=\s]+)(?P<group>\s+by\s+group)?"
)
_SUBJECT = re.compile(
    r"(?:(?P<targets>[^:]+):\s*)?(?P<attacks>.+?)"
    r"\.(?P<metric>auc|balanced_accuracy|epsilon|tpr@(?P<budget>[^%@]+)%\s*fpr)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Condition:
    """What makes the gate fail.

    Attributes
    ----------
    text : as it was written.
    targets, attacks : names, or patterns with ``*`` and ``?``.
    metric : what is compared; `verdict` with one of `FINDINGS`, by its place among them.
    max_fpr : budget of a true positive rate; None for another metric.
    or_equal : whether reaching the limit is enough.
    by_group : whether the figures are those of groups of records.
    """

    text: str
    targets: str
    attacks: str
    metric: Literal[
        "auc",
        "balanced_accuracy",
        "epsilon",
        "tpr",
        "verdict",
        "extraction",
        "members",
        "non_members",
    ]
    max_fpr: float | None
    or_equal: bool
    limit: float
    by_group: bool = False

    @property
    def is_of_attacks(self) -> bool:
        """Whether it compares figures of attacks."""
        return self.metric not in ("verdict", "extraction", *COUNTS)

    def is_met(self, figure: float) -> bool:
        """Whether a figure is so that the gate fails."""
        if self.metric in COUNTS:
            return figure < self.limit
        return figure >= self.limit if self.or_equal else figure > self.limit


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises
    ------
    ValueError
        Saying what was expected, and the nearest metric where one is misspelled.

    Examples
    --------
    >>> condition = parse_condition("any.tpr@1%fpr > 0.05")
    >>> condition.metric, condition.max_fpr, condition.limit
    ('tpr', 0.01, 0.05)
    """
    parts = _PARTS.fullmatch(text.strip())
    if parts is None:
        raise ValueError(f"{text!r} is no condition; expected {FORM}")
    if (other := _of_no_attack(text.strip(), parts)) is not None:
        return other
    if parts["operator"] == "<":
        raise ValueError(f"{text!r} is no condition; expected {FORM}")
    subject = _SUBJECT.fullmatch(parts["subject"])
    if subject is None:
        raise ValueError(f"{text!r}: {_wrong_metric(parts['subject'])}expected {FORM}")
    metric, max_fpr = subject["metric"].lower(), None
    if subject["budget"] is not None:
        metric, max_fpr = "tpr", _budget(text, subject["budget"])
    return Condition(
        text=text.strip(),
        targets=subject["targets"] or "*",
        attacks="*" if subject["attacks"] == "any" else subject["attacks"],
        metric=metric,  # type: ignore[arg-type]  # one of the alternatives of the pattern
        max_fpr=max_fpr,
        or_equal=parts["operator"] == ">=",
        limit=_limit(text, metric, parts["limit"]),
        by_group=parts["group"] is not None,
    )


def _of_no_attack(text: str, parts: re.Match[str]) -> Condition | None:
    """A condition on a verdict, on extraction or on a number of records."""
    targets, _, name = parts["subject"].rpartition(":")
    name, targets = name.strip(), targets.strip() or "*"
    if name == "verdict":
        if parts["limit"] not in FINDINGS or parts["operator"] == "<" or parts["group"]:
            raise ValueError(f"{text!r}: expected [TARGET:]verdict >= {' or '.join(FINDINGS)}")
        place = float(FINDINGS.index(parts["limit"]))
        return Condition(text, targets, "*", "verdict", None, parts["operator"] == ">=", place)
    if name == "extraction" and parts["operator"] != "<" and not parts["group"]:
        limit, or_equal = _limit(text, name, parts["limit"]), parts["operator"] == ">="
        return Condition(text, targets, "*", "extraction", None, or_equal, limit)
    if name in COUNTS:
        is_below = parts["operator"] == "<"
        if not is_below or not parts["limit"].isdigit() or targets != "*" or parts["group"]:
            raise ValueError(f"{text!r}: expected {name} < NUMBER, a whole number of records")
        return Condition(text, "*", "*", name, None, False, float(parts["limit"]))  # type: ignore[arg-type]  # one of COUNTS
    return None


def parse_conditions(texts: Iterable[str], where: str = "--fail-if") -> list[Condition]:
    """Read conditions; all that cannot be read are reported together.

    Raises
    ------
    InputError
    """
    conditions, problems = [], []
    for text in texts:
        try:
            conditions.append(parse_condition(text))
        except ValueError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise InputError(problems)
    return conditions


def check_conditions(
    conditions: Iterable[Condition],
    attacks: Mapping[str, Collection[str]],
    fprs: Sequence[float],
) -> None:
    """Refuse conditions on what an audit does not measure.

    Parameters
    ----------
    conditions : to check.
    attacks : labels of the attacks by target.
    fprs : budgets of false positives that are measured.

    Raises
    ------
    InputError
        With the nearest name for each that is unknown.
    """
    problems = [p for c in conditions if (p := _unknown(c, attacks, fprs)) is not None]
    if problems:
        raise InputError(problems)


def _unknown(
    condition: Condition, attacks: Mapping[str, Collection[str]], fprs: Sequence[float]
) -> str | None:
    targets = [name for name in attacks if fnmatchcase(name, condition.targets)]
    if not targets:
        return _no_such(condition, "target", condition.targets, attacks)
    labels = list(dict.fromkeys(label for name in targets for label in attacks[name]))
    if not any(fnmatchcase(label, condition.attacks) for label in labels):
        return _no_such(condition, "attack", condition.attacks, labels)
    budget = condition.max_fpr
    if budget is None or budget in fprs:
        return None
    near = sorted(fprs, key=lambda fpr: abs(math.log(fpr / budget)))[:1]
    hint = "".join(f" did you mean {_tpr(fpr)}?" for fpr in near)
    return (
        f"{condition.text!r}: no {_tpr(budget)};{hint} "
        f"metrics.fprs gives: {', '.join(map(_tpr, fprs)) or 'none'}"
    )


def _no_such(condition: Condition, what: str, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return f"{condition.text!r}: no {what} {name!r};{hint} there are: {', '.join(known)}"


def _tpr(max_fpr: float) -> str:
    return f"tpr@{100 * max_fpr:.10g}%fpr"


def _wrong_metric(subject: str) -> str:
    if subject.lower() in METRICS:
        return f"{subject} of which attack? "
    named = subject.partition("tpr")[1] or subject.rpartition(".")[2]
    known = METRICS if "." in subject else (*METRICS, "verdict", "extraction", *COUNTS)
    near = difflib.get_close_matches(named, known, n=1, cutoff=0.4)
    return f"no metric {named!r}; did you mean {near[0]!r}? " if near else ""


def _budget(text: str, percent: str) -> float:
    try:
        budget = float(Decimal(percent.strip()) / 100)  # 0.7 / 100 in binary is not 0.007
    except InvalidOperation:
        budget = math.nan
    if not 0 < budget < 1:
        raise ValueError(
            f"{text!r}: the budget of false positives should be between 0 % and 100 %, "
            f"as in tpr@1%fpr, but got {percent}%"
        )
    return budget


def _limit(text: str, metric: str, given: str) -> float:
    highest = math.inf if metric == "epsilon" else 1.0
    try:
        limit = float(given)
    except ValueError:
        limit = math.nan
    if math.isfinite(limit) and 0 <= limit <= highest:
        return limit
    wanted = "a number of at least 0" if metric == "epsilon" else "a number from 0 to 1"
    hint = " (5 % is 0.05)" if metric != "epsilon" else ""
    raise ValueError(f"{text!r}: the limit should be {wanted}{hint}, but got {given}")
