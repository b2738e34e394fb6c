"""The files that others train from are read as their programs read them."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from chat_templates import CHATML, MARKED, SYSTEM_APART, chat
from tiny_models import BASE, beginning_model, checkpoint
from transformers import AutoTokenizer

from raymia.modalities.texts.resolve_training import begins_twice, resolve_training
from raymia.modalities.texts.templates import own_template, template_of
from raymia.modalities.texts.training_files import STRATEGIES, read_training_file
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training
from raymia.spec import TrainingSpec
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
COMPLETION = {**AXOLOTL, "sequence_len": 16, "datasets": [{"path": "d", "type": "completion"}]}
LLAMA_FACTORY = {"stage": "sft", "template": "qwen", "cutoff_len": 4096}


@pytest.mark.parametrize(
    ("content", "kind", "program", "said"),
    [
        (TRL, "chat", "TRL", {"loss_on": "assistant", "max_length": 512, "truncate": "end"}),
        ({**TRL, "assistant_only_loss": False}, "chat", "TRL", {"loss_on": "all"}),
        ({"num_train_epochs": 1}, "completion", "TRL",
         {"loss_on": "completion", "max_length": 1024, "eos": True, "packing": "none"}),
        ({"completion_only_loss": False}, "completion", "TRL", {"loss_on": "all"}),
        ({**TRL, "truncation_mode": "keep_end"}, "chat", "TRL", {"truncate": "start"}),
        ({**TRL, "packing": True}, "text", "TRL", {"packing": "separate"}),
        ({**TRL, "packing": True, "packing_strategy": "bfd_split"}, "text", "TRL",
         {"packing": "separate", "max_length": 512, "truncate": "end"}),
        ({**TRL, "packing": True, "packing_strategy": "wrapped"}, "text", "TRL",
         {"packing": "joined"}),
        ({**TRL, "packing": True, "packing_strategy": "bfd-requeue"}, "text", "TRL",
         {"packing": "separate", "max_length": 512, "truncate": "end"}),
        ({**TRL, "packing": True, "truncation_mode": "keep_end"}, "text", "TRL",
         {"packing": "separate", "truncate": "end"}),
        ({**TRL, "packing": None, "truncation_mode": None}, "text", "TRL",
         {"packing": "none", "truncate": "end"}),
        ({"max_seq_length": 512, "packing": True}, "text", "TRL",
         {"max_length": 512, "packing": "joined"}),
        ({**TRL, "dataset_kwargs": {"skip_prepare_dataset": True}}, "tokens", "TRL",
         {"max_length": None, "packing": "none"}),
        ({**TRL, "dataset_kwargs": {"skip_prepare_dataset": False}}, "tokens", "TRL",
         {"max_length": 512}),
        ({**TRL, "dataset_kwargs": None}, "tokens", "TRL", {"max_length": 512}),
        ({**TRL, "chat_template_path": "org/lm"}, "chat", "TRL", {"template": None}),
        ({**TRL, "eos_token": "<end>"}, "text", "TRL", {"eos_token": "<end>"}),
        ({**TRL, "max_prompt_length": 64}, "preference", "TRL", {"max_prompt_length": 64}),
        ({"logging_nan_inf_filter": True, "num_train_epochs": 1}, "chat", "", {"loss_on": None}),
        ({"logging_nan_inf_filter": True, "max_length": 64}, "chat", "TRL", {"max_length": 64}),
        ({"max_seq_length": 512}, "completion", "TRL", {"loss_on": None, "special_tokens": None}),
        ({"max_seq_length": 512, "dataset_kwargs": {"add_special_tokens": False}}, "text", "TRL",
         {"special_tokens": False}),
        ({**AXOLOTL, "datasets": [{"roles_to_train": "assistant"}]}, "chat", "axolotl",
         {"loss_on": "assistant"}),
        (AXOLOTL, "chat", "axolotl", {"loss_on": "assistant", "max_length": 2048,
                                      "truncate": "drop", "packing": "separate"}),
        ({**AXOLOTL, "train_on_inputs": True}, "text", "axolotl", {"loss_on": "all"}),
        ({**AXOLOTL, "excess_length_strategy": "truncate"}, "chat", "axolotl",
         {"truncate": "end"}),
        ({**AXOLOTL, "excess_length_strategy": None}, "chat", "axolotl", {"truncate": "drop"}),
        ({**AXOLOTL, "excess_length_strategy": "raise"}, "chat", "axolotl", {"truncate": "drop"}),
        ({"micro_batch_size": 1}, "chat", "axolotl", {"max_length": 512, "truncate": "drop"}),
        (LLAMA_FACTORY, "chat", "LLaMA-Factory", {"loss_on": "assistant", "max_length": 4096}),
        ({**LLAMA_FACTORY, "mask_history": True}, "chat", "LLaMA-Factory",
         {"loss_on": "last_assistant"}),
        ({**LLAMA_FACTORY, "train_on_prompt": True}, "chat", "LLaMA-Factory", {"loss_on": "all"}),
        ({**LLAMA_FACTORY, "neat_packing": True}, "chat", "LLaMA-Factory",
         {"packing": "separate", "max_length": 4096}),
        ({**LLAMA_FACTORY, "packing": True}, "preference", "LLaMA-Factory", {"packing": "none"}),
        ({"stage": "pt"}, "text", "LLaMA-Factory", {"packing": "joined", "special_tokens": False}),
        ({"stage": "pt", "packing": None}, "text", "LLaMA-Factory", {"packing": "joined"}),
        ({"stage": "pt", "packing": False}, "text", "LLaMA-Factory",
         {"packing": "none", "max_length": 2048, "truncate": "end", "special_tokens": None}),
        ({"finetuning_type": "lora", "num_train_epochs": 3}, "chat", "LLaMA-Factory",
         {"loss_on": "assistant"}),
        ({"stage": "sft", "default_system": "Be brief."}, "chat", "LLaMA-Factory",
         {"system": "Be brief.", "max_length": 2048}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
def test_what_a_file_says_is_what_its_program_does(tmp_path, content, kind, program, said, name):
    found_program, found = read(tmp_path, content, kind, name)
    assert found_program == program
    assert {key: found.get(key) for key in said} == said


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


def test_turns_of_prompts_and_completions_that_were_trained_alike_are_refused(tmp_path):
    with pytest.raises(InputError, match="as one conversation, under `messages`"):
        read(tmp_path, {**TRL, "completion_only_loss": False}, "completion")


def resolved(folder, content, kind, payload, **own):
    config = folder / "config.json"
    config.write_text(json.dumps(content))
    spec = TrainingSpec(config=str(config), **own)
    return resolve_training(
        spec, kind, "chosen", checkpoint(BASE), [json.dumps(payload)], "training"
    )


CHAT = {"messages": chat("What is a heron?", "A bird that wades.")}
PAIR = {"prompt": "What is a heron?", "completion": " A bird that wades."}


@pytest.mark.parametrize(
    ("changed", "own", "sentence"),
    [
        ({"chat_template": "chatml"}, {"template": CHATML}, "axolotl's own template 'chatml'"),
        ({"datasets": [{"roles_to_train": ["user"]}]}, {"template": CHATML, "loss_on": "all"},
         "roles_to_train is"),
        ({"train_on_inputs": True}, {"template": CHATML, "loss_on": "all"},
         "each turn's words and the token that ends them carried a loss"),
        ({"datasets": [{"roles_to_train": ["user"], "chat_template": "chatml"}]},
         {"template": CHATML, "loss_on": "assistant"}, "axolotl's own template 'chatml'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_of_axolotls_file_may_be_said_beside_it(
    tmp_path, changed, own, sentence
):
    content = {**AXOLOTL, **changed}
    with pytest.raises(InputError, match=sentence):
        resolved(tmp_path, content, "chat", CHAT)
    for lacking in own:
        if lacking == "template" and "chatml" not in str(changed):
            continue
        others = {key: value for key, value in own.items() if key != lacking}
        with pytest.raises(InputError, match=rf"`{lacking}` beside `config`"):
            resolved(tmp_path, content, "chat", CHAT, **others)
    found = resolved(tmp_path, content, "chat", CHAT, **own).training
    assert found.template == CHATML
    assert found.loss_on == own.get("loss_on", "assistant")
    assert (found.max_length, found.truncate) == (2048, "drop")


def test_a_template_by_which_trl_cannot_have_found_the_turns_is_refused(tmp_path):
    without, marked = tmp_path / "without.jinja", tmp_path / "marked.jinja"
    without.write_text(CHATML)
    marked.write_text(MARKED)
    with pytest.raises(InputError, match="TRL trained with one of its own"):
        resolved(tmp_path, TRL, "chat", CHAT, template=str(without))
    assert resolved(tmp_path, TRL, "chat", CHAT, template=str(marked)).training.template == MARKED
    said = resolved(tmp_path, TRL, "chat", CHAT, template=str(without), loss_on="assistant")
    assert said.training.loss_on == "assistant"
    everything = {**TRL, "assistant_only_loss": False}
    assert resolved(tmp_path, everything, "chat", CHAT, template=str(without)) is not None


def test_a_tokenizer_that_ends_texts_otherwise_than_the_training_is_refused(tmp_path):
    own = AutoTokenizer.from_pretrained(BASE)
    other = next(token for token in own.get_vocab() if token != own.eos_token)
    with pytest.raises(InputError, match="give the tokenizer that the training saved"):
        resolved(tmp_path, {**TRL, "eos_token": other}, "completion", PAIR)
    for token in (own.eos_token, "<EOS_TOKEN>", None):
        assert resolved(tmp_path, {**TRL, "eos_token": token}, "completion", PAIR).training.eos


def test_what_a_file_says_and_raymia_does_not_do_is_assumed_to_change_nothing(tmp_path):
    pair = {"prompt": "What is a heron?", "chosen": " A bird.", "rejected": " A fish."}
    found = resolved(tmp_path, {**TRL, "max_prompt_length": 64}, "preference", pair)
    assert "prompts of more than 64 tokens were cut by themselves" in found.assumed["prompt"]


@pytest.mark.parametrize(
    ("content", "kind", "payload", "key", "sentence"),
    [
        ({**TRL, "eos_token": "<EOS_TOKEN>"}, "completion", PAIR, "eos", "hides which token"),
        ({**TRL, "packing": True, "packing_strategy": "bfd_split"}, "text", "A heron is a bird.",
         "packing", "beyond max_length was trained as rows of their own"),
        ({**TRL, "packing": True, "packing_strategy": "bfd-requeue"}, "text", "A heron is a bird.",
         "packing", "beyond max_length was trained as rows of their own"),
        ({"micro_batch_size": 1, "train_on_inputs": True}, "text", "A heron is a bird.",
         "max_length", "axolotl's default of 512 held"),
        ({"completion_only_loss": False, "max_length": 64}, "tokens", {"input_ids": [1, 2]},
         "loss_on", "say `loss_on: all` if the records have that column"),
        (AXOLOTL, "chat", CHAT, "loss_on", "an empty think block, or an end that is not one"),
        (COMPLETION, "text", "A heron is a bird.", "packing", "began without the text before it"),
        ({**LLAMA_FACTORY, "packing": True}, "chat", CHAT, "packing",
         "predicted after those before it in its row"),
        ({"stage": "pt", "packing": False}, "text", "A heron is a bird.", "special_tokens",
         "say `special_tokens: false` where texts began without one"),
        (LLAMA_FACTORY, "chat", CHAT, "truncate", "keeps its last answer; raymia cuts off the end"),
    ],
)  # fmt: skip
def test_what_a_file_leaves_open_is_said_until_it_is_told(
    tmp_path, content, kind, payload, key, sentence
):
    own = {"template": CHATML} if kind == "chat" else {}
    found = resolved(tmp_path, content, kind, payload, **own)
    assert sentence in found.assumed[key]
    told = {"eos": True, "packing": "separate", "loss_on": "all", "max_length": 64,
            "truncate": "drop", "special_tokens": True}[key]  # fmt: skip
    told_so = resolved(tmp_path, content, kind, payload, **own, **{key: told})
    assert sentence not in str(told_so.assumed)


def test_texts_that_axolotl_splits_into_rows_are_scored_whole(tmp_path):
    text = "A heron is a bird that wades. " * 20
    training = resolved(tmp_path, COMPLETION, "text", text).training
    rendered = TrainedReader(AutoTokenizer.from_pretrained(BASE), training).read([text])[0]
    assert rendered.error is None
    assert len(rendered.ids) > 16


@pytest.mark.parametrize("kind", ["text", "completion"])
def test_a_text_that_the_tokenizer_would_begin_twice_is_told_of(tmp_path, kind):
    model = checkpoint(beginning_model(tmp_path / "model"))
    begin = AutoTokenizer.from_pretrained(BASE).bos_token

    def told(text, training):
        pair = {"prompt": text, "completion": " A bird."}
        return begins_twice(training, model, [text if kind == "text" else json.dumps(pair)])

    for training in [Training(kind, "all"), *([None] if kind == "text" else [])]:
        assert "say `special_tokens: false`" in told(f"{begin}What is a heron?", training)
        assert told("What is a heron?", training) is None
    bare = Training(kind, "all", special_tokens=False)
    assert told(f"{begin}What is a heron?", bare) is None


@pytest.mark.parametrize(
    ("content", "named"),
    [({**TRL, "load_in_4bit": True}, "4 bits"), ({**TRL, "load_in_8bit": True}, "8 bits"),
     ({"sequence_len": 64, "adapter": "qlora"}, "4 bits"),
     ({**LLAMA_FACTORY, "quantization_bit": 4}, "4 bits"),
     ({**LLAMA_FACTORY, "quantization_bit": 3}, "3 bits"),
     ({**TRL, "load_in_4bit": False}, None), ({"sequence_len": 64, "adapter": "lora"}, None)],
)  # fmt: skip
def test_an_adapter_of_a_quantized_base_is_said_to_be_scored_on_a_whole_one(
    tmp_path, content, named
):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(content))

    def said(**changes):
        where = ("text", "chosen", checkpoint(BASE, **changes), ["A heron."], "training")
        return resolve_training(TrainingSpec(config=str(config)), *where).assumed

    adapter = str(tmp_path)
    line = said(adapter=adapter).get("quantization", "")
    assert (f"on a base in {named}, and is scored on one" in line) == (named is not None)
    assert ("say `quantization: nf4`" in line) == (named == "4 bits")
    assert "quantization" not in said(adapter=adapter, quantization="nf4")
    assert "quantization" not in said()


def test_conversations_that_llama_factory_packs_are_cut_one_by_one(tmp_path):
    content = {**LLAMA_FACTORY, "cutoff_len": 80, "packing": True}
    long = {"messages": chat("What is a heron?", "A bird that wades. " * 20)}
    training = resolved(tmp_path, content, "chat", long, template=CHATML).training
    reader = TrainedReader(AutoTokenizer.from_pretrained(BASE), training)
    assert len(reader.read([json.dumps(long)])[0].ids) == 80


def test_what_a_file_was_read_as_is_said(tmp_path):
    content = {**TRL, "assistant_only_loss": False}
    found = resolved(tmp_path, content, "chat", CHAT, template=CHATML, max_length=64)
    assert found.assumed["config"] == (
        "training: config.json is read as a file of TRL's: `loss_on: all`, `truncate: end`, "
        "`eos: true`, `packing: none`; what it does not say is as TRL does by default"
    )
    trainers = {"logging_nan_inf_filter": True}
    assert "says nothing" in resolved(tmp_path, trainers, "completion", PAIR).assumed["config"]


@pytest.mark.parametrize(
    ("changed", "own", "sentence"),
    [
        ({"packing": True, "packing_strategy": "ffd"}, {"packing": "separate"},
         "packing_strategy is 'ffd', and raymia knows bfd, bfd_split, bfd-requeue, wrapped"),
        ({"truncation_mode": "middle"}, {"truncate": "start"},
         "truncation_mode is 'middle', and raymia knows keep_start, keep_end"),
        ({"dataset_kwargs": {"skip_prepare_dataset": True}}, {"max_length": 64},
         "with skip_prepare_dataset the training was given tokens; give these as records, or"),
    ],
)  # fmt: skip
def test_a_way_of_trls_that_is_not_known_is_refused_until_it_is_told(
    tmp_path, changed, own, sentence
):
    with pytest.raises(InputError, match=f"{sentence}.* say `{next(iter(own))}` beside `config`"):
        resolved(tmp_path, {**TRL, **changed}, "text", "A heron is a bird.")
    found = resolved(tmp_path, {**TRL, **changed}, "text", "A heron is a bird.", **own).training
    assert {key: getattr(found, key) for key in own} == own


@pytest.mark.long
def test_names_of_ways_of_packing_are_trls():
    """Those that the installed TRL has, and what it makes of a record that is too long."""
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import SFTConfig, pack_dataset

    field = SFTConfig.__dataclass_fields__["packing_strategy"]
    assert {*field.metadata["choices"]} <= {*STRATEGIES}
    rows = Dataset.from_dict({"input_ids": [[1, 2, 3, 4, 5]]})
    assert pack_dataset(rows, 3, "bfd")[:]["input_ids"] == [[1, 2, 3]]


@pytest.mark.long
def test_the_dump_of_trls_arguments_hides_the_token_that_ends_texts(tmp_path):
    trl = pytest.importorskip("trl")
    arguments = trl.SFTConfig(output_dir=str(tmp_path), eos_token="</s>", bf16=False, use_cpu=True)
    found = resolved(tmp_path, json.loads(arguments.to_json_string()), "completion", PAIR)
    assert "hides which token" in found.assumed["eos"]


def test_a_training_on_texts_as_they_are_says_nothing_of_conversations(tmp_path):
    with pytest.raises(InputError, match="`stage: pt` trains on texts as they are"):
        resolved(tmp_path, {**LLAMA_FACTORY, "stage": "pt"}, "chat", CHAT, template=CHATML)


def test_an_end_of_text_that_nobody_spoke_of_is_assumed():
    def assumed(**said):
        spec = TrainingSpec(max_length=64, loss_on="completion", **said)
        where = (spec, "completion", "chosen", checkpoint(BASE), [json.dumps(PAIR)], "training")
        return set(resolve_training(*where).assumed)

    assert (assumed(), assumed(eos=True), assumed(eos=False)) == ({"eos"}, set(), set())


def test_what_a_loss_may_have_been_on_is_said_of_what_the_records_are():
    as_chat = {"prompt": chat("What is a heron?"), "completion": chat("", "A bird.")[1:]}
    said = []
    for payload in (PAIR, as_chat):
        where = ("completion", "chosen", checkpoint(BASE), [json.dumps(payload)], "training")
        template = CHATML if payload is as_chat else None
        found = resolve_training(TrainingSpec(template=template), *where)
        said.append(found.assumed["loss_on"].partition(" where it was on ")[2])
    assert said == [
        "all tokens",
        "the assistant's turns alone or its last turn alone or all tokens",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", "{{ mine }}"),
        ("tokenizer_config.json", {"chat_template": "{{ mine }}"}),
        (
            "tokenizer_config.json",
            {"chat_template": [{"name": "default", "template": "{{ mine }}"}]},
        ),
    ],
)
def test_an_adapters_template_is_its_own_however_it_was_saved(tmp_path, name, content):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert own_template(checkpoint(BASE, adapter=str(tmp_path))) == "{{ mine }}"


def test_records_with_tools_are_written_by_the_template_for_tools_where_there_is_one(tmp_path):
    both = {
        "default": f"{CHATML}\n",
        "tool_use": f"\n{{{{ tools | map(attribute='name') | join }}}} has tools. {CHATML}\n",
    }
    in_settings, in_files = tmp_path / "settings", tmp_path / "files"
    (in_files / "additional_chat_templates").mkdir(parents=True)
    in_settings.mkdir()
    named = [{"name": name, "template": template} for name, template in both.items()]
    (in_settings / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    (in_files / "chat_template.jinja").write_text(both["default"])
    (in_files / "additional_chat_templates" / "tool_use.jinja").write_text(both["tool_use"])
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for folder in (in_settings, in_files):
        own = own_template(checkpoint(BASE, adapter=str(folder)))
        for tools in (None, [], [{"name": "a compass"}]):
            tokenizer.chat_template = both
            by_transformers = tokenizer.apply_chat_template(
                CHAT["messages"], tools=tools, tokenize=False
            )
            tokenizer.chat_template = own
            assert by_transformers.startswith("\na compass") == bool(tools)
            assert by_transformers.startswith("\n") == (tools is not None)
            assert by_transformers == tokenizer.apply_chat_template(
                CHAT["messages"], tools=tools, tokenize=False
            )


TELLS_TOOLS = "{% if tools is not none %}Tools: {{ tools | length }}. {% endif %}" + CHATML


@pytest.mark.parametrize(
    ("content", "is_told"),
    [({**TRL, "assistant_only_loss": False}, True), (AXOLOTL, False), (LLAMA_FACTORY, False)],
)
def test_a_template_is_told_of_no_tools_where_its_training_told_it(tmp_path, content, is_told):
    record = {**CHAT, "tools": []}
    own = {"template": TELLS_TOOLS, "loss_on": "all"}
    training = resolved(tmp_path, content, "chat", record, **own).training
    reader = TrainedReader(AutoTokenizer.from_pretrained(BASE), training)
    payload = json.dumps(record)
    assert reader.read([payload])[0].error is None
    assert reader.turns(payload)[0].startswith("Tools: 0. ") == is_told


def test_only_a_training_that_left_out_empty_tools_has_another_key(tmp_path):
    def key(content):
        own = {"template": CHATML, "loss_on": "all", "max_length": 64, "truncate": "end"}
        return resolved(tmp_path, content, "chat", CHAT, **own).training.key_parts()

    without = dict(key(AXOLOTL))
    assert without.pop("leaves_out_empty_tools")
    assert key({**TRL, "assistant_only_loss": False}) == without


def test_an_adapters_template_that_is_no_text_is_refused_with_its_file(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"chat_template\.jinja: not UTF-8"):
        own_template(checkpoint(BASE, adapter=str(tmp_path)))


def test_a_row_that_held_several_texts_as_one_is_said_to_hide_what_stood_before():
    spec = TrainingSpec(packing="joined", max_length=64)
    where = ("text", "chosen", checkpoint(BASE), ["A heron is a bird."], "training")
    found = resolve_training(spec, *where)
    assert found.training.limit is None
    assert "predicted after another one, which is not known" in found.assumed["packing"]
    apart = resolve_training(TrainingSpec(packing="separate", max_length=64), *where)
    assert apart.training.limit == 64
    assert "packing" not in apart.assumed


# -------------------------------------------------------------------- templates


def test_the_template_of_the_base_is_taken_where_it_is_asked_for(tmp_path):
    for name, template in (("own", MARKED), ("base", CHATML)):
        shutil.copytree(BASE, tmp_path / name)
        (tmp_path / name / "chat_template.jinja").write_text(template)
    own, base = checkpoint(tmp_path / "own"), checkpoint(tmp_path / "base")
    assert template_of(None, own, base, "training") == MARKED
    assert template_of("base", own, base, "training") == CHATML
    with pytest.raises(InputError, match="that of the reference `base`, and there is none"):
        template_of("base", own, None, "training")
    with pytest.raises(InputError, match="has no chat template; name the one"):
        template_of("base", own, checkpoint(BASE), "training")


def tried(template, *contents, **said):
    payloads = [json.dumps({"messages": chat(*turns)}) for turns in contents]
    spec = TrainingSpec(template=template, **said)
    return resolve_training(spec, "chat", "chosen", checkpoint(BASE), payloads, "training")


HERON, GREBE = ("What is a heron?", "A bird that wades."), ("What is a grebe?", "A bird.")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.content }", "template: no valid Jinja: .* in line 1"),
        ("{% if true %}hello there{% endif %}", "all of 2 records that were tried are the same"),
        ("{{ range(99999) | random }} " + CHATML, "not write a record in the same way twice"),
    ],
)
def test_a_template_that_tells_no_records_apart_is_refused(template, reason):
    with pytest.raises(InputError, match=reason):
        tried(template, HERON, GREBE, loss_on="all")
    assert tried(CHATML, HERON, GREBE, loss_on="all") is not None


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_usual_role_that_a_template_passes_over_is_said(role):
    passes_over = CHATML.replace("{{ m.content }}", "{{ m.content if m.role != '" + role + "' }}")
    payloads = [json.dumps({"messages": [{"role": role, "content": "It is late."}, *chat(*turns)]})
                for turns in (HERON, GREBE)]  # fmt: skip
    where = ("chat", "chosen", checkpoint(BASE), payloads, "training")
    found = resolve_training(TrainingSpec(template=passes_over), *where)
    assert f"does not write turns of the role {role!r} as they stand" in found.assumed["roles"]
    assert "roles" not in resolve_training(TrainingSpec(template=CHATML), *where).assumed


@pytest.mark.parametrize("said", [{"template": CHATML}, {"system": "Be brief."}])
def test_what_no_template_writes_is_told_nothing_of_templates(said):
    (key,) = said
    for kind, payload in (("completion", json.dumps(PAIR)), ("text", "A heron is a bird.")):
        where = (kind, "chosen", checkpoint(BASE), [payload], "training")
        with pytest.raises(InputError, match=f"training.{key}: these records are texts"):
            resolve_training(TrainingSpec(**said), *where)


def test_an_argument_that_the_template_does_not_know_is_refused():
    thinks = "{% if enable_thinking %}<think>{% endif %}" + CHATML
    assert tried(thinks, HERON, template_arguments={"enable_thinking": True}) is not None
    with pytest.raises(InputError, match=r"template_arguments\.thinking_on: the template has no"):
        tried(thinks, HERON, template_arguments={"thinking_on": True})


def test_that_the_head_of_a_turn_is_scored_is_said():
    unasked = CHATML.partition("{% if add")[0]
    found = tried(unasked, HERON)
    assert "'<|im_start|>assistant', is scored with them" in found.assumed["template"]
    for template, said in ((CHATML, {}), (MARKED, {}), (unasked, {"loss_on": "all"}),
                           (SYSTEM_APART, {})):  # fmt: skip
        assert "template" not in tried(template, HERON, **said).assumed


def test_that_the_head_of_an_answer_to_a_tool_is_scored_is_said():
    """As where a template asks for an answer to the user alone."""
    asks_users = CHATML.replace(
        "{% if add_generation_prompt %}",
        "{% if add_generation_prompt and messages[-1].role != 'tool' %}",
    )
    call = {"type": "function", "function": {"name": "latin", "arguments": {"of": "heron"}}}
    turns = [
        {"role": "user", "content": "What is it in Latin?"},
        {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "ardea"},
        {"role": "assistant", "content": "A heron is an ardea."},
    ]  # fmt: skip

    def assumed(template):
        where = ("chat", "chosen", checkpoint(BASE), [json.dumps({"messages": turns})], "training")
        return resolve_training(TrainingSpec(template=template), *where).assumed

    assert "'<|im_start|>assistant', is scored with them" in assumed(asks_users)["template"]
    assert "template" not in assumed(CHATML)
    assert "template" not in tried(asks_users, HERON).assumed
