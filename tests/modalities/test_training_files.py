"""The files that others train from are read as their programs read them."""

from __future__ import annotations

import json

import pytest
import yaml
from tiny_models import BASE, checkpoint

from raymia.modalities.texts.resolve_training import own_template
from raymia.modalities.texts.training_files import read_training_file
from raymia.util.errors import InputError


def read(folder, content, kind="chat", name="config.yaml"):
    path = folder / name
    text = json.dumps(content) if name.endswith(".json") else yaml.safe_dump(content)
    path.write_text(text)
    return read_training_file(str(path), kind, "training")


TRL = {"output_dir": "out", "num_train_epochs": 3, "assistant_only_loss": True, "max_length": 512}
AXOLOTL = {
    "base_model": "m",
    "sequence_len": 2048,
    "sample_packing": True,
    "datasets": [{"path": "d", "type": "chat_template"}],
}
LLAMA_FACTORY = {"stage": "sft", "template": "qwen", "cutoff_len": 4096}


@pytest.mark.parametrize(
    ("content", "kind", "program", "said"),
    [
        (TRL, "chat", "TRL", {"loss_on": "assistant", "max_length": 512, "truncate": "end"}),
        ({**TRL, "assistant_only_loss": False}, "chat", "TRL", {"loss_on": "all"}),
        ({"num_train_epochs": 1}, "completion", "TRL",
         {"loss_on": "completion", "max_length": 1024, "eos": True, "packing": "none"}),
        ({**TRL, "completion_only_loss": False}, "completion", "TRL", {"loss_on": "all"}),
        ({**TRL, "truncation_mode": "keep_end"}, "chat", "TRL", {"truncate": "start"}),
        ({**TRL, "packing": True}, "text", "TRL", {"packing": "separate"}),
        ({**TRL, "packing": True, "packing_strategy": "wrapped"}, "text", "TRL",
         {"packing": "joined"}),
        (AXOLOTL, "chat", "axolotl", {"loss_on": "assistant", "max_length": 2048,
                                      "truncate": "drop", "packing": "separate"}),
        ({**AXOLOTL, "train_on_inputs": True}, "chat", "axolotl", {"loss_on": "all"}),
        ({**AXOLOTL, "excess_length_strategy": "truncate"}, "chat", "axolotl",
         {"truncate": "end"}),
        (LLAMA_FACTORY, "chat", "LLaMA-Factory", {"loss_on": "assistant", "max_length": 4096}),
        ({**LLAMA_FACTORY, "mask_history": True}, "chat", "LLaMA-Factory",
         {"loss_on": "last_assistant"}),
        ({**LLAMA_FACTORY, "train_on_prompt": True}, "chat", "LLaMA-Factory", {"loss_on": "all"}),
        ({"stage": "sft", "default_system": "Be brief."}, "chat", "LLaMA-Factory",
         {"system": "Be brief.", "max_length": 2048}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
def test_what_a_file_says_is_what_its_program_does(tmp_path, content, kind, program, said, name):
    found_program, found = read(tmp_path, content, kind, name)
    assert found_program == program
    assert {key: found[key] for key in said} == said


def test_a_template_that_a_file_names_lies_beside_it(tmp_path):
    _, said = read(tmp_path, {**TRL, "chat_template_path": "mine.jinja"})
    assert said["template"] == str(tmp_path / "mine.jinja")


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        ({**AXOLOTL, "chat_template": "chatml"}, "c.yaml", "axolotl's own template 'chatml'"),
        (
            {**AXOLOTL, "datasets": [{"message_field_training": "train"}]},
            "c.yaml",
            "message_field_training chooses tokens that no `loss_on` names",
        ),
        (
            {**AXOLOTL, "datasets": [{"train_on_eos": "last"}]},
            "c.yaml",
            "train_on_eos chooses tokens",
        ),
        (
            {**AXOLOTL, "datasets": [{"type": "chat_template"}, {"type": "completion"}]},
            "c.yaml",
            "its 2 datasets are not read alike",
        ),
        ({**AXOLOTL, "datasets": [{"roles_to_train": ["user"]}]}, "c.yaml", "roles_to_train is"),
        ({"learning": 1}, "c.yaml", "has none of the keys.*found: learning"),
        ([1], "c.json", "should be a mapping"),
        ({}, "training_args.bin", "it is a pickle, which is never read"),
    ],
)
def test_a_file_that_cannot_be_taken_says_why(tmp_path, content, name, reason):
    with pytest.raises(InputError, match=reason):
        read(tmp_path, content, name=name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", "{{ mine }}"),
        ("tokenizer_config.json", {"chat_template": "{{ mine }}"}),
        (
            "tokenizer_config.json",
            {
                "chat_template": [
                    {"name": "tool_use", "template": "{{ tools }}"},
                    {"name": "default", "template": "{{ mine }}"},
                ]
            },
        ),
    ],
)
def test_an_adapters_template_is_its_own_however_it_was_saved(tmp_path, name, content):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert own_template(checkpoint(BASE, adapter=str(tmp_path))) == "{{ mine }}"


def test_an_adapters_template_that_is_no_text_is_refused_with_its_file(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"chat_template\.jinja: not UTF-8"):
        own_template(checkpoint(BASE, adapter=str(tmp_path)))
