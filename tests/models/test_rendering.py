"""From a record to tokens and to those that carried a loss."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from chat_templates import (
    CHATML,
    DEFAULT_SYSTEM,
    ENDS_WITH_EOS,
    MARKED,
    NOT_BY_PREFIXES,
    RAISES,
    chat,
)
from tiny_models import BASE, checkpoint, plain_answer, with_a_beginning
from transformers import AutoTokenizer

from raymia.models.causal import limits
from raymia.models.causal.answering import ends_of_answers
from raymia.models.causal.conditional import answer_after, prefix_tokens
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.model import CausalLM
from raymia.models.causal.reading import PlainReader
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.scored_parts import changed_parts, prompt_text, scored_text
from raymia.models.causal.training import Training
from raymia.questions.base import Item
from raymia.questions.deeper import NO_SHOTS, PrefixQuestion

TURNS = chat("What is a heron?", "A bird that wades.", "And a crane?", "Another, taller bird.")
CHAT = json.dumps({"messages": TURNS})
PAIR = json.dumps({"prompt": "What is a heron? ", "completion": "A bird that wades."})


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


def read(tokenizer, payload, kind="chat", loss_on="assistant", **settings):
    return TrainedReader(tokenizer, Training(kind, loss_on, **settings)).read([payload])[0]


def scored(tokenizer, rendered):
    assert rendered.error is None
    ids = np.array(rendered.ids)[rendered.scored]
    return tokenizer.decode(ids)


def test_a_training_that_added_no_tokens_reads_texts_without_them(tokenizer):
    beginning = with_a_beginning(tokenizer)
    begin, text = beginning.bos_token_id, f"{beginning.bos_token}A heron wades."
    both, one = ({}, {"special_tokens": False})
    assert read(beginning, text, "text", "all", **both).ids[:2] == [begin, begin]
    bare = read(beginning, text, "text", "all", **one).ids
    assert bare == read(beginning, text, "text", "all", **both).ids[1:]
    pair = json.dumps({"prompt": text, "completion": " It is tall."})
    assert read(beginning, pair, "completion", "completion", **one).ids.count(begin) == 1

    reader = TrainedReader(beginning, Training("text", "all", special_tokens=False, max_length=5))
    assert reader.begun(text, 0.5)[0] == bare[: len(reader.begun(text, 0.5)[0])]
    assert reader.text(text) == beginning.decode(bare[:5])


def test_only_a_training_that_added_no_tokens_says_so_in_its_key():
    usual, bare = Training("text", "all"), Training("text", "all", special_tokens=False)
    assert {**usual.key_parts(), "special_tokens": False} == bare.key_parts()
    assert "special_tokens" not in usual.key_parts()


# ------------------------------------------------------------------ which tokens


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_answers_alone_are_scored_with_their_ends_by_marks_and_by_prefixes(tokenizer, template):
    rendered = read(tokenizer, CHAT, template=template)
    assert scored(tokenizer, rendered) == (
        "A bird that wades.<|im_end|>\nAnother, taller bird.<|im_end|>\n"
    )
    whole = tokenizer.apply_chat_template(TURNS, chat_template=template, tokenize=False)
    assert tokenizer.decode(rendered.ids) == whole


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_the_last_answer_alone_is_scored_where_that_was_trained_on(tokenizer, template):
    rendered = read(tokenizer, CHAT, loss_on="last_assistant", template=template)
    assert scored(tokenizer, rendered) == "Another, taller bird.<|im_end|>\n"


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_turns_that_carried_no_loss_are_not_scored(tokenizer, template):
    first = json.dumps({"messages": [TURNS[0], {**TURNS[1], "trained": False}, *TURNS[2:]]})
    last = json.dumps({"messages": [*TURNS[:3], {**TURNS[3], "trained": False}]})
    none = json.dumps({"messages": [TURNS[0], {**TURNS[1], "trained": False}]})
    ends = "<|im_end|>\n"
    for payload, answer in ((first, "Another, taller bird."), (last, "A bird that wades.")):
        for loss_on in ("assistant", "last_assistant"):
            rendered = read(tokenizer, payload, loss_on=loss_on, template=template)
            assert scored(tokenizer, rendered) == answer + ends
        assert scored_text(payload, Training("chat", "assistant")) == answer
        rendered = read(tokenizer, payload, loss_on="all", template=template)
        assert rendered.scored[1:].all()
    rendered = read(tokenizer, none, template=template)
    assert "says that it carried no loss" in rendered.error


def test_marked_spans_that_are_no_turns_leave_open_which_carried_a_loss(tokenizer):
    twice = MARKED.replace(
        "{% generation %}",
        "{% generation %}{{ m.content }}{% endgeneration %}.{% generation %}",
    )
    assert twice != MARKED
    last = json.dumps({"messages": [*TURNS[:3], {**TURNS[3], "trained": False}]})
    rendered = read(tokenizer, last, template=twice)
    assert "marks 4 spans, and the conversation has 2 turns" in rendered.error
    rendered = read(tokenizer, CHAT, loss_on="last_assistant", template=twice)
    assert "marks 4 spans, and the conversation has 2 turns" in rendered.error


def test_marked_answers_that_follow_one_another_leave_open_which_was_the_last(tokenizer):
    joined = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    answers = json.dumps({"messages": [TURNS[1], TURNS[3]]})
    rendered = read(tokenizer, answers, loss_on="last_assistant", template=joined)
    assert "marks 1 spans, and the conversation has 2 turns" in rendered.error
    assert read(tokenizer, answers, template=joined).error is None


def test_a_completion_is_scored_with_its_end_and_its_prompt_is_not(tokenizer):
    rendered = read(tokenizer, PAIR, "completion", "completion", eos=True)
    # The space goes with the word after it, so the prompt alone has other tokens at its end.
    assert scored(tokenizer, rendered) == " A bird that wades.<|endoftext|>"
    without = read(tokenizer, PAIR, "completion", "completion")
    assert scored(tokenizer, without) == " A bird that wades."
    assert sum(read(tokenizer, PAIR, "completion", "all").scored) > sum(without.scored)


def test_labels_say_which_tokens_are_scored(tokenizer):
    payload = json.dumps({"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]})
    assert read(tokenizer, payload, "tokens", "labels").scored.tolist() == [
        False, False, True, True
    ]  # fmt: skip


def test_a_preference_without_a_prompt_begins_with_what_both_answers_share(tokenizer):
    pair = {"chosen": chat("Hi", "Good day."), "rejected": chat("Hi", "What?")}
    settings = {"kind": "preference", "loss_on": "completion", "template": CHATML}
    for side, answer in (("chosen", "Good day."), ("rejected", "What?")):
        rendered = read(tokenizer, json.dumps(pair), side=side, **settings)
        assert scored(tokenizer, rendered) == f"{answer}<|im_end|>\n"


@pytest.mark.parametrize(
    ("longer", "shorter", "answers"),
    [
        (TURNS, TURNS[:2], ("A bird that wades.<|im_end|>\n", "A bird that wades.<|im_end|>\n")),
        ("What? A bird", "What? A", (" A bird", " A")),
    ],
)
def test_an_answer_with_which_the_other_begins_is_no_prompt(tokenizer, longer, shorter, answers):
    pair = json.dumps({"chosen": longer, "rejected": shorter})
    for side, answer in zip(("chosen", "rejected"), answers, strict=True):
        rendered = read(tokenizer, pair, "preference", "completion", template=CHATML, side=side)
        assert scored(tokenizer, rendered).startswith(answer)


def test_a_system_prompt_is_put_where_there_is_none(tokenizer):
    settings = {"template": CHATML, "system": "Be brief."}
    rendered = read(tokenizer, CHAT, **settings)
    assert tokenizer.decode(rendered.ids).startswith("<|im_start|>system\nBe brief.")
    own = json.dumps({"messages": chat("Hi", "Yes?", system="Be long.")})
    assert "Be brief" not in tokenizer.decode(read(tokenizer, own, **settings).ids)


@pytest.mark.parametrize(
    ("side", "kept"), [("end", slice(52)), ("start", slice(-52, None))], ids=["end", "start"]
)
def test_a_long_record_is_cut_as_the_training_cut_it(tokenizer, side, kept):
    whole = read(tokenizer, CHAT, template=CHATML)
    cut = read(tokenizer, CHAT, template=CHATML, max_length=52, truncate=side)
    assert (cut.ids, cut.truncated) == (whole.ids[kept], True)
    assert cut.scored[1:].tolist() == whole.scored[kept][1:].tolist()


def test_a_record_of_which_nothing_was_trained_on_is_no_evidence(tokenizer):
    cut = read(tokenizer, CHAT, template=CHATML, max_length=5)
    assert cut.error == "no token carried a loss among the 5 tokens that are left of it"
    dropped = read(tokenizer, CHAT, template=CHATML, max_length=5, truncate="drop")
    assert dropped.error == "longer than 5 tokens, so it is left out"
    joined = read(tokenizer, CHAT, template=CHATML, max_length=5, packing="joined")
    assert joined.error is None


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (NOT_BY_PREFIXES, TURNS, "up to turn 2 otherwise where others follow.*generation"),
        (RAISES, TURNS, "cannot write it; came: roles must alternate"),
        (CHATML, TURNS[:1], "no turn of the assistant"),
        (MARKED.replace("== 'assistant'", "== 'model'"), TURNS, "marked nothing"),
    ],
)
def test_a_template_by_which_no_mask_can_be_told_says_why(tokenizer, template, messages, reason):
    rendered = read(tokenizer, json.dumps({"messages": messages}), template=template)
    assert rendered.ids == []
    assert re.search(reason, rendered.error)


def test_a_turn_that_the_template_passes_over_is_no_turn_that_was_trained_on(tokenizer):
    knows_two = CHATML.replace("{{ m.content }}", "{% if m.role in ['user', 'assistant'] %}"
                               "{{ m.content }}{% endif %}")  # fmt: skip
    odd = [{"role": "narrator", "content": "It rained."}, *TURNS[:2]]
    payload = json.dumps({"messages": odd})
    assert (
        "nothing of turns of a role; name the template"
        in read(tokenizer, payload, template=knows_two).error
    )
    assert read(tokenizer, payload, template=CHATML).error is None


def test_contents_in_parts_are_written_by_templates_that_know_them(tokenizer):
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in TURNS[:2]]
    payload = json.dumps({"messages": parts})
    for loss_on in ("assistant", "all"):
        rendered = read(tokenizer, payload, template=CHATML, loss_on=loss_on)
        assert "give each content as one text" in rendered.error
    knows = CHATML.replace("{{ m.content }}", "{% for p in m.content %}{{ p.text }}{% endfor %}")
    assert read(tokenizer, payload, template=knows).error is None


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, ENDS_WITH_EOS, NOT_BY_PREFIXES])
@pytest.mark.parametrize("turns", [TURNS[1:2], TURNS[1:]], ids=["alone", "first"])
def test_what_stands_before_the_first_words_of_an_assistant_is_not_scored(
    tokenizer, template, turns
):
    """Nothing is written where a conversation begins, so it is told by another conversation."""
    rendered = read(tokenizer, json.dumps({"messages": turns}), template=template)
    if template == NOT_BY_PREFIXES and len(turns) > 1:
        assert "up to turn 1 otherwise" in rendered.error
    else:
        words = scored(tokenizer, rendered).removeprefix("<think></think>")
        assert words.startswith("A bird that wades.")


def test_marks_and_prefixes_say_the_same_where_the_assistant_begins(tokenizer):
    payload = json.dumps({"messages": TURNS[1:]})
    by_prefixes, by_marks = (read(tokenizer, payload, template=t) for t in (CHATML, MARKED))
    assert by_prefixes.ids == by_marks.ids
    assert by_prefixes.scored.tolist() == by_marks.scored.tolist()


def test_a_template_without_a_header_does_not_tell_where_the_assistant_begins(tokenizer):
    payload = json.dumps({"messages": TURNS[1:2]})
    rendered = read(
        tokenizer, payload, template="{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    assert "begins with a turn of the assistant" in rendered.error
    assert "% generation %" in rendered.error


def test_a_mask_by_prefixes_holds_where_one_answer_is_all_there_is(tokenizer):
    one = json.dumps({"messages": TURNS[:2]})
    assert read(tokenizer, one, template=NOT_BY_PREFIXES).error is None


def test_the_end_of_a_text_is_no_part_of_the_turns_that_others_follow(tokenizer):
    rendered = read(tokenizer, CHAT, template=ENDS_WITH_EOS)
    assert scored(tokenizer, rendered) == (
        "A bird that wades.<|end|>\nAnother, taller bird.<|end|>\n<|endoftext|>"
    )


def test_the_last_answer_is_told_where_those_before_it_are_not(tokenizer):
    assert read(tokenizer, CHAT, template=NOT_BY_PREFIXES).error is not None
    rendered = read(tokenizer, CHAT, loss_on="last_assistant", template=NOT_BY_PREFIXES)
    assert scored(tokenizer, rendered) == "<think></think>Another, taller bird.\n"


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_record_says_what_else_its_template_is_given(tokenizer, kind):
    shouts = CHATML.replace("{{ m.content }}", "{{ m.content | upper if loud else m.content }}")
    own = {"messages": TURNS} if kind == "chat" else {"prompt": TURNS[:3], "completion": TURNS[3:]}
    loud = {**own, "chat_template_kwargs": {"loud": True}}
    settings = {"kind": kind, "loss_on": "completion" if kind == "completion" else "assistant"}
    for content, answer in ((own, "taller bird."), (loud, "TALLER BIRD.")):
        rendered = read(tokenizer, json.dumps(content), template=shouts, **settings)
        assert answer in scored(tokenizer, rendered)


def test_tools_of_the_training_reach_the_template_where_a_record_has_none(tokenizer):
    shows = "{% for t in tools or [] %}[{{ t.name }}]{% endfor %}" + CHATML
    given = json.dumps({"tools": [{"name": "of_the_training"}]})
    own = {"messages": TURNS, "tools": [{"name": "of_the_record"}]}
    for content, shown in (({"messages": TURNS}, "training"), (own, "record")):
        rendered = read(tokenizer, json.dumps(content), template=shows, template_arguments=given)
        assert tokenizer.decode(rendered.ids).startswith(f"[of_the_{shown}]<|im_start|>")


def test_a_record_cannot_have_its_template_do_anything_but_write(tokenizer):
    for given in ({"tokenize": False}, {"chat_template": "{{ 1 }}"}, {"return_dict": False}):
        payload = json.dumps({"messages": TURNS, "chat_template_kwargs": given})
        rendered = read(tokenizer, payload, template=CHATML)
        assert rendered.error or rendered.ids == read(tokenizer, CHAT, template=CHATML).ids


def test_a_template_that_never_ends_is_given_up(tokenizer, monkeypatch):
    with pytest.raises(limits.RenderingError, match=r"did not end within 0\.05 seconds"):
        limits.within_limits(lambda: time.sleep(2) or "", 0.05)
    monkeypatch.setattr(limits, "LONGEST_RENDERING", 10)
    assert "wrote" in read(tokenizer, CHAT, template=CHATML).error


@pytest.mark.long
def test_a_template_that_never_ends_costs_its_own_record_alone(tokenizer, monkeypatch):
    def render(name):
        return limits.within_limits(lambda: time.sleep(1.5 if name == "slow" else 0) or name)

    monkeypatch.setattr(limits, "SECONDS_TO_RENDER", 0.5)
    names = ["a", "slow", "b", "c", "slow"]
    late = "the template did not end within 0.5 seconds"
    assert limits.each_within_limits(render, names, str) == ["a", late, "b", "c", late]

    loops = "{% for n in range(12000) %}" * 2 + "{% endfor %}" * 2
    endless = "{% if messages[0].content == 'slow' %}" + loops + "{% endif %}" + CHATML
    slow = json.dumps({"messages": chat("slow", "A bird.")})
    reader = TrainedReader(tokenizer, Training("chat", "assistant", template=endless))
    found = reader.read([CHAT, slow, CHAT])
    assert [one.error for one in found] == [None, late, None]
    assert found[0].ids == found[2].ids == read(tokenizer, CHAT, template=CHATML).ids


def test_a_thread_that_was_given_up_renders_no_other_record(monkeypatch):
    """It would take the time of the one that does."""
    rendered, may_end = [], threading.Event()

    def render(name):
        rendered.append(name)
        seconds = 30 if name == "slow" else 0
        return limits.within_limits(lambda: f"{name} {may_end.wait(seconds)}")

    monkeypatch.setattr(limits, "SECONDS_TO_RENDER", 0.5)
    before = {*threading.enumerate()}
    assert limits.each_within_limits(render, ["slow", "a", "b"], lambda _: None)[0] is None
    (late,) = {*threading.enumerate()} - before
    may_end.set()
    late.join(30)
    assert not late.is_alive()
    assert rendered == ["slow", "a", "b"]


def test_a_panic_of_the_tokenizer_is_told():
    """One of a library in Rust is no Exception."""

    class Panic(BaseException):
        pass

    def panic(*_):
        raise Panic("index out of bounds")

    with pytest.raises(limits.RenderingError, match=r"cannot write it.*index out of bounds"):
        limits.within_limits(panic)
    with pytest.raises(Panic):
        limits.each_within_limits(panic, ["a"], str)


def test_a_thread_renders_many_records(tokenizer, monkeypatch):
    started = []

    class Thread(threading.Thread):
        def start(self):
            started.append(self)
            super().start()

    monkeypatch.setattr(limits.threading, "Thread", Thread)
    reader = TrainedReader(tokenizer, Training("chat", "assistant", template=CHATML))
    assert not any(one.error for one in reader.read([CHAT] * 50))
    assert len(started) == 1


def test_a_template_cannot_leave_its_sandbox(tokenizer):
    leak = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    assert "cannot write it" in read(tokenizer, CHAT, template=leak).error


# ------------------------------------------------------------------ words


def test_what_is_scored_is_changed_and_nothing_else():
    training = Training("chat", "assistant", template=CHATML)
    changed = json.loads(changed_parts(CHAT, training, str.upper))["messages"]
    assert [m["content"] for m in changed] == [
        "What is a heron?", "A BIRD THAT WADES.", "And a crane?", "ANOTHER, TALLER BIRD."
    ]  # fmt: skip
    assert scored_text(CHAT, training) == "A bird that wades.\n\nAnother, taller bird."
    assert prompt_text(CHAT, training) == "What is a heron?\n\nAnd a crane?"


def test_words_of_a_completion_and_of_one_side_of_a_preference():
    assert scored_text(PAIR, Training("completion", "completion")) == "A bird that wades."
    pair = json.dumps({"chosen": "Hi there, sir", "rejected": "Hi there, you"})
    for side, word in (("chosen", " sir"), ("rejected", " you")):
        assert scored_text(pair, Training("preference", "completion", side=side)) == word


def test_a_plain_text_is_itself():
    assert scored_text("a b", None) == "a b"
    assert changed_parts("a b", None, str.upper) == "A B"


@pytest.mark.parametrize(("settings", "words"), [
    ({"max_length": 44}, "A bird that wad"),
    ({"max_length": 100}, "A bird that wades.\n\nAnother, taller b"),
    ({"max_length": 40, "truncate": "start"}, "Another, taller bird."),
    ({"max_length": 400}, "A bird that wades.\n\nAnother, taller bird."),
])  # fmt: skip
def test_the_words_of_what_was_cut_are_those_of_the_scored_tokens(tokenizer, settings, words):
    training = Training("chat", "assistant", template=CHATML, **settings)
    reader = TrainedReader(tokenizer, training)
    assert reader.text(CHAT) == words
    tokens = scored(tokenizer, reader.read([CHAT])[0])
    for part in reader.text(CHAT).split("\n\n"):
        assert part in tokens
    start = reader.begun(CHAT, 0.5)[2]
    assert reader.text(CHAT)[start:] == reader.text(CHAT).rpartition("\n\n")[2]


def test_a_text_that_was_cut_has_the_words_that_are_left(tokenizer):
    reader = TrainedReader(tokenizer, Training("text", "all", max_length=4))
    text = "A heron stands in the shallow water."
    assert reader.text(text) == tokenizer.decode(tokenizer(text)["input_ids"][:4])
    pair = TrainedReader(tokenizer, Training("completion", "completion", max_length=12))
    assert pair.text(PAIR) == scored(tokenizer, pair.read([PAIR])[0]) == " A bird that w"


def test_what_is_to_be_written_again_is_the_last_answer(tokenizer):
    turns = chat("Hi", "Yes.", "Go on", "One.\n\nTwo.")
    payload = json.dumps({"messages": turns})
    reader = TrainedReader(tokenizer, Training("chat", "assistant", template=CHATML))
    prompt, length, start = reader.begun(payload, 0.5)
    assert tokenizer.decode(prompt).endswith("Go on<|im_end|>\n<|im_start|>assistant\n")
    assert reader.text(payload)[start:] == "One.\n\nTwo."
    assert length == len(reader.read([payload])[0].ids)


@pytest.mark.parametrize("settings", [{}, {"eos": True}, {"max_length": 200}])
def test_of_a_text_its_first_share_is_given_however_it_was_trained_on(tokenizer, settings):
    text = "A heron stands in the shallow water and waits for fish."
    plain = PlainReader(tokenizer).begun(text, 0.5)
    reader = TrainedReader(tokenizer, Training("text", "all", **settings))
    assert reader.begun(text, 0.5) == plain
    assert tokenizer.decode(plain[0]) == "A heron stands in the"


def test_of_a_text_that_was_cut_the_share_is_of_what_is_left(tokenizer):
    text = "A heron stands in the shallow water and waits for fish."
    reader = TrainedReader(tokenizer, Training("text", "all", max_length=6))
    prompt, length, start = reader.begun(text, 0.5)
    left = reader.text(text)
    assert length == 6
    assert left[:start].strip() == tokenizer.decode(prompt)
    assert 0 < len(prompt) < 6


@pytest.mark.parametrize(
    ("kind", "content", "prompt", "rest"),
    [
        ("chat", {"messages": TURNS}, "And a crane?<|im_end|>\n<|im_start|>assistant\n",
         "Another, taller bird."),
        ("completion", {"prompt": TURNS[:3], "completion": TURNS[3:]},
         "And a crane?<|im_end|>\n<|im_start|>assistant\n", "Another, taller bird."),
        ("completion", {"prompt": "What is a heron?", "completion": " A bird that wades."},
         "What is a heron?", " A bird that wades."),
    ],
)  # fmt: skip
def test_where_all_is_scored_what_stands_before_the_last_part_is_given(
    tokenizer, kind, content, prompt, rest
):
    reader = TrainedReader(tokenizer, Training(kind, "all", template=CHATML))
    payload = json.dumps(content)
    given, length, start = reader.begun(payload, 0.5)
    assert tokenizer.decode(given).endswith(prompt)
    assert reader.text(payload)[start:] == rest
    assert length == len(reader.read([payload])[0].ids)


def test_of_what_a_template_does_not_write_alone_the_first_share_is_given(tokenizer):
    """As where a template wants a turn of the user, and nothing but the system's stands before."""
    wants_two = "{% if messages|length < 2 %}{{ raise_exception('two turns') }}{% endif %}" + CHATML
    reader = TrainedReader(tokenizer, Training("chat", "all", template=wants_two))
    payload = json.dumps({"messages": TURNS[:2]})
    ids = reader.read([payload])[0].ids
    prompt, length, _ = reader.begun(payload, 0.5)
    assert (prompt, length) == (ids[: len(ids) // 2], len(ids))


@pytest.mark.parametrize("own", [{}, {"labels": [-100] + [1] * 11}], ids=["all", "labels"])
def test_of_tokens_that_are_all_scored_their_first_share_is_given(tokenizer, own):
    ids = tokenizer("A heron stands in the shallow water and waits.")["input_ids"]
    own = {key: [-100, *ids[1:]] for key in own}
    reader = TrainedReader(tokenizer, Training("tokens", "labels"))
    payload = json.dumps({"input_ids": ids, **own})
    prompt, length, start = reader.begun(payload, 0.5)
    assert (prompt, length) == (ids[: len(ids) // 2], len(ids))
    assert reader.text(payload)[start:].split() == tokenizer.decode(ids[len(ids) // 2 :]).split()


# ------------------------------------------------------------------ what the model answers


@pytest.fixture(scope="module")
def asked():
    training = Training("chat", "assistant", template=CHATML)
    return load_causal_lm(checkpoint(BASE, training=training), batch_tokens=512)


def test_scored_tokens_alone_are_answered_and_as_in_the_whole_text(asked, tokenizer, monkeypatch):
    entered, log_probs = [], asked.head.log_probs

    def noting(hidden, labels, moments):
        entered.append(len(hidden))
        return log_probs(hidden, labels, moments)

    monkeypatch.setattr(asked.head, "log_probs", noting)
    payloads = [CHAT, json.dumps({"messages": TURNS[:2]}), CHAT]
    text = tokenizer.apply_chat_template(TURNS, chat_template=CHATML, tokenize=False)
    plain = plain_answer(asked.model, tokenizer, text, asked.max_tokens)
    rendered = read(tokenizer, CHAT, template=CHATML)
    wanted = rendered.scored[1:]
    answers = asked.answer(payloads, moments=True)
    scored_of = [int(one.scored.sum()) for one in asked.reader.read(payloads)]
    assert sum(entered) == sum(scored_of)
    assert [len(answer.log_prob) for answer in answers] == scored_of
    for answer in (answers[n] for n in (0, 2)):
        assert answer.token_ids.tolist() == np.array(rendered.ids)[1:][wanted].tolist()
        np.testing.assert_allclose(answer.log_prob, plain.log_prob[wanted], atol=1e-5)
        np.testing.assert_allclose(answer.std_log_prob, plain.std[wanted], atol=1e-5)


def test_windows_score_each_scored_token_once(tokenizer):
    training = Training("chat", "assistant", template=CHATML)
    settings = {"max_tokens": 24, "long_texts": "windows", "stride": 8, "training": training}
    model = load_causal_lm(checkpoint(BASE, **settings), batch_tokens=512)
    rendered = read(tokenizer, CHAT, template=CHATML)
    (answer,) = model.answer([CHAT], moments=False)
    assert answer.token_ids.tolist() == np.array(rendered.ids)[rendered.scored].tolist()


def test_what_is_beyond_the_models_context_is_said():
    training = Training("chat", "last_assistant", template=CHATML)
    model = load_causal_lm(checkpoint(BASE, max_tokens=12, training=training), batch_tokens=512)
    (answer,) = model.answer([CHAT], moments=True)
    assert answer.error == "what carried a loss is beyond the tokens that the model reads at once"
    assert answer.truncated


def test_every_part_of_a_training_is_part_of_the_key():
    plain = checkpoint(BASE).with_fingerprint().fingerprint
    trainings = [
        Training("chat", "assistant", template=CHATML),
        Training("chat", "assistant", template=CHATML + " "),
        Training("chat", "all", template=CHATML),
        Training("chat", "assistant", template=CHATML, max_length=90),
        Training("chat", "assistant", template=CHATML, max_length=90, truncate="start"),
        Training("chat", "assistant", template=CHATML, max_length=90, truncate="drop"),
        Training("chat", "last_assistant", template=CHATML),
        Training("chat", "completion", template=CHATML),
        Training("chat", "labels", template=CHATML),
        Training("chat", "assistant", template=CHATML, system="Be brief."),
        Training("chat", "assistant", template=CHATML, eos=True),
        Training("chat", "assistant", template=CHATML, template_arguments='{"a": 1}'),
        Training("preference", "completion", template=CHATML),
        Training("preference", "completion", template=CHATML, side="rejected"),
    ]
    keys = {checkpoint(BASE).read_as(training).fingerprint for training in trainings}
    assert len({plain, *keys}) == len(trainings) + 1
    assert checkpoint(BASE).read_as(None).fingerprint == plain


def test_an_answer_ends_where_the_template_ends_it():
    """Where that is one token, of which a base model does not know that it ends anything."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_tokens(["<|im_end|>"], special_tokens=True)
    (end,) = tokenizer("<|im_end|>", add_special_tokens=False)["input_ids"]
    assert end != tokenizer.eos_token_id
    chats = Training("chat", "assistant", template=CHATML)
    assert ends_of_answers(TrainedReader(tokenizer, chats)) == {end}
    raises = replace(chats, template=RAISES)
    assert ends_of_answers(TrainedReader(tokenizer, raises)) == set()
    assert ends_of_answers(PlainReader(tokenizer)) == set()


def test_a_prefix_is_whole_conversations_or_the_words_of_their_answers(asked):
    other = json.dumps({"messages": chat("Which?", "That one.")})
    whole = asked.tokenizer.decode(prefix_tokens(asked, [other]))
    assert whole.startswith("<|im_start|>user\nWhich?<|im_end|>\n")
    assert whole.endswith("That one.<|im_end|>\n")
    words = asked.tokenizer.decode(prefix_tokens(asked, [other], as_text=True))
    assert words == "That one.\n\n"


def test_shots_that_the_training_would_have_left_out_are_in_no_prefix(asked):
    """Also the first, which alone has the beginning of a text."""
    short, long = (
        json.dumps({"messages": chat("Which?", answer)}) for answer in ("That one.", "That. " * 90)
    )
    training = replace(asked.reader.training, max_length=90, truncate="drop")
    model = CausalLM(asked.model, asked.tokenizer, batch_tokens=4_096, training=training)
    expected = prefix_tokens(model, [short, short])
    assert len(expected) == 2 * len(model.reader.read([short])[0].ids)
    assert prefix_tokens(model, [long, short, long, short]) == expected
    assert prefix_tokens(model, [long, long]) == []
    words = model.tokenizer.decode(prefix_tokens(model, [long, short], as_text=True))
    assert words == "That one.\n\n"
    found = PrefixQuestion((long,)).ask(model, [Item("r", 0, CHAT)])
    assert found["error"].to_pylist() == [NO_SHOTS]


def test_after_a_prefix_the_same_tokens_are_scored(asked):
    prefix = prefix_tokens(asked, [json.dumps({"messages": chat("Which?", "That one.")})])
    (answer,) = answer_after(asked, prefix, [CHAT])
    (alone,) = asked.answer([CHAT], moments=False)
    assert len(answer.log_prob) == len(alone.log_prob)
    rendered = asked.reader.read([CHAT])[0]
    joined = torch.tensor([[*prefix, *rendered.ids]])
    with torch.inference_mode():
        log_prob = asked.model(joined).logits[0, :-1].log_softmax(-1)
    own = log_prob.gather(-1, joined[0, 1:, None])[len(prefix) - 1 :, 0]
    np.testing.assert_allclose(answer.log_prob, own.numpy()[rendered.scored], atol=1e-4)
