"""How numbers are put into words, the same in the terminal and in the report."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from raymia.metrics.dataset import DatasetInference
from raymia.metrics.summary import AttackMetrics, Estimate, Metrics, TprAtFpr
from raymia.records.base import count_reasons
from raymia.results.example import Example
from raymia.results.extraction import Extraction
from raymia.results.image_result import PerturbationChoice
from raymia.results.result import TRUNCATED, NeighborQuality, RecordCounts, RunResult
from raymia.shift.result import CopiesWithin, ShiftCheck

READ_FIRST = {"self_prompt": "ez", "self_generated": "loss"}
"""The statistic that found the most members at low false-positive rates in raymia's own small
studies, by the kind of reference it was taken against."""

BELOW_CHANCE = "AUC below chance: members score lower than non-members"
NO_CHANCE = 0.6
"""Lower limit of a blind guess's AUC above which no random split of an audit's size is to blame."""
NEGATIVES = ("non-member", "non-members")
SMALLEST_CHANCE = 1e-300
"""Below it a p-value may be a number that a computer no longer tells from 0."""
MOST_REASONS = 5
"""Reasons that a terminal shows."""
MOST_DIGITS = 4
"""Decimals of a percentage, at most."""


def percent(rate: float, digits: int = 1) -> str:
    """Write a rate as a percentage: 0.943 is 94.3 %.

    It has as many decimals as are asked for, and more where none or all would be said of what is
    some: 0.0003 is 0.03 %, and 0.9999 is 99.99 %.
    """
    while digits < MOST_DIGITS and 0 < rate < 1 and round(100 * rate, digits) in (0, 100):
        digits += 1
    return f"{100 * rate:.{digits}f} %"


def budget(max_fpr: float) -> str:
    """Write a budget as a percentage with no more decimals than it has: 0.001 is 0.1 %."""
    return f"{100 * max_fpr:.10g} %"


def count(number: int) -> str:
    """Write a whole number with thousands separated by commas."""
    return f"{number:,}"


def number_of(number: int, what: str) -> str:
    """Write how many there are of something: "1 member", "2,000 members"."""
    return f"{count(number)} {what}" + ("" if number == 1 else "s")


def joined(parts: Sequence[str]) -> str:
    """Join parts of a sentence: "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def audited(counts: RecordCounts) -> str:
    """Say how many records of each class there are."""
    parts = [
        number_of(counts.members, "member"),
        number_of(counts.non_members, "non-member"),
    ]
    if counts.candidates:
        parts.append(number_of(counts.candidates, "candidate"))
    return joined(parts)


