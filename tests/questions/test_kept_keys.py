"""Evidence that is stored is found again: the keys of questions stay what they are.

A key that is another here is another for everybody, and all answers in the stores of earlier
versions are asked anew. So one of these may change only with the `version` of its question, which
is raised where the answer itself has become another.
"""

from __future__ import annotations

import pytest

from raymia.questions.base import Setup, evidence_key
from raymia.questions.registry import questions_for
from raymia.spec import AuditSpec

TARGETS = [{"name": "t", "model": "m"}]
TEXTS = {
    "records": {"members": ["x"]}, "targets": TARGETS, "seed": 3,
    "probes": {"swaps": {"count": 4, "share": 0.25}, "noise": {"pairs": 2, "scale": 0.01}},
}  # fmt: skip
IMAGES = {
    "records": {"kind": "image", "members": ["x"]}, "targets": TARGETS, "seed": 3,
    "neighbors": {"kind": "crop", "strengths": [0.95, 0.85]},
    "probes": {
        "denoising": {"timesteps": [50, 150], "draws": 2}, "clean": {"timesteps": [50]},
        "elbo": {"draws": 4},
    },
}  # fmt: skip
KEPT = {
    ("text", "causal", "tokens"): "a67b15d309f12630629540f154de3b3b",
    ("text", "causal", "neighbors"): "008112d1adc42fcb23416a4ed2aa08c2",
    ("text", "causal", "swaps"): "ddcc63a7f0879c32c17e93ef88bc45bb",
    ("text", "causal", "noise"): "701452c07d358565455138f6087b7b7b",
    ("image", "denoiser", "terms"): "83b67e28218803ce5decee9656a1a86c",
    ("image", "denoiser", "neighbors.crop"): "e3f9398199e0ce8676021491bf0fa0ae",
    ("image", "denoiser", "clean"): "baea421469150315e07b6ab25b054c7e",
    ("image", "autoencoder", "terms"): "d2153b075100bb66c53508a666f17782",
}


@pytest.mark.parametrize(
    ("records", "family", "label"), list(KEPT), ids=[" ".join(which) for which in KEPT]
)
def test_a_key_is_that_of_earlier_versions(records: str, family: str, label: str) -> None:
    spec = AuditSpec.model_validate({"text": TEXTS, "image": IMAGES}[records])
    setup = Setup(spec, family, neighbors={"": (5, "key of the neighbors", 0)})
    ((_, question),) = [
        one for one in questions_for(records, setup, [label.partition(".")[0]]) if one[0] == label
    ]
    assert evidence_key(question, "fingerprint of a model").hash == KEPT[records, family, label]
