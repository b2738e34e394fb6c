"""What a LoRA says of itself is read, or refused with the file and the key."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from raymia.models.causal.adapters import switchable_method
from raymia.models.denoisers.lora_files import BY_PEFT, IN_HEADER, read_low_rank
from raymia.util.errors import InputError

WHERE = "targets[0].adapter"
HALVES = {
    "unet.mid.to_q.lora_A.weight": torch.zeros(2, 4),
    "unet.mid.to_q.lora_B.weight": torch.zeros(4, 2),
}


def with_header(folder, said):
    file = folder / "lora.safetensors"
    save_file(HALVES, file, metadata={IN_HEADER: said})
    return file


def by_peft(folder, **config):
    folder.mkdir(exist_ok=True)
    save_file({f"base_model.model.{n[5:]}": value for n, value in HALVES.items()}, folder / BY_PEFT)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder / BY_PEFT


def refusal(file):
    with pytest.raises(InputError) as caught:
        read_low_rank(file, WHERE)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{WHERE}: {file}")
    return problem


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("[" * 100_000, "nested more than 100 levels"),
        ("{", "not valid JSON"),
        ("[1]", "should hold an object, but holds [1]"),
        ('{"unet.r": ' + "7" * 5_000 + "}", "not valid JSON: Exceeds the limit"),
        ('{"unet.lora_alpha": "x"}', "lora_alpha should be a finite number, but is 'x'"),
        ('{"unet.lora_alpha": null}', "lora_alpha should be a finite number, but is null"),
        ('{"unet.lora_alpha": 1, "unet.alpha_pattern": [1]}', "alpha_pattern should be an object"),
        ('{"unet.lora_alpha": 1, "unet.alpha_pattern": {"(": 1}}', "alpha_pattern: '(': missing )"),
        ('{"unet.lora_alpha": 1, "unet.alpha_pattern": {"to_q": "x"}}', "to_q should be a finite"),
        ('{"unet.lora_alpha": 1, "unet.use_rslora": "no"}', "use_rslora should be true or false"),
    ],
    ids=lambda value: value[:40],
)
def test_a_header_that_cannot_be_taken_is_refused(tmp_path, said, says):
    assert says in refusal(with_header(tmp_path, said))


def test_a_config_beside_the_file_is_read_alike(tmp_path):
    said = refusal(by_peft(tmp_path / "lora", peft_type="LORA", lora_alpha=[1]))
    assert "lora_alpha should be a finite number, but is [1]" in said


def test_a_scale_of_no_number_or_of_many_is_refused(tmp_path):
    file = tmp_path / "lora.safetensors"
    for numbers in (0, 3):
        save_file({**HALVES, "unet.mid.to_q.alpha": torch.zeros(numbers)}, file)
        assert "unet.mid.to_q.alpha should be one number" in refusal(file)


@pytest.mark.parametrize("key", ["peft_type", "modules_to_save", "feedforward_modules"])
def test_an_adapter_of_texts_with_a_value_of_another_kind_is_refused(tmp_path, key):
    file = by_peft(tmp_path / "lora", **{"peft_type": "LORA", key: {"a": 1}})
    with pytest.raises(InputError, match=f"adapter_config.json: {key} should be a text"):
        switchable_method(str(file.parent))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=3,
)
KEYS = ("r", "lora_alpha", "alpha_pattern", "use_rslora", "peft_type", "init_lora_weights", "bias")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_config_is_read_or_refused(tmp_path, config):
    header = json.dumps({f"unet.{key}": value for key, value in config.items()})
    for file in (with_header(tmp_path, header), by_peft(tmp_path / "lora", **config)):
        try:
            read_low_rank(file, WHERE)
            if file.name == BY_PEFT:
                switchable_method(str(file.parent))
        except InputError as error:
            assert str(file.parent) in str(error)  # noqa: PT017


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from('{}[]",:1 ulora_.t')))
def test_any_text_in_a_header_is_read_or_refused(tmp_path, said):
    try:
        read_low_rank(with_header(tmp_path, said), WHERE)
    except InputError as error:
        assert IN_HEADER in str(error)  # noqa: PT017