def p_value(value: float) -> str:
    """Write a p-value: 0.031, or < 0.001."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def chance(value: float) -> str:
    """Write a p-value however small it is: 0.031, 2.1e-07, or < 1e-300."""
    if value < SMALLEST_CHANCE:
        return f"< {SMALLEST_CHANCE:g}"
    return f"{value:.1e}" if value < 0.001 else f"{value:.3g}"


def _p_is(written: str) -> str:
    return f"p {written}" if written.startswith("<") else f"p = {written}"


def epsilon_method(name: str) -> str:
    """What a lower bound of epsilon rests on, for a person to read."""
    return {
        "held_out": "rates on held-out records",
        "one_run": "one run with coins",
        "one_run_gaussian": "one run with coins, Gaussian mechanism",
    }[name]


def rate_interval(estimate: Estimate) -> str:
    """Write an interval of rates in percent, without the sign: [92.7, 95.8]."""
    return f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def unit_interval(estimate: Estimate, digits: int = 3) -> str:
    """Write an interval of numbers between 0 and 1: [0.994, 0.998]."""
    return f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def rests_on_few(max_fpr: float, allowed: int, negatives: tuple[str, str] = NEGATIVES) -> str:
    """Warn of a budget that allows only a few false positives.

    Parameters
    ----------
    negatives : what one of those is called that may be accused wrongly, and several.
    """
    few = f"{allowed} {negatives[allowed != 1]}"
    return f"TPR at {budget(max_fpr)} FPR rests on {few}: it is rough, as its interval says."


def not_resolvable(tpr: TprAtFpr, negatives: tuple[str, str] = NEGATIVES) -> str:
    """Say what it would take to resolve a budget."""
    return f"not resolvable (needs >= {tpr.needed_non_members:,} {negatives[1]})"


def first_to_read(statistics: Collection[str], references: Mapping[str, str]) -> str | None:
    """The attack to read first where nothing can be measured; None where the audit lacks it.

    Parameters
    ----------
    statistics : names of the attacks that were run.
    references : the kind of each reference, by name.
    """
    pairs = ((READ_FIRST.get(kind), name) for name, kind in references.items())
    return next((f"{stat}@{name}" for stat, name in pairs if stat in statistics), None)


def read_first(result: RunResult) -> str:
    """Say whose scores to read where nothing can be measured; what it rests on is in
    docs/references.md."""
    ran = {card.name for card in result.attacks}
    kinds = {card.name: card.kind for card in result.references}
    pair = first_to_read(ran, kinds)
    if pair is None or has_no_scores(result):
        return ""
    return (
        f" Read those of {pair} first: in raymia's small studies, where membership was known, "
        "this pair found the most members at low false-positive rates."
    )


def has_no_scores(result: RunResult) -> bool:
    """Whether there are members or non-members, and not one of them has a score."""
    return bool(result.metrics) and all(
        entry.n_unscored > 0 and entry.n_members + entry.n_non_members == 0
        for entry in result.metrics
    )


def exposure(example: Example) -> str:
    """Say where a record stands among its class: "Most exposed of 300 members"."""
    kind = {True: "member", False: "non-member", None: "candidate"}[example.is_member]
    if example.of == 1:
        return f"The only {kind}"
    everyone = f"{count(example.of)} {kind}s"
    if example.rank == 1:
        return f"Most exposed of {everyone}"
    if example.rank == example.of:
        return f"Least exposed of {everyone}"
    return f"Number {count(example.rank)} of {everyone} by exposure"


def outscores(example: Example) -> str:
    """Say how many non-members a record scores above; empty where there are none."""
    if example.outscored is None:
        return ""
    others = "other non-members" if example.is_member is False else "non-members"
    if example.outscored in (0, 1):
        return f"above {'all' if example.outscored else 'none'} of the {others}"
    return f"above {percent(example.outscored)} of the {others}"


def chosen_on(choice: PerturbationChoice) -> str:
    """Say how a perturbation of images was chosen, and what was paid for it."""
    if choice.fitted_on == "nothing":
        return (
            f"Attacks used {choice.perturbation}, the first of those tried: the records of known "
            "membership that a choice could rest on were too few, and there was no shadow."
        )
    tried = f"the best of {len(choice.aucs)}" if len(choice.aucs) > 1 else "the only one tried"
    where = (
        "on the shadows, so that no record was spent"
        if choice.fitted_on == "shadows"
        else f"on {count(choice.spent)} of the records, which these attacks therefore do not score"
    )
    return f"Attacks used {choice.perturbation}, {tried} by PFAMI's mean ratio {where}."


def dataset_inference(test: DatasetInference) -> str:
    """Say what a test of a whole set of records found."""
    compared = (
        f"{number_of(test.n_suspects, test.suspects.removesuffix('s'))} against "
        f"{number_of(test.n_non_members, 'non-member')}"
        + (", a group of records counted once" if test.has_groups else "")
        + ("" if test.fitted_on is None else f"; fitted on {count(test.fitted_on)} of the others")
    )
    if not (test.n_suspects or test.n_non_members):
        return f"{test.target}: dataset inference compared nothing, because no record has a score."
    if test.p_value is None:
        return f"{test.target}: dataset inference needs more records ({compared})."
    return (
        f"{test.target}: dataset inference on the {test.suspects} as a whole: "
        f"{_p_is(chance(test.p_value))}, effect {test.effect:.2f} standard deviations ({compared})."
    )


def extraction(found: Extraction) -> str:
    """Say how many records a checkpoint continues word for word."""
    parts = [
        f"{count(share.hits)} of {number_of(share.of, kind)} ({percent(share.value)} "
        f"{rate_interval(share)})"
        for kind, share in (("member", found.members), ("non-member", found.non_members))
        if share is not None
    ]
    if not parts:
        return (
            f"{found.target} could continue no record word for word: none that was sampled goes on "
            f"for {number_of(found.words, 'word')}"
        )
    return (
        f"{found.target}, given each record's beginning, continues {joined(parts)} word for word, "
        f"for {number_of(found.words, 'word')}"
    )


def shift_line(check: ShiftCheck) -> str:
    """Say whether members and non-members come from one distribution."""
    guesser = check.strongest
    if guesser is None:
        return f"shift between members and non-members was not checked: {check.reason}"
    area = f"AUC {guesser.auc.value:.3f} {unit_interval(guesser.auc)}"
    if check.level == "stop":
        return (
            f"shift: members can be told from non-members without the model, by {guesser.title} "
            f"({area}); attacks that are not far stronger do not measure leakage"
        )
    if check.level == "note":
        return shift_note(check).rstrip(".")
    blind = number_of(len(check.guesses), "guesser")
    best = f"the best, by {guesser.title}: {area}"
    return f"no shift was found by {blind} that saw no target; {best}"


def shift_note(check: ShiftCheck) -> str:
    """Say of an alarm that stops nothing what it was, and why it does not."""
    guesser = check.strongest
    if guesser is None:
        return ""
    why = (
        "it is small, or no more than an unlucky random split would show now and then, and too "
        "little to explain a strong attack"
    )
    if check.split == "randomized":
        why = "the audit file states that the split was random; if so, this is chance"
        if guesser.auc.low > NO_CHANCE:
            why = (
                "the audit file states that the split was random, which hardly ever gives such a "
                "guess: see how the two were chosen before you trust a number here"
            )
    return (
        f"Note: members can be told from non-members without the model, by {guesser.title} (AUC "
        f"{guesser.auc.value:.3f} {unit_interval(guesser.auc)}, "
        f"{_p_is(p_value(guesser.corrected_p_value))}); {why}."
    )


def copies_line(copies: CopiesWithin) -> str:
    """Count records that are nearly copies of others of their side."""
    parts = []
    if copies.members:
        parts.append(f"{number_of(copies.members, 'member')} nearly copy another member")
    if copies.non_members:
        many = number_of(copies.non_members, "non-member")
        parts.append(f"{many} nearly copy another non-member")
    return f"{joined(parts)}, in {number_of(copies.groups, 'cluster')}"


def score_of_groups(metrics: Iterable[Metrics]) -> str:
    """Say what the score of a group of records is."""
    measured = [entry for entry in metrics if isinstance(entry, AttackMetrics)]
    found = sorted({m.records_per_group for m in measured if m.records_per_group is not None})
    if not found:
        return "A group's score is the mean of its records' scores."
    why = "A mean of more scatters less, so that groups with more would look unlike the others."
    if found == [1]:
        return (
            "A group's score is that of the first of its records with one: more than one group in "
            f"ten has no more. {why}"
        )
    several = count(found[0]) if len(found) == 1 else f"{count(found[0])} to {count(found[-1])}"
    by = "" if len(found) == 1 else ", by the attack"
    return (
        f"A group's score is the mean of the first {several} of its records with one{by}: as "
        f"many as nine of ten groups of each kind have. Groups with fewer have no score. {why}"
    )


def overlap_lines(check: ShiftCheck) -> list[str]:
    """Name what stands in members and in non-members, and copies on one side; empty where nothing
    does."""
    lines = []
    if check.copies is not None and check.copies.groups:
        named = joined(check.copies.proposed[0][:3])
        lines.append(
            f"{copies_line(check.copies)}, as {named}; each cluster should be a group "
            "(`group_column`): its records are no independent evidence"
        )
    grams, near = check.ngram_overlap, check.near_duplicates
    doubt = "their labels are doubtful, and they make attacks look weaker"
    if near is not None and near.non_members:
        first = near.pairs[0]
        lines.append(
            f"{number_of(near.non_members, 'non-member')} nearly equal to a member, as "
            f"{first.non_member} is to {first.member} (similarity {first.similarity:.2f}): {doubt}"
        )
    if check.same_text:
        lines.append(
            f"{number_of(check.same_text, 'non-member')} scored on the very text that a member is "
            "scored on, apart from what stands before it: they make attacks look weaker"
        )
    if grams is not None and grams.mostly:
        lines.append(
            f"{number_of(grams.mostly, 'non-member')} with at least "
            f"{percent(grams.threshold, 0)} of the n-grams in members, as {grams.records[0]}: "
            f"{doubt}"
        )
    return lines


def evidence_lost(result: RunResult) -> str:
    """Count questions without an answer, and apart from them records that were cut and scored."""
    cut = result.cut_total
    if cut is None:
        cut = sum(entry.reason == TRUNCATED for entry in result.dropped)
    lost = f"questions without an answer: {result.dropped_total - cut:,}"
    return f"{lost}; cut at the model's limit and scored: {cut:,}" if cut else lost


def unanswered_lines(result: RunResult) -> list[str]:
    """Why questions have no answer, by stage and reason, the most frequent first."""
    lacking = [one for one in result.dropped if one.reason != TRUNCATED]
    of_listed = result.dropped_total > len(result.dropped)
    first = f", of the first {count(len(result.dropped))} alone" if of_listed else ""
    reasons = count_reasons(f"{one.stage}: {one.reason}" for one in lacking)
    lines = [f"no answer{first}: {count(n)} x {reason}" for reason, n in reasons.items()]
    others = len(lines) - MOST_REASONS
    return lines[:MOST_REASONS] + [f"no answer: {count(others)} other reasons"] * (others > 0)


def neighbor_figures(quality: NeighborQuality) -> list[tuple[str, str]]:
    """Name and write each figure of neighbors that there is."""
    rates = (
        ("not made", quality.not_made / max(1, quality.made + quality.not_made)),
        ("attempts failed", quality.failed_attempts),
        ("identical to the record", quality.identical),
        ("masked", quality.masked_share),
        ("words edited", quality.edit_distance),
    )
    figures = [(name, percent(rate)) for name, rate in rates if rate is not None]
    if quality.log_prob_gap is not None:
        gap = f"{quality.log_prob_gap:+.3f} nats per token"
        figures.append((f"log p against the record under {quality.reference}", gap))
    if quality.of_records is not None:
        figures.append(("looked at", f"those of a sample of {count(quality.of_records)} records"))
    return figures


def neighbor_line(quality: NeighborQuality, name: str = "") -> str:
    """Write the figures of neighbors, with a name or without, in one line."""
    figures = "; ".join(f"{name} {figure}" for name, figure in neighbor_figures(quality))
    named = f"neighbors {name} ({quality.kind})" if name else f"neighbors ({quality.kind})"
    return f"{named}: {count(quality.made)} made; {figures}"
