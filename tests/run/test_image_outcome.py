"""What a run shows of images: real evidence of small models that are asked without Ray."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from answered_audit import Answered, answer
from PIL import Image
from sklearn.metrics import roc_auc_score
from small_image_audit import SHAPE, TIMESTEPS, digits, write_image_audit, write_images

from raymia.modalities.images.shown import LARGEST_RECORD, look_at_images, png
from raymia.perturbations.kinds import perturb
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.scoring.exposed import choose_rows
from raymia.scoring.judge import Judge
from raymia.scoring.parts import ScoreParts
from raymia.util.draws import stream_key

STRENGTHS = [0.95, 0.85, 0.75]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("network") / "denoiser"
    fresh_pipeline(folder, SHAPE, channels=(16, 32), attention=False)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, network: Path) -> Answered:
    """Members, non-members, and three candidates, with chance in the perturbation."""
    folder = tmp_path_factory.mktemp("run")
    images = digits()
    return answer(
        write_image_audit(
            folder, network, attacks=["pfami"],
            neighbors={"kind": "perspective", "strengths": [0.2, 0.4]},
            records={"kind": "image", "members": write_images(folder / "m", images[:6]),
                     "non_members": write_images(folder / "n", images[6:14]),
                     "candidates": write_images(folder / "c", images[14:17])},
        )
    )  # fmt: skip


def decoded(picture: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def pixels_of(run: Answered, record_id: str) -> np.ndarray:
    table = run.inputs.records.table
    row = table["record_id"].to_pylist().index(record_id)
    return np.frombuffer(table["payload"][row].as_py()["pixels"], np.uint8).reshape(SHAPE)


def test_what_is_shown_is_the_most_exposed_of_each_class_and_the_least_exposed_member(
    run: Answered,
) -> None:
    shown, labels, scores = run.result.image_examples, run.labels(), run.scored("pfami")

    def by_score(label: bool | None) -> list[str]:
        return sorted((r for r in labels if labels[r] is label), key=lambda r: -scores[r])

    members, others, candidates = by_score(True), by_score(False), by_score(None)
    expected = {members[0], others[0], candidates[0], members[-1]}
    assert {example.record_id for example in shown} == expected
    assert [e.score for e in shown] == sorted((scores[r] for r in expected), reverse=True)
    for example in shown:
        same = {True: members, False: others, None: candidates}[example.is_member]
        assert labels[example.record_id] is example.is_member
        assert (example.rank, example.of) == (same.index(example.record_id) + 1, len(same))
        rivals = [r for r in others if r != example.record_id]
        lower = sum(scores[r] < example.score for r in rivals)
        assert example.outscored == pytest.approx(lower / len(rivals))


def test_the_picture_is_the_record_pixel_by_pixel(run: Answered) -> None:
    for example in run.result.image_examples:
        np.testing.assert_array_equal(decoded(example.image), pixels_of(run, example.record_id)[0])


def test_neighbors_are_those_that_the_model_was_asked_about(run: Answered) -> None:
    for example in run.result.image_examples:
        image = torch.from_numpy(pixels_of(run, example.record_id).copy())[None].float() / 255
        assert example.strengths == [0.2, 0.4]
        for index, (strength, picture) in enumerate(
            zip(example.strengths, example.neighbors, strict=True), start=1
        ):
            key = stream_key(run.inputs.spec.seed, "perturbation", example.record_id, index)
            made = perturb(image, "perspective", strength, torch.tensor([key]))
            np.testing.assert_array_equal(
                decoded(picture), (made[0, 0] * 255).round().numpy().astype(np.uint8)
            )


def change(run: Answered, perturbation: str, record: str, shadow: str = "") -> np.ndarray:
    """[L(neighbor) - L(x)] / L(x) as stored, the mean over draws, [timesteps, strengths]."""
    around = run.rows(f"neighbors.{perturbation}", shadow)
    rows = len(run.inputs.spec.probes.denoising.timesteps)
    own = np.array(run.rows("terms", shadow)[record, 0]["l2"], float).reshape(rows, -1)
    indices = sorted(n for r, n in around if r == record)
    others = [np.array(around[record, n]["l2"], float).reshape(rows, -1) for n in indices]
    return np.stack([((other - own) / own).mean(1) for other in others], axis=1)


def test_the_heat_map_is_the_stored_evidence(run: Answered) -> None:
    for example in run.result.image_examples:
        assert example.timesteps == TIMESTEPS
        expected = change(run, "perspective", example.record_id)
        np.testing.assert_allclose(example.fluctuation, expected, rtol=1e-9)


def test_the_means_are_those_of_members_and_of_non_members(run: Answered) -> None:
    (mean,) = run.result.mean_fluctuations
    labels = run.labels()
    for label, found, count in (
        (True, mean.members, mean.n_members),
        (False, mean.non_members, mean.n_non_members),
    ):
        ids = [r for r in labels if labels[r] is label]
        expected = np.mean([change(run, "perspective", r) for r in ids], axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert count == len(ids)
    assert (mean.timesteps, mean.strengths) == (TIMESTEPS, [0.2, 0.4])


def test_versions_of_image_libraries_are_told(run: Answered) -> None:
    assert {"diffusers", "kornia", "pillow"} <= set(run.result.versions)


def test_no_choice_is_told_where_the_audit_names_the_perturbation(run: Answered) -> None:
    assert run.result.perturbation_choices == []


def test_missing_evidence_is_a_gap_and_counts_in_no_mean(network: Path, tmp_path: Path) -> None:
    images = digits()
    run = answer(
        write_image_audit(
            tmp_path, network, attacks=["loss", "pfami"],
            records={"kind": "image", "members": write_images(tmp_path / "m", images[:2]),
                     "non_members": write_images(tmp_path / "n", images[2:5])},
        ),
        break_record=True,
    )  # fmt: skip
    (broken,) = (r for r, score in run.scored("pfami").items() if score is None)
    (example,) = (e for e in run.result.image_examples if e.record_id == broken)
    assert example.attack == "loss"
    assert all(row[0] is None and None not in row[1:] for row in example.fluctuation)
    assert len(example.neighbors) == len(STRENGTHS)
    (mean,) = run.result.mean_fluctuations
    assert (mean.n_members, mean.n_non_members) == (1, 3)


def test_without_neighbors_a_record_stands_alone(network: Path, tmp_path: Path) -> None:
    result = answer(write_image_audit(tmp_path, network, attacks=["loss"], neighbors=None)).result
    assert len(result.image_examples) == 4
    assert all(e.perturbation is None and e.neighbors == [] for e in result.image_examples)
    assert result.mean_fluctuations == []


def test_candidates_alone_are_shown_by_the_attack_to_read_first(
    network: Path, tmp_path: Path
) -> None:
    images = digits()
    run = answer(
        write_image_audit(
            tmp_path, network, attacks=["loss", "pfami"],
            records={"kind": "image", "candidates": write_images(tmp_path / "c", images[:9])},
        )
    )  # fmt: skip
    shown = run.result.image_examples
    assert [(e.attack, e.rank) for e in shown] == [("pfami", n) for n in (1, 2, 3, 9)]
    assert all(e.outscored is None for e in shown)
    assert run.result.mean_fluctuations == []
    scores = run.scores.read(run.plans[0].name)
    without = ScoreParts(str(tmp_path), "without")
    without.write(run.plans[0].name, {**scores, "pfami": np.full(9, np.nan)})
    findings = look_at_images(run.inputs, run.store, run.plans, without, [])
    assert {e.attack for e in findings.image_examples} == {"loss"}


def test_an_autoencoder_has_one_row_without_timesteps(tmp_path: Path) -> None:
    from raymia.models.autoencoders.vae.config import AutoencoderConfig
    from raymia.prepare.train_autoencoder import train_autoencoder
    from raymia.spec import AutoencoderTrainingSpec

    config = AutoencoderConfig(image_shape=SHAPE, objective="vae", latent=4, channels=(8, 8))
    train_autoencoder(
        digits()[:8], config, AutoencoderTrainingSpec(epochs=1, batch_size=8), tmp_path / "vae",
        seed=0, progress=lambda *_: None,
    )  # fmt: skip
    run = answer(write_image_audit(tmp_path, tmp_path / "vae", attacks=["pfami"], probes=None))
    around, own = run.rows("neighbors.crop"), run.rows("terms")
    for example in run.result.image_examples:
        record = example.record_id
        loss = np.array(own[record, 0]["loss"], float)
        expected = [
            ((np.array(around[record, n]["loss"], float) - loss) / loss).mean() for n in (1, 2, 3)
        ]
        assert example.timesteps == []
        np.testing.assert_allclose(example.fluctuation, [expected], rtol=1e-9)


@pytest.mark.long
def test_the_choice_of_a_perturbation_is_told_with_what_it_rests_on(
    network: Path, tmp_path: Path
) -> None:
    images = digits()
    run = answer(
        write_image_audit(
            tmp_path, network, attacks=["pfami"],
            neighbors={"kind": "auto", "among": ["crop", "blur"]},
            probes={"denoising": {"timesteps": [150]}},
            records={"kind": "image", "members": write_images(tmp_path / "m", images[:160]),
                     "non_members": write_images(tmp_path / "n", images[160:320])},
        )
    )  # fmt: skip
    (choice,) = run.result.perturbation_choices
    spent = [r for r, score in run.scored("pfami").items() if score is None]
    assert (choice.fitted_on, choice.spent) == ("records", len(spent))
    labels = run.labels()
    for name, area in choice.aucs.items():
        means = [change(run, name, r).mean() for r in spent]
        assert area == pytest.approx(roc_auc_score([labels[r] for r in spent], means))
    assert choice.perturbation == max(choice.aucs, key=lambda name: choice.aucs[name])
    assert {e.perturbation for e in run.result.image_examples} == {choice.perturbation}
    (mean,) = run.result.mean_fluctuations
    assert mean.n_members + mean.n_non_members == 320 - len(spent)


@pytest.mark.long
def test_a_choice_on_a_shadow_spends_no_record(network: Path, tmp_path: Path) -> None:
    images = digits()
    fresh_pipeline(tmp_path / "shadow", SHAPE, channels=(8, 8), attention=False, seed=1)
    shadow_members = write_images(tmp_path / "s", [*images[:6], *images[12:18]])
    run = answer(
        write_image_audit(
            tmp_path, network, attacks=["pfami_nns"],
            neighbors={"kind": "auto", "among": ["jpeg", "crop"]},
            probes={"denoising": {"timesteps": [150]}},
            references={"shadow": {"kind": "shadow", "model": str(tmp_path / "shadow"),
                                   "members": [shadow_members]}},
            records={"kind": "image", "members": write_images(tmp_path / "m", images[:12]),
                     "non_members": write_images(tmp_path / "n", images[12:24])},
        )
    )  # fmt: skip
    (choice,) = run.result.perturbation_choices
    assert (choice.fitted_on, choice.spent) == ("shadows", 0)
    ids, learned_from = run.inputs.records.ids, run.inputs.shadow_members["shadow"]
    assert len(learned_from & {*ids}) == 12
    for name, area in choice.aucs.items():
        means = [change(run, name, r, "shadow").mean() for r in ids]
        assert area == pytest.approx(roc_auc_score([r in learned_from for r in ids], means))
    assert set(choice.aucs) == {"jpeg", "crop"}


def test_the_three_most_exposed_targets_are_shown(network: Path, tmp_path: Path) -> None:
    images = digits()
    names = [f"t{n}" for n in range(4)]
    run = answer(
        write_image_audit(
            tmp_path, network, attacks=["loss"], neighbors=None,
            targets=[{"name": name, "model": str(network)} for name in names],
            records={"kind": "image", "members": write_images(tmp_path / "m", images[:5]),
                     "non_members": write_images(tmp_path / "n", images[5:10])},
        )
    )  # fmt: skip
    # Of five non-members, members of a target score above one, three, none, or all of them.
    above = {"t0": 1, "t1": 3, "t2": 0, "t3": 5}
    labels = run.labels().values()
    parts, judge = ScoreParts(str(tmp_path), "others"), Judge.of(run.inputs)
    metrics = []
    for target in names:
        others = iter(range(1, 6))
        scores = [above[target] + 0.5 if is_member else next(others) for is_member in labels]
        values = np.array(scores, np.float64)
        parts.write(target, {"loss": values})
        metrics.append(judge.judge(values, target=target, attack="loss").metrics)
    shown = look_at_images(run.inputs, run.store, run.plans, parts, metrics).image_examples
    assert list(dict.fromkeys(e.target for e in shown)) == ["t0", "t1", "t3"]
    assert [e.outscored for e in shown if e.is_member and e.rank == 1] == [0.2, 0.6, 1.0]


VALUES = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 4.5, 0.5, 3.5, 2.5])


@pytest.mark.parametrize(
    ("members", "others", "candidates", "expected"),
    [
        ([0, 1, 2, 3, 4], [5, 6], [7, 8], [0, 5, 7, 4]),
        ([0, 1, 2, 3, 4], [5, 6], [], [0, 5, 1, 4]),
        ([0, 1, 2, 3, 4], [], [], [0, 1, 2, 4]),
        ([], [5, 6], [0, 1, 2, 3], [0, 5, 1, 3]),
        ([0], [5], [], [0, 5]),
        ([], [5, 6], [], [5]),
        ([], [], [], []),
    ],
)
def test_which_records_are_shown(
    members: list[int], others: list[int], candidates: list[int], expected: list[int]
) -> None:
    assert choose_rows(VALUES, {True: members, False: others, None: candidates}) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_kept_and_large_ones_scaled(channels: int) -> None:
    draws = np.random.default_rng(0)
    small = draws.integers(0, 256, (channels, 17, LARGEST_RECORD), np.uint8)
    kept = decoded(png(small, LARGEST_RECORD))
    np.testing.assert_array_equal(kept, small[0] if channels == 1 else small.transpose(1, 2, 0))
    large = np.full((channels, 300, 600), 77, np.uint8)
    scaled = decoded(png(large, LARGEST_RECORD))
    assert scaled.shape[:2] == (128, 256)
    assert np.all(scaled == 77)
