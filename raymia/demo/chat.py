"""The chat demo: conversations of which the answers alone are trained on, and scored.

Each is made of a passage of Jane Austen's novels: its first words are the question, the rest is the
answer. Everything else is as in :mod:`raymia.demo.text`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from raymia.demo.folder import Section, run_in, write_audit_file
from raymia.demo.text import DemoSettings, audit_passages, copy_models, tune_target, write_rows
from raymia.engine.base import Executor
from raymia.models.causal.training import Training
from raymia.records.conversations import payload_of
from raymia.results.result import RunResult
from raymia.spec import EngineKind
from raymia.util.draws import dealt

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}"
    "{% generation %} {{ message.content }}{{ eos_token }}{% endgeneration %}\n"
    "{% else %}Q: {{ message.content }}\nA:{% endif %}{% endfor %}"
)
TEMPLATE_FILE = "chat_template.jinja"
QUESTION_WORDS = 8


@dataclass(frozen=True)
class ChatDemoSettings(DemoSettings):
    """Sizes of the demo; the defaults take about three minutes on two cores."""

    members: int = 300
    prompts: int = 1_000
    texts: int = 1_000


def run_chat_demo(
    folder: Path, console: Console, settings: ChatDemoSettings, kind: EngineKind | None = None
) -> tuple[RunResult, str]:
    """Fine-tune a target on answers, write the audit file, and run the audit; see
    :func:`run_in`."""
    return run_in(folder, console, lambda executor: make_demo(folder, settings, executor), kind)


def make_demo(folder: Path, settings: ChatDemoSettings, executor: Executor) -> None:
    """Write records, prompts, models and the template into a folder, fine-tune the target on
    answers, write the audit file."""
    chats = [conversation(text) for text in audit_passages()]
    parts = dealt(chats, settings.sizes, settings.seed, "chat demo")
    for name, rows in parts.items():
        write_rows(folder / f"{name}.jsonl", rows)
    copy_models(folder)
    (folder / TEMPLATE_FILE).write_text(TEMPLATE, encoding="utf-8")
    members, held_out = ([payload_of(c) for c in parts[n]] for n in ("members", "non_members"))
    training = Training("chat", "assistant", template=TEMPLATE)
    tune_target(
        folder, members, held_out, settings.target, settings.seed, executor, training=training
    )
    write_audit_file(folder, sections_of_audit(settings))


def conversation(text: str) -> dict[str, Any]:
    """A passage as a question, its first words, and an answer, the rest."""
    words = text.split()
    return {
        "messages": [
            {"role": "user", "content": " ".join(words[:QUESTION_WORDS])},
            {"role": "assistant", "content": " ".join(words[QUESTION_WORDS:])},
        ]
    }


def sections_of_audit(settings: ChatDemoSettings) -> list[Section]:
    """The audit that the demo runs."""
    fine_tuning = settings.reference.model_dump(exclude_defaults=True)
    return [
        ("One audit. Relative paths are relative to this file's folder.",
         {"name": "chat-demo", "output": "report", "store": "store", "seed": settings.seed}),
        ("Texts of the most exposed records are shown: those of the demo are nobody's secret.",
         {"report": {"texts": True}}),
        ("Conversations: a column `messages`, as the training had it.",
         {"records": {"members": "members.jsonl", "non_members": "non_members.jsonl"}}),
        ("How the target was trained: its template, and which tokens carried a loss. Look at a\n"
         "record with `raymia show audit.yaml --record ID`.",
         {"training": {"template": TEMPLATE_FILE, "loss_on": "assistant",
                       "max_length": settings.target.max_tokens}}),
        ("The checkpoints under audit.", {"targets": [{"name": "target", "model": "target"}]}),
        ("References: the base, and the base fine-tuned on what the target itself answers.",
         {"references": {
             "base": {"model": "base"},
             "self_prompt": {
                 "kind": "self_prompt", "prompts": "prompts.jsonl", "texts": settings.texts,
                 "max_tokens": 80, "generation_batch": 128, "fine_tune": fine_tuning}}}),
        ("Neighbors of the answers; questions stay as they are.",
         {"neighbors": {"preset": "repo", "model": "paraphraser"}}),
    ]  # fmt: skip
