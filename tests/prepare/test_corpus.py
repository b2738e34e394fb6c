"""Token frequencies: every occurrence, once per tokenizer, kept in the store."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from small_inputs import write_jsonl
from tiny_models import passages
from transformers import AutoTokenizer

import raymia.prepare.corpus
from raymia.evidence.store import EvidenceStore
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.prepare.corpus import counts_file, token_counts
from raymia.spec import CorpusSpec, ModelSpec
from raymia.util.errors import InputError, RaymiaError

TEXTS = passages(5)


@pytest.fixture
def store(tmp_path):
    return EvidenceStore(str(tmp_path / "store"))


def corpus(tmp_path, texts=TEXTS):
    return CorpusSpec(files=[write_jsonl(tmp_path / "corpus.jsonl", texts)])


def checkpoint(path, **settings):
    return resolve_causal_lm(ModelSpec(model=str(path), **settings), "target.model", on_gpu=False)


def test_every_occurrence_of_every_token_counts(tmp_path, store, tiny_gpt2):
    """Also the second one in a document."""
    found = token_counts(corpus(tmp_path), checkpoint(tiny_gpt2), store).counts
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    expected = Counter(i for t in TEXTS for i in tokenizer(t)["input_ids"])
    assert {i: int(n) for i, n in enumerate(found) if n} == expected
    assert max(expected.values()) > 1
    assert len(found) == len(tokenizer)


def test_counts_are_taken_once_and_again_for_another_tokenizer(
    tmp_path, store, tiny_gpt2, monkeypatch
):
    other = tmp_path / "other"
    shutil.copytree(tiny_gpt2, other)
    content = json.loads((other / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:100]
    (other / "tokenizer.json").write_text(json.dumps(content))
    spec, first = corpus(tmp_path), checkpoint(tiny_gpt2)
    before = token_counts(spec, first, store).counts
    after = token_counts(spec, checkpoint(other), store).counts
    assert after.sum() > before.sum(), "fewer merges, more tokens"
    monkeypatch.setattr(raymia.prepare.corpus, "_count", None)
    np.testing.assert_array_equal(token_counts(spec, first, store).counts, before)


def test_whatever_may_change_the_tokens_has_counts_of_its_own(tmp_path, tiny_gpt2):
    """Code of a tokenizer, whether it may run, and the config that says which class is made."""
    spec, other = corpus(tmp_path), tmp_path / "other"
    shutil.copytree(tiny_gpt2, other)
    names = [counts_file(spec, checkpoint(other))]
    names.append(counts_file(spec, checkpoint(other, trust_remote_code=True)))
    for content in ("class T: ...", "class T: mended = True"):
        (other / "tokenization_t.py").write_text(content)
        names.append(counts_file(spec, checkpoint(other)))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"tokenizer_class": "GPT2Tokenizer"}))
    names.append(counts_file(spec, checkpoint(other)))
    assert len({*names}) == len(names)


def test_other_texts_are_counted_anew(tmp_path, store, tiny_gpt2):
    first = token_counts(corpus(tmp_path), checkpoint(tiny_gpt2), store).counts
    second = token_counts(corpus(tmp_path, TEXTS[:2]), checkpoint(tiny_gpt2), store).counts
    assert second.sum() < first.sum()


def test_rows_that_are_no_texts_are_left_out(tmp_path, store, tiny_gpt2):
    plain = token_counts(corpus(tmp_path), checkpoint(tiny_gpt2), store).counts
    mixed = token_counts(corpus(tmp_path, [None, *TEXTS, " ", 7]), checkpoint(tiny_gpt2), store)
    np.testing.assert_array_equal(mixed.counts, plain)


def test_corpus_without_a_text_is_refused(tmp_path, store, tiny_gpt2):
    with pytest.raises(InputError, match=r"corpus: not one text in"):
        token_counts(corpus(tmp_path, [" "]), checkpoint(tiny_gpt2), store)


def test_counts_that_were_changed_since_are_refused_with_what_to_do(tmp_path, store, tiny_gpt2):
    """A changed count would change scores, and nobody would see it."""
    spec, model = corpus(tmp_path), checkpoint(tiny_gpt2)
    counts = token_counts(spec, model, store).counts
    (file,) = (tmp_path / "store" / "corpus").iterdir()
    place = file.read_bytes().index(counts.tobytes()) + 8 * int(counts.argmax())
    changed = bytearray(file.read_bytes())
    changed[place + 1] ^= 1
    file.write_bytes(bytes(changed))
    with pytest.raises(RaymiaError, match=rf"{file.name}: damaged file .* delete it"):
        token_counts(spec, model, store)
    file.unlink()
    np.testing.assert_array_equal(token_counts(spec, model, store).counts, counts)


def test_counts_of_an_earlier_version_are_read_as_they_are(tmp_path, store, tiny_gpt2):
    spec, model = corpus(tmp_path), checkpoint(tiny_gpt2)
    counts = token_counts(spec, model, store).counts
    (file,) = (tmp_path / "store" / "corpus").iterdir()
    np.save(file, counts + 1)
    np.testing.assert_array_equal(token_counts(spec, model, store).counts, counts + 1)
    assert store.unproven == {f"corpus/{file.name}"}
