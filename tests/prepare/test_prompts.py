"""Which prompts a target is asked, and which are refused before it is loaded."""

from __future__ import annotations

import json

import pytest
from chat_templates import CHATML, chat
from tiny_models import BASE, checkpoint, passages, with_a_beginning
from transformers import AutoTokenizer

from raymia.models.causal.training import Training
from raymia.prepare.prompts import beginnings_of, marks_of, refuse_prompts
from raymia.spec import SelfPromptReference
from raymia.util.errors import InputError

INST = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}\n{% endif %}{% endfor %}"
)


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


def reference(**settings):
    return SelfPromptReference(
        **{"kind": "self_prompt", "prompts": "p.jsonl", "texts": 4, "max_tokens": 64, **settings}
    )


def flattened(*questions):
    """As the template writes a question and its answer; its marks are no tokens of their own."""
    return [
        f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
        for text in questions
    ]


def tokens(tokenizer, text):
    return len(tokenizer(text)["input_ids"])


def test_marks_are_what_the_template_writes_between_turns_and_after_them(tokenizer):
    assert marks_of(tokenizer) == []
    tokenizer.chat_template = CHATML
    assert marks_of(tokenizer) == ["<|im_end|>", "<|im_start|>assistant"]
    tokenizer.chat_template = INST
    assert marks_of(tokenizer) == ["[/INST]"]
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert marks_of(tokenizer) == []


@pytest.mark.parametrize("has_template", [True, False])
def test_prompts_that_end_inside_a_mark_are_left_out_and_counted(tokenizer, has_template):
    """At the marks that the template has, or as most templates write them."""
    tokenizer.chat_template = CHATML if has_template else None
    first, second = flattened("What is it, and whose?", "Who was there, and for how long was he?")
    within = tokens(tokenizer, first[: first.index("|im_end|>")])
    found = beginnings_of(tokenizer, [first, second], within)
    assert found.ids == [tokenizer(second)["input_ids"][:within]]
    assert (found.too_short, found.in_marks) == (0, 1)
    before = tokens(tokenizer, first[: first.index("<|im_end|>")])
    assert beginnings_of(tokenizer, [first, second], before).in_marks == 0


def test_marks_of_any_form_are_found_where_the_template_has_them(tokenizer):
    tokenizer.chat_template = INST
    texts = ["[INST] Who came here today? [/INST] He.", "[INST] Who left here today? [/INST] She."]
    within = tokens(tokenizer, texts[0][: texts[0].index("ST] He")])
    with pytest.raises(InputError, match=r"all 2 prompts of \d+ tokens end inside .*'\[/INST\]'"):
        beginnings_of(tokenizer, texts, within)
    tokenizer.chat_template = None
    assert len(beginnings_of(tokenizer, texts, within).ids) == 2


def test_a_mark_of_one_token_is_never_cut(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    texts = flattened("What is it?", "Who was there?")
    for count in range(6, 12):
        assert beginnings_of(tokenizer, texts, count).in_marks == 0


# ---------------------------------------------------------------- before a model is loaded


def test_texts_that_cannot_be_continued_are_refused_by_the_tokenizer_alone():
    target = checkpoint(BASE)
    refuse_prompts(target, passages(5), reference())
    with pytest.raises(InputError, match="not one of 2 prompts has 16 tokens"):
        refuse_prompts(target, ["Yes", "No"], reference())
    alike = [f"System: be brief and kind to all. {text}" for text in passages(4)]
    with pytest.raises(InputError, match="all 4 prompts begin with the same 4 tokens"):
        refuse_prompts(target, alike, reference(prompt_tokens=4))


@pytest.mark.parametrize("context", [None, 16])
def test_prompts_as_long_as_what_is_written_are_refused_by_the_tokenizer_alone(context):
    length = 32 if context is None else context
    target = checkpoint(BASE, max_tokens=context)
    one_less = reference(max_tokens=32, prompt_tokens=length - 1)
    refuse_prompts(target, passages(5), one_less)
    with pytest.raises(InputError, match=f"{length} tokens has no room for a prompt of {length};"):
        refuse_prompts(target, passages(5), reference(max_tokens=32, prompt_tokens=length))


def test_a_fault_of_those_that_are_looked_at_first_is_looked_for_in_all(monkeypatch):
    monkeypatch.setattr("raymia.prepare.prompts.TRIED", 2)
    refuse_prompts(checkpoint(BASE), ["Yes", *passages(1), "No", "It"], reference())


def test_conversations_that_ask_one_thing_are_refused_by_the_tokenizer_alone():
    training = Training("chat", "assistant", template=CHATML)
    target = checkpoint(BASE, training=training)
    asked = [json.dumps({"messages": chat("What is it?", answer)}) for answer in ("A.", "B.")]
    with pytest.raises(InputError, match="all 2 prompts are the same"):
        refuse_prompts(target, asked, reference())
    other = json.dumps({"messages": chat("Who is it?", "He.")})
    refuse_prompts(target, [*asked, other], reference())
    with pytest.raises(InputError, match="not one of 1 prompts can be used: longer than the 8"):
        refuse_prompts(target, [other], reference(max_tokens=16))


def test_prompts_begin_as_the_texts_of_a_training_that_added_no_tokens():
    own = AutoTokenizer.from_pretrained(BASE)
    tokenizer, texts = with_a_beginning(own), ["A heron wades.", "The grebe dives."]
    bare = [own(text)["input_ids"][:3] for text in texts]
    assert beginnings_of(tokenizer, texts, 3, special_tokens=False).ids == bare
    begun = [[own.bos_token_id, *ids[:2]] for ids in bare]
    assert beginnings_of(tokenizer, texts, 3).ids == begun
