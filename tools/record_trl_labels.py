"""Record what TRL makes of records: `tools/record_trl_labels.py tests/support/trl_labels.json`.

TRL is the oracle of how records become tokens and labels. It is no dependency of raymia; the tests
hold raymia against what is recorded here, and against TRL itself where it is installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import uuid4

ROOT = Path(__file__).parents[1]
LONG = "The heron stood in the shallow water and waited for the fish to come. " * 6

CHATS: Mapping[str, list[dict[str, Any]]] = {
    "one turn": [
        {"role": "user", "content": "What is a heron?"},
        {"role": "assistant", "content": "A bird that wades."},
    ],
    "two turns": [
        {"role": "user", "content": "What is a heron?"},
        {"role": "assistant", "content": "A bird that wades."},
        {"role": "user", "content": "And a crane?"},
        {"role": "assistant", "content": "Another, taller bird."},
    ],
    "system": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day."},
    ],
    "empty system": [
        {"role": "system", "content": ""},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day."},
    ],
    "two answers running": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day."},
        {"role": "assistant", "content": "And good night."},
    ],
    "reasoning": [
        {"role": "user", "content": "What is a heron?"},
        {
            "role": "assistant",
            "reasoning_content": "It has long legs.",
            "thinking": "It has long legs.",
            "content": "A bird that wades.",
        },
        {"role": "user", "content": "And a crane?"},
        {
            "role": "assistant",
            "reasoning_content": "Longer ones.",
            "thinking": "Longer ones.",
            "content": "A taller bird.",
        },
    ],
    "call of a tool": [
        {"role": "user", "content": "What stands there?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "function": {"name": "look", "arguments": {"at": "the pond"}}}
            ],
        },
        {"role": "tool", "name": "look", "content": "a heron"},
        {"role": "assistant", "content": "A heron."},
    ],
    "unicode": [
        {"role": "user", "content": "Grüße, 世界 🦩?"},
        {"role": "assistant", "content": "Ünïcödé 🐦‍⬛ — «ja»…"},
    ],
    "marks of a template": [
        {"role": "user", "content": "Write <|im_end|> and <|endoftext|> please"},
        {"role": "assistant", "content": "<|im_start|>user\nNo.<|im_end|> [/INST] </s>"},
    ],
    "white space": [
        {"role": "user", "content": "  Hello \n"},
        {"role": "assistant", "content": "\n  Good day.  "},
    ],
    "long": [
        {"role": "user", "content": "Tell me of it"},
        {"role": "assistant", "content": LONG},
    ],
    "long prompt": [
        {"role": "user", "content": LONG},
        {"role": "assistant", "content": "Well."},
    ],
}
COMPLETIONS: Mapping[str, dict[str, Any]] = {
    "plain": {"prompt": "What is a heron? ", "completion": "A bird that wades."},
    "a token over the boundary": {"prompt": "The her", "completion": "on stands."},
    "ends already": {"prompt": "Hello ", "completion": "day.<|endoftext|>"},
    "long prompt": {"prompt": LONG, "completion": "Well."},
    "unicode": {"prompt": "Grüße 🦩", "completion": "🐦‍⬛ ja"},
}
TEXTS = [
    {"text": "A heron stands in the water."},
    {"text": "It ends already.<|endoftext|>"},
    {"text": "Grüße 🦩 «ja»…\n\n<|im_end|>"},
    {"text": LONG},
]
LABELLED = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]},
    {"input_ids": [9, 10, 11], "labels": [9, 10, 11]},
    {"input_ids": [*range(20, 80)], "labels": [-100] * 40 + [*range(60, 80)]},
    {"input_ids": [*range(20, 80)], "labels": [-100] * 50 + [*range(70, 80)]},
]
MASKED = [
    {
        "input_ids": row["input_ids"],
        "completion_mask": [int(label != -100) for label in row["labels"]],
    }
    for row in LABELLED
]
PLAIN: Mapping[str, list[dict[str, Any]]] = {
    "completion": [*COMPLETIONS.values()],
    "text": TEXTS,
    "tokens": LABELLED,
    "masks": MASKED,
}
"""Records that no template writes."""
SETTINGS: Mapping[str, dict[str, Any]] = {"masks": {"completion_only_loss": True}}
"""Of TRL's SFTConfig, by kind of records."""
MAX_LENGTH = 48


def as_completions(chats: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Conversations, each cut before its last turn."""
    return [{"prompt": turns[:-1], "completion": turns[-1:]} for turns in chats]


def prepared_by_trl(
    tokenizer: Any, rows: Sequence[dict[str, Any]], template: str | None, **settings: Any
) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels that TRL's SFTTrainer trains on, of the rows that it keeps.

    Parameters
    ----------
    settings : of TRL's SFTConfig.
    """
    from datasets import Dataset, disable_progress_bars
    from datasets.fingerprint import Hasher
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    args = SFTConfig(output_dir="unused", report_to=[], use_cpu=True, **settings)
    only = args.completion_only_loss
    trainer = SimpleNamespace(
        _tokenizer=tokenizer,
        chat_template=template,
        completion_only_loss="prompt" in rows[0] if only is None else only,
    )
    # Nothing is kept for later, so nothing needs a name that a hash of all its code gives it.
    with patch.object(Hasher, "hash", lambda *_: uuid4().hex):
        made = SFTTrainer._prepare_dataset(
            trainer, Dataset.from_list(list(rows)), tokenizer, args, False, None, "train"
        )
    return [(row["input_ids"], row["labels"]) for row in made]


def main() -> None:
    from transformers import AutoTokenizer

    sys.path.insert(0, str(ROOT / "tests" / "support"))
    import chat_templates  # type: ignore[import-not-found,unused-ignore]

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "raymia" / "demo" / "assets" / "models/base")
    found: dict[str, Any] = {}
    for name, template in chat_templates.ALL.items():
        chats = [{"messages": turns} for turns in CHATS.values()]
        for limit in (None, MAX_LENGTH):
            kinds: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
                "all": (chats, {}),
                "completion": (as_completions([*CHATS.values()]), {}),
            }
            if "generation %}" in template:
                kinds["assistant"] = (chats, {"assistant_only_loss": True})
            for kind, (rows, settings) in kinds.items():
                made = prepared_by_trl(tokenizer, rows, template, max_length=limit, **settings)
                found[f"{name} {kind} {limit}"] = made
    for kind, rows in PLAIN.items():
        settings = SETTINGS.get(kind, {})
        for limit in (None, MAX_LENGTH):
            found[f"plain {kind} {limit}"] = prepared_by_trl(
                tokenizer, rows, None, max_length=limit, **settings
            )
    Path(sys.argv[1]).write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
