"""The file of another's training is read or refused with its name, whatever is in it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raymia.modalities.texts.resolve_training import _put_together
from raymia.modalities.texts.training_files import KINDS, read_training_file
from raymia.util.errors import InputError

FORMATS = ("text", "chat", "completion", "tokens", "preference", "unpaired")


def read(path, text, kind="chat"):
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return read_training_file(str(path), kind, "training")


@pytest.mark.parametrize(
    ("text", "suffix", "says"),
    [
        ("[" * 100_000, "json", "nested more than 100 levels"),
        ("a: " + "[" * 1_000 + "]" * 1_000, "yaml", "nested too deeply"),
        ('{"max_length": ' + "7" * 5_000 + "}", "json", "not valid JSON: Exceeds the limit"),
        ("max_length: " + "7" * 5_000, "yaml", "not valid YAML: Exceeds the limit"),
        ("a: !!timestamp 2024-13-45", "yaml", "not valid YAML"),
        ("chat_template_kwargs: !!set {a}\nmax_length: 8", "yaml", "not valid YAML"),
        ("\udcff", "yaml", "not UTF-8 text"),
        ("max_length: 8\nmax_length: 9", "yaml", "the key 'max_length' is written twice"),
        ("max_length: many", "yaml", "from 1 on, but is 'many'"),
        ("max_length: true", "yaml", "max_length should be a whole number from 1 on, but is True"),
        ("cutoff_len: 0", "yaml", "cutoff_len should be a whole number from 1 on, but is 0"),
        ("num_train_epochs: 1\npacking: 'false'", "yaml",
         "packing should be true or false, but is 'false'"),
        ("max_length: 8\ntruncation_mode: [end]", "yaml", "truncation_mode should be a text"),
        ("max_length: 8\nchat_template_kwargs: [a]", "yaml", "should be an object with keys"),
        ("sequence_len: 8\ndatasets: [{roles_to_train: [[a]]}]", "yaml",
         "roles_to_train should be a list of roles"),
    ],
    ids=lambda value: value[-24:],
)  # fmt: skip
def test_what_cannot_be_taken_is_refused_with_the_key_and_the_file(tmp_path, text, suffix, says):
    path = tmp_path / f"config.{suffix}"
    with pytest.raises(InputError, match=f"(?s)^{re.escape(f'training.config: {path}')}") as caught:
        read(path, text)
    assert says in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
IN_DATASETS = ("type", "chat_template", "roles_to_train", "train_on_eos", "message_field_training")
DATASETS = VALUES | st.lists(st.dictionaries(st.sampled_from(IN_DATASETS), VALUES), max_size=2)
FILES = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(KINDS, VALUES), "num_train_epochs": VALUES, "datasets": DATASETS}
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILES, st.sampled_from(FORMATS), st.sampled_from(("json", "yaml")))
def test_any_file_is_read_or_refused(tmp_path, content, kind, suffix):
    path = tmp_path / f"config.{suffix}"
    try:
        _, said = read(path, json.dumps(content), kind)
        _put_together(said, kind, "chosen", conversations=kind == "chat")
    except InputError as error:
        assert str(error).startswith(f"training.config: {path}")  # noqa: PT017
