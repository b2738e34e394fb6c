"""The section of pictures says what was found, in a page that is safe and can be read aloud."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from html_page import ATTACK_ON_READER, Page
from made_up_run import made_up_curves, made_up_result, made_up_scores
from PIL import Image
from pydantic import ValidationError

from raymia.report.files import write_run
from raymia.report.html import render
from raymia.report.pictures import FAINTEST, heat_map, target_pictures
from raymia.results.folder import load_run
from raymia.results.image_result import ImageExample, MeanFluctuation, PerturbationChoice
from raymia.results.result import AttackCard, ReferenceCard
from raymia.results.verdict import reach_verdict
from raymia.results.wording import chosen_on, exposure, outscores


def picture(shade):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), shade, np.uint8)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def made_up_example(text=str, **changes):
    fields = {
        "target": text("tuned"), "attack": text("pfami"), "record_id": text("ab" * 16),
        "is_member": True, "score": 1.25, "rank": 1, "of": 60, "outscored": 0.975,
        "image": picture(0), "perturbation": text("crop"), "strengths": [0.9, 0.8],
        "neighbors": [picture(100), picture(200)], "timesteps": [50, 150],
        "fluctuation": [[0.5, 2.0], [-0.25, None]],
    }  # fmt: skip
    return ImageExample(**{**fields, **changes})


def made_up_pictures(text=str):
    return {
        "image_examples": [
            made_up_example(text),
            made_up_example(text, is_member=False, fluctuation=[[-1.0, 0.0], [0.004, 0.2]]),
            ImageExample(
                target=text("base"), attack=text("loss"), record_id=text("cd"), is_member=None,
                score=-0.5, rank=2, of=3, outscored=None, image=picture(50),
            ),
        ],
        "perturbation_choices": [
            PerturbationChoice(
                target=text("tuned"), perturbation=text("crop"),
                aucs={text("crop"): 0.75, text("blur"): None}, fitted_on="records", spent=1_018,
            )
        ],
        "mean_fluctuations": [
            MeanFluctuation(
                target=text("tuned"), perturbation=text("crop"), strengths=[0.9, 0.8],
                timesteps=[50, 150], members=[[0.4, 0.8], [0.1, 0.2]],
                non_members=[[0.04, 0.08], [0.0, -0.2]], n_members=55, n_non_members=1_100,
            )
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def html():
    scores = made_up_scores()
    return render(made_up_result(scores, **made_up_pictures()), made_up_curves(scores))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_a_run_on_texts_has_no_pictures(result, curves):
    assert "Pictures" not in Page(render(result, curves)).text


def test_every_picture_is_in_the_file_and_has_words_in_its_place(page):
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == [
        "the record", "the record after crop 0.9", "the record after crop 0.8",
        "the record", "the record after crop 0.9", "the record after crop 0.8",
        "the record",
    ]  # fmt: skip
    shades = []
    for image in images:
        kind, _, content = image["src"].partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
            shades.append(int(np.unique(np.asarray(opened)).item()))
    assert shades == [0, 100, 200, 0, 100, 200, 50]
    assert not [tag for tag, attributes in page.tags if "src" in attributes and tag != "img"]


def cells_of(html, number):
    """Text and class of the cells of the heat-map of this number, row by row."""
    table = re.findall(r'<table class="heat">.*?</table>', html, flags=re.DOTALL)[number]
    body = table[table.index("<tbody>") :]
    rows = re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)
    cell = r'<td class="(\w+)" style="--depth: ([\d.]+)">(.*?)</td>'
    return [
        (re.findall(r'<th scope="row">(.*?)</th>', row)[0], re.findall(cell, row)) for row in rows
    ]


def test_heat_maps_give_the_change_in_percent_by_timestep(html):
    (first, top), (second, bottom) = cells_of(html, 0)
    assert (first, second) == ("t = 50", "t = 150")
    assert [(kind, text) for kind, _, text in top] == [("rise", "+50"), ("rise", "+200")]
    assert [(kind, text) for kind, _, text in bottom] == [("fall", "−25"), ("none", "–")]


def test_examples_of_a_target_share_one_scale_and_so_do_its_means(html):
    depths = [
        [float(depth) for _, cells in cells_of(html, number) for _, depth, _ in cells]
        for number in range(4)
    ]

    def shade(change, largest):
        return pytest.approx(FAINTEST + (1 - FAINTEST) * change / largest, abs=1e-3)

    assert depths[0] == [shade(0.5, 2), 1, shade(0.25, 2), 0]
    assert depths[1] == [shade(1, 2), 0, 0, shade(0.2, 2)]
    assert depths[2] == [shade(0.4, 0.8), 1, shade(0.1, 0.8), shade(0.2, 0.8)]
    assert depths[3] == [shade(0.04, 0.8), shade(0.08, 0.8), 0, shade(0.2, 0.8)]


@pytest.mark.parametrize(
    ("change", "scale", "text"),
    [
        (0.123, 0.2, "+12"), (0.0123, 0.05, "+1.2"), (0.00123, 0.005, "+0.12"),
        (-0.004, 0.2, "0"), (0.0, 0.0, "0"), (12.5, 12.5, "+1250"),
    ],
)  # fmt: skip
def test_changes_have_as_many_decimals_as_their_scale_needs(change, scale, text):
    ((_, (cell,)),) = heat_map([[change]], [50], scale).rows
    assert cell.text == text


def test_a_model_without_timesteps_has_a_row_named_loss():
    ((label, _),) = heat_map([[0.1]], [], 0.1).rows
    assert label == "loss"


def test_words_say_where_each_record_stands(page):
    assert "Most exposed of 60 members by pfami : score 1.25" in page.text
    assert "above 97.5 % of the non-members" in page.text
    assert "above 97.5 % of the other non-members" in page.text
    assert "Number 2 of 3 candidates by exposure by loss : score -0.5." in page.text
    assert "Mean of 55 members" in page.text
    assert "Mean of 1,100 non-members" in page.text
    assert "A member's loss rises when it is perturbed" in page.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank": 1, "of": 1}, "The only member"),
        ({"rank": 3, "of": 3, "is_member": False}, "Least exposed of 3 non-members"),
        ({"rank": 2, "of": 1_200, "is_member": None}, "Number 2 of 1,200 candidates by exposure"),
    ],
)
def test_exposure_is_a_place_among_the_records_of_a_class(changes, said):
    assert exposure(made_up_example(**changes)) == said


@pytest.mark.parametrize(
    ("outscored", "said"),
    [(1.0, "above all of the non-members"), (0.0, "above none of the non-members"), (None, "")],
)
def test_all_and_none_of_the_non_members_are_said_in_words(outscored, said):
    assert outscores(made_up_example(outscored=outscored)) == said


def test_the_choice_of_the_perturbation_is_told_with_its_price(page):
    assert (
        "Attacks used crop, the best of 2 by PFAMI's mean ratio on 1,018 of the records, which "
        "these attacks therefore do not score." in page.text
    )
    assert "crop (chosen) AUC 0.750 blur not measurable" in page.text


@pytest.mark.parametrize(
    ("fitted_on", "aucs", "said"),
    [
        ("shadows", {"crop": 0.7, "blur": 0.6}, "on the shadows, so that no record was spent"),
        ("shadows", {"crop": 0.7}, "the only one tried"),
        ("nothing", {}, "were too few, and there was no shadow"),
    ],
)
def test_each_ground_of_a_choice_is_said(fitted_on, aucs, said):
    choice = PerturbationChoice(
        target="t", perturbation="crop", aucs=aucs, fitted_on=fitted_on, spent=0
    )
    assert said in chosen_on(choice)


def test_every_string_of_the_pictures_is_escaped(page):
    def hostile(text):
        return text + ATTACK_ON_READER

    scores = made_up_scores(hostile)
    html = render(
        made_up_result(scores, hostile, **made_up_pictures(hostile)), made_up_curves(scores)
    )
    hostile_page = Page(html)
    assert [tag for tag, _ in hostile_page.tags] == [tag for tag, _ in page.tags]
    assert "<script>alert" not in html
    assert "<img src=http" not in html
    images = [attributes for tag, attributes in hostile_page.tags if tag == "img"]
    assert all(set(image) == {"alt", "src"} for image in images)
    assert images[1]["alt"] == f"the record after {hostile('crop')} 0.9"
    assert f"Most exposed of 60 members by {hostile('pfami')} : score 1.25" in hostile_page.text
    assert hostile("crop") in hostile_page.text


@pytest.mark.parametrize("image", ['"><script>alert(1)</script>', "http://evil.test/a.png", ""])
def test_what_is_no_base64_is_no_picture(image):
    with pytest.raises(ValidationError, match="pattern"):
        made_up_example(image=image)


def test_pictures_are_read_back_as_they_were_written(tmp_path):
    scores = made_up_scores()
    result = made_up_result(scores, **made_up_pictures())
    write_run(str(tmp_path), result, [scores], made_up_curves(scores))
    read = load_run(str(tmp_path))[0]
    assert read == result.model_copy(update={"scores_sha256": read.scores_sha256})


def test_targets_keep_the_order_of_the_metrics():
    scores = made_up_scores()
    result = made_up_result(scores, **made_up_pictures())
    assert [shown.target for shown in target_pictures(result)] == ["tuned", "base"]


def test_without_neighbors_nothing_is_said_of_them():
    scores = made_up_scores()
    alone = made_up_pictures()["image_examples"][2:]
    text = Page(render(made_up_result(scores, image_examples=alone), made_up_curves(scores))).text
    assert "Pictures" in text
    assert "hold the records that are shown" in text
    assert "perturbed" not in text


def test_images_without_labels_are_read_by_the_loss_against_what_the_target_generates():
    cards = [AttackCard(name=n, title=n, source="s", formula="f") for n in ("loss", "pfami")]
    made = ReferenceCard(target="t", name="own", kind="self_generated", model="")
    plain = made_up_result(made_up_scores()).model_copy(update={"metrics": [], "attacks": cards})
    said = reach_verdict(plain.model_copy(update={"references": [made]})).sentence
    assert "Read those of loss@own first" in said
    assert "Read those" not in reach_verdict(plain.model_copy(update={"references": []})).sentence
