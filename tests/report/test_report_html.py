"""The report is one safe file that loads nothing and says what was and was not found."""

import base64
import gzip
import hashlib
import json
import re

import numpy as np
import pytest
from html_page import ATTACK_ON_READER, Page
from made_up_run import made_up_curves, made_up_result, made_up_scores
from plotly.offline import get_plotlyjs

from raymia.metrics.measuring import measure
from raymia.metrics.summary import NotMeasured
from raymia.report.html import render
from raymia.results.result import NeighborQuality, SetAside
from raymia.results.text_result import TextExample
from raymia.results.verdict import reach_verdict


@pytest.fixture(scope="module")
def page(result, curves):
    return Page(render(result, curves))


def test_nothing_is_loaded_from_anywhere(page):
    for tag, attributes in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"src", "action", "srcset"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    policies = [a["content"] for _, a in page.tags if "Content-Security-Policy" in a.values()]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "http" not in policies[0]
    (allowed,) = re.findall(r"script-src ([^;]*);", policies[0])
    assert "unsafe" not in allowed
    packed = gzip.decompress(base64.b64decode(page.scripts["plotly"])).decode()
    run = [text for name, text in page.scripts.items() if name.startswith("script")] + [packed]
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in run]
    assert allowed.split() == [f"'sha256-{value}'" for value in hashes]


def test_report_points_to_a_sweep_where_there_is_one(result, curves, page):
    def links(page):
        return {a["href"] for _, a in page.tags if not a.get("href", "#").startswith("#")}

    assert links(Page(render(result, curves, "sweep.html"))) == {"sweep.html"}
    assert not links(page)


def test_plotting_library_is_inlined_once_and_offers_no_upload(page):
    packed = page.scripts.pop("plotly")
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert len(page.scripts["charts"]) < 10**5
    *_, drawing = page.scripts.values()
    assert "showSendToCloud: false" in drawing
    assert not [script for script in page.scripts.values() if "http" in script]


def test_every_string_from_outside_is_escaped():
    def hostile(text):
        return text + ATTACK_ON_READER

    scores = made_up_scores(hostile)
    plain, safe = made_up_scores(), render(made_up_result(scores, hostile), made_up_curves(scores))
    expected = Page(render(made_up_result(plain), made_up_curves(plain)))
    page = Page(safe)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in expected.tags]
    assert "<script>alert" not in safe
    assert "<img" not in safe
    # Shown, not dropped: every one of these came from outside.
    for field in ("reviews", "row 4", "empty text", "name: reviews", "mean log p", "a problem"):
        assert hostile(field) in page.text
    charts = json.loads(page.scripts["charts"])
    names = {c["name"] for chart in charts if chart["kind"] == "roc" for c in chart["curves"]}
    assert hostile("ez@self_prompt") in names


def test_figures_of_neighbors_are_shown_where_there_are_neighbors(page):
    assert "Neighbors" not in page.text
    scores = made_up_scores()
    neighbors = NeighborQuality(
        kind="substitute", made=1_234, not_made=0, masked_share=0.152, identical=0.0,
        failed_attempts=0.0, edit_distance=0.149, reference=f"base{ATTACK_ON_READER}",
        log_prob_gap=-0.731,
    )  # fmt: skip
    html = render(made_up_result(scores, neighbors=neighbors), made_up_curves(scores))
    text = Page(html).text
    for figure in ("1,234", "masked 15.2 %", "words edited 14.9 %", "-0.731 nats per token"):
        assert figure in text, figure
    assert "<script>alert" not in html


def test_verdict_comes_first(page):
    verdict = reach_verdict(made_up_result(made_up_scores()))
    assert verdict.finding == "leaks_strongly"
    assert page.text.index(verdict.sentence) < page.text.index("Are members and non-members")


def test_unresolvable_and_unmeasured_are_said(page):
    assert "not resolvable (needs ≥ 1,000 non-members)" in page.text
    assert "zlib : at least 2 members must have a score; there are 0" in page.text


@pytest.mark.parametrize(
    ("of", "anchor", "heading"),
    [
        ("distinct_metrics", "distinct", "Distinct members / non-members"),
        ("group_metrics", "groups", "Groups of members / of non-members"),
    ],
)
def test_distinct_records_and_groups_have_tables_of_their_own(result, curves, of, anchor, heading):
    few = made_up_result(made_up_scores(n_members=41, n_non_members=83)).metrics
    text = render(result.model_copy(update={of: few}), curves)
    section = text.partition(f'<section id="{anchor}">')[2].partition("</section>")[0]
    assert heading in section
    assert "41 / 83" in section
    assert f'href="#{anchor}"' in text
    assert f'id="{anchor}"' not in render(result, curves)


def test_the_bound_of_epsilon_that_a_gate_compares_is_marked(result, curves):
    best = {}
    for entry in result.metrics:
        if entry.kind == "measured":
            for bound in entry.epsilon:
                found = (bound.chosen_by, f">{entry.attack}<", f">{bound.value:.2f}<")
                best[entry.target] = max(found, best.get(entry.target, found))
    rows = render(result, curves).split("<tr>")
    marked = [row for row in rows if "compared by a gate" in row.partition("</tr>")[0]]
    assert len(marked) == len(best) == 2
    for _, attack, value in best.values():
        assert any(attack in row and value in row for row in marked)


def test_rate_that_rests_on_few_non_members_says_so(page):
    assert "TPR at 1 % FPR rests on 1 non-member: it is rough, as its interval says." in page.text
    assert "TPR at 10 % FPR rests" not in page.text


def test_every_rate_stands_under_its_own_heading():
    """Also where budgets are given in another order, and not all checkpoints resolve them all."""
    draws, metrics = np.random.default_rng(0), []
    for target, non_members in (("few", 500), ("many", 1_000)):
        is_member = np.arange(200 + non_members) < 200
        scores = draws.normal(size=is_member.size) + 2.0 * is_member
        names = {"target": target, "attack": "loss"}
        metrics.append(measure(scores, is_member, fprs=(0.001, 0.01, 0.1), **names))
    html = render(made_up_result(made_up_scores(), metrics=metrics), [])
    overview, *others = re.findall(r'<table class="ranked.*?</table>', html, re.DOTALL)
    headings = [
        re.findall(r"<th [^>]*>(TPR at [^<]*)</th>", table) for table in (overview, *others)
    ]
    assert headings[0] == ["TPR at 10 % FPR", "TPR at 1 % FPR", "TPR at 0.1 % FPR"]
    assert len(others) == 2
    for table, expected in zip((overview, *others), headings, strict=True):
        _, *rows = table.split("<tr")[1:]
        for row in rows:
            assert re.findall(r'data-label="(TPR at [^"]*)"', row) == expected


def test_a_record_without_a_piece_of_text_is_named_with_the_reason():
    scores = made_up_scores()
    example = TextExample(
        target="tuned", attack="loss", record_id="r7", is_member=True, score=1.5, rank=1, of=60,
        outscored=0.9,
    )  # fmt: skip
    text = Page(render(made_up_result(scores, text_examples=[example]), [])).text
    assert "Record r7 The text is not shown: there is no evidence on it." in text


def test_run_without_labels_has_no_plots_and_still_a_report():
    scores = made_up_scores()
    nothing = NotMeasured(
        target="t", attack="a", n_members=0, n_non_members=0, n_unscored=0, reason="no labels"
    )
    page = Page(render(made_up_result(scores, metrics=[nothing]), []))
    assert not {"plotly", "charts"} & page.scripts.keys()
    assert "Nothing could be measured" in page.text
    page = Page(render(made_up_result(scores, metrics=[]), []))
    assert "Nothing could be measured" in page.text


def test_incomplete_run_says_so_first():
    scores = made_up_scores()
    text = Page(render(made_up_result(scores, complete=False), made_up_curves(scores))).text
    assert text.index("This run is not complete") < text.index("tuned")


def test_long_lists_are_counted_by_reason_and_cut():
    scores = made_up_scores()
    aside = [
        SetAside(where=f"line {i};", record_id=None, reason="too long" if i % 4 else "empty")
        for i in range(200)
    ]
    records = made_up_result(scores).records.model_copy(update={"set_aside": 500})
    text = Page(
        render(made_up_result(scores, set_aside=aside, records=records), made_up_curves(scores))
    ).text
    assert "150 × too long" in text
    assert "50 × empty" in text
    assert "By reason, of the first 200:" in text
    assert len(re.findall(r"line \d+;", text)) == 50
