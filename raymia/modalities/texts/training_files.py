"""What the files say from which others train: axolotl, LLaMA-Factory, TRL and Transformers."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import PurePosixPath
from typing import Any

from raymia.spec import Packing, RecordFormat, TruncatedSide
from raymia.spec.strict_yaml import parse_yaml
from raymia.storage.files import opened
from raymia.storage.refusals import refusals
from raymia.util.errors import InputError
from raymia.util.stated import FLAG, OBJECT, TEXT, WHOLE, Kind, stated_if
from raymia.util.strict_json import parse_json_of

Said = dict[str, Any]
"""Keys of :class:`raymia.spec.TrainingSpec`, and those below that no key of it says."""
EOS_TOKEN = "eos_token"
"""The token that was put after texts, where a training chose it."""
PROMPT_LIMIT = "max_prompt_length"
"""Tokens that prompts were cut to by themselves."""
BITS = "bits"
"""Bits to which the base was quantized for the training of an adapter."""
TEXT_FIELD = "text_field"
"""The column from which texts were trained, where a file names it."""
NO_EMPTY_TOOLS = "leaves_out_empty_tools"
"""Whether templates were told nothing of an empty list of tools."""
NOT_CERTAIN = "not_certain"
"""What a file leaves open, or no key can say, as sentences by the key that may say it."""
REFUSED = "refused"
"""What cannot be read of a file, as sentences by the key that may say it in its place."""

OF_TRL = (
    "assistant_only_loss",
    "completion_only_loss",
    "max_length",
    "max_seq_length",
    "packing_strategy",
    "dataset_text_field",
    "chat_template_path",
    "per_device_train_batch_size",
    "num_train_epochs",
)
OF_LLAMA_FACTORY = (
    "cutoff_len",
    "train_on_prompt",
    "mask_history",
    "neat_packing",
    "stage",
    "finetuning_type",
)
OF_AXOLOTL = ("sequence_len", "train_on_inputs", "sample_packing", "micro_batch_size")
JINJA = (".jinja", ".j2")
"""What TRL reads as a file; other paths of templates are models that have one."""
OF_TRANSFORMERS = "logging_nan_inf_filter"
"""Nobody writes it by hand: a file that has it names every key that its program knows."""
TRL_MAX_LENGTH = 1024
SPLIT = "bfd_split"
"""How TRL packs the whole of records that are longer than a row."""
STRATEGIES: Mapping[str, Packing] = {
    "bfd": "separate", SPLIT: "separate", "bfd-requeue": "separate", "wrapped": "joined"
}  # fmt: skip
"""How TRL packs; `bfd-requeue` was the earlier name of SPLIT."""
TRUNCATED: Mapping[str, TruncatedSide] = {"keep_start": "end", "keep_end": "start"}
"""What TRL cuts off."""
HIDDEN = "<EOS_TOKEN>"
"""What Transformers writes in place of a token when it saves arguments as JSON."""
AS_PREPARED = (
    "give the records as axolotl prepared them (dataset_prepared_path), which are tokens with "
    "labels, without `config`"
)
ENDS_OF_ANSWERS = (
    "axolotl trains an answer's words and the eos_token behind them, or in its place the "
    "eot_tokens that the file names; what else the template writes in the assistant's turn is "
    "scored, too, as a line break behind its end, an empty think block, or an end that is not one "
    f"of these tokens; where there is such a thing, {AS_PREPARED}"
)
AXOLOTL_SEQUENCE = 512
AXOLOTL_DEFAULT = (
    "the file has no sequence_len, and it is assumed that axolotl's default of "
    f"{AXOLOTL_SEQUENCE} held; say `max_length` where the training had another"
)
ROWS_OF_ONE_TEXT = (
    "axolotl trains a text of more than sequence_len tokens as several rows, and a later row began "
    "without the text before it; such a text is scored as a whole"
)
LLAMA_FACTORY_CUTOFF = 2048
CUT_BY_TURN = (
    "LLaMA-Factory shortens the turns of a record of more than cutoff_len tokens and often keeps "
    "its last answer; raymia cuts off the end, so such a record may be scored on other tokens, or "
    "have none that are scored; say `truncate: drop` to leave such records out"
)
BEGUN_BY_BOS = (
    "LLaMA-Factory begins texts with a BOS where the tokenizer has `add_bos_token`, which depends "
    "on the version of transformers, and it is assumed that it did as the tokenizer does now; say "
    "`special_tokens: false` where texts began without one"
)
ROWS_OF_WHOLE_RECORDS = (
    "rows held several records, each of them whole; a record may have been predicted after those "
    "before it in its row, which are not known; it is scored by itself"
)
AXOLOTL_BY_TURN = ("message_field_training", "message_field_training_detail", "train_on_eot")
"""By which axolotl's conversations say themselves what carries a loss."""
OWN_TEMPLATES = ("tokenizer_default", "jinja")
"""What axolotl calls templates that do not come with it."""
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(
        ("max_length", "max_seq_length", PROMPT_LIMIT, "cutoff_len", "sequence_len"), WHOLE
    ),
    **dict.fromkeys(
        ("truncation_mode", "packing_strategy", "chat_template_path", EOS_TOKEN, "chat_template",
         "chat_template_jinja", "default_system", "default_system_message", "stage",
         "excess_length_strategy", "dataset_text_field"),
        TEXT,
    ),
    **dict.fromkeys(
        ("assistant_only_loss", "completion_only_loss", "packing", "neat_packing", "mask_history",
         "train_on_prompt", "train_on_inputs", "sample_packing"),
        FLAG,
    ),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), FLAG),
    "quantization_bit": WHOLE,
    **dict.fromkeys(("chat_template_kwargs", "dataset_kwargs"), OBJECT),
}  # fmt: skip
"""What is read of such files at their top; null stands for a key that is not there."""


def read_training_file(
    path: str, kind: RecordFormat, where: str, beside: Container[str] = ()
) -> tuple[str, Said]:
    """What a training's own file says of how records were read.

    Parameters
    ----------
    kind : of the records, which defaults depend on.
    beside : keys that the audit file has beside it: what the file says of these is not needed.

    Returns
    -------
    What the file is of, and what it says, or leaves at a default that its program is known for.
    Nothing of either where it is of Transformers' own Trainer, which is given tokens.

    Raises
    ------
    InputError
        If it cannot be read, is of none of these programs, or says what no key can.
    """
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        hint = "; it is a pickle, which is never read" if suffix == ".bin" else ""
        raise InputError(
            f"{where}.config: {path} should be a YAML or JSON file of axolotl, LLaMA-Factory, TRL "
            f"or Transformers{hint}"
        )
    named = f"{where}.config: {path}"
    with refusals(path, "training", f"{where}.config"), opened(path) as file:
        text = file.read().decode()
    content: Any = (
        parse_json_of(named, text, unique_keys=True)
        if suffix == ".json"
        else parse_yaml(text, named)
    )
    if not isinstance(content, dict):
        raise InputError(f"{named} should be a mapping of keys")
    for key, kind_of_value in KINDS.items():
        stated_if(content, key, kind_of_value, named)
    readers = (
        ("axolotl", OF_AXOLOTL, _axolotl),
        ("LLaMA-Factory", OF_LLAMA_FACTORY, _llama_factory),
        ("TRL", OF_TRL, _trl),
    )
    if OF_TRANSFORMERS in content and not {*OF_TRL[:-2]} & {*content}:
        return "", {}
    for name, keys, read in readers:
        if any(key in content for key in keys):
            said = {**read(content, kind, named), BITS: _bits(content)}
            for key, reason in (said.pop(REFUSED, None) or {}).items():
                if key not in beside:
                    raise InputError(reason)
            return name, {key: value for key, value in said.items() if value is not None}
    known = ", ".join(key for _, keys, _ in readers for key in keys[:2])
    raise InputError(
        f"{where}.config: {path} has none of the keys by which a training's file is known, as "
        f"{known}; found: {', '.join(map(str, content)) or 'none'}"
    )


def _trl(content: Mapping[str, Any], kind: RecordFormat, where: str) -> Said:
    assistant = content.get("assistant_only_loss")
    only = content.get("completion_only_loss")
    earlier = content.get("max_seq_length")  # as `max_length` was called until TRL 0.20
    completion = kind in ("completion", "unpaired")
    if assistant and only is False and completion:
        raise InputError(
            f"{where}: the loss was on the assistant's turns of prompts and completions alike; "
            "give prompt and completion as one conversation, under `messages`"
        )
    loss_on = None
    if kind == "chat":
        loss_on = "assistant" if assistant else "all"
    elif completion and not (earlier and only is None):  # which decided by its collator
        loss_on = "all" if only is False else "assistant" if assistant else "completion"
    elif kind == "text":
        loss_on = "all"
    # That of a model is in the tokenizer that was saved.
    template = str(content.get("chat_template_path") or "")
    refused: dict[str, str] = {}
    packing: Packing | None = "none"
    truncate: TruncatedSide | None = "end"
    if content.get("packing"):  # by which TRL does not look at the mode, and keeps the start
        strategy = content.get("packing_strategy") or ("wrapped" if earlier else "bfd")
        packing = STRATEGIES.get(strategy)
        if packing is None:
            refused["packing"] = (
                f"{where}: packing_strategy is {strategy!r}, and raymia knows "
                f"{', '.join(STRATEGIES)}; say `packing` beside `config`"
            )
    else:
        mode = content.get("truncation_mode") or "keep_start"
        truncate = TRUNCATED.get(mode)
        if truncate is None:
            refused["truncate"] = (
                f"{where}: truncation_mode is {mode!r}, and raymia knows {', '.join(TRUNCATED)}; "
                "say `truncate` beside `config`"
            )
    limit = earlier or content.get("max_length", TRL_MAX_LENGTH)
    told = content.get("dataset_kwargs") or {}
    if told.get("skip_prepare_dataset"):
        limit, packing = None, "none"
        if kind != "tokens":
            refused["max_length"] = (
                f"{where}: with skip_prepare_dataset the training was given tokens; give these as "
                "records, or say `max_length` beside `config`, to which they were cut"
            )
    return {
        "loss_on": loss_on,
        "max_length": limit,
        "truncate": truncate,
        "eos": True,
        "packing": packing,
        "template": _file_beside(template, where) if template.endswith(JINJA) else None,
        "template_arguments": content.get("chat_template_kwargs"),
        EOS_TOKEN: content.get(EOS_TOKEN),
        "special_tokens": False if earlier and told.get("add_special_tokens") is False else None,
        TEXT_FIELD: content.get("dataset_text_field"),
        PROMPT_LIMIT: content.get(PROMPT_LIMIT) if kind in ("preference", "unpaired") else None,
        NOT_CERTAIN: _not_certain_of_trl(content, kind),
        REFUSED: refused,
    }


def _not_certain_of_trl(content: Mapping[str, Any], kind: RecordFormat) -> dict[str, str] | None:
    lines = {}
    if content.get(EOS_TOKEN) == HIDDEN and kind not in ("chat", "tokens"):
        lines["eos"] = (
            f"the file hides which token texts ended with ({HIDDEN}), and it is assumed that it is "
            "the end-of-text token of the tokenizer that is given"
        )
    if content.get("packing") and content.get("packing_strategy") in (SPLIT, "bfd-requeue"):
        lines["packing"] = (
            "what a record had beyond max_length was trained as rows of their own, and is not "
            "scored; give these pieces as records where it should be"
        )
    if kind == "tokens" and not content.get("completion_only_loss"):
        lines["loss_on"] = (
            "TRL reads a column completion_mask only where the file says `completion_only_loss: "
            "true`, and this one does not; say `loss_on: all` if the records have that column, "
            "which is read as the mask of the loss otherwise"
        )
    return lines or None


def _axolotl(content: Mapping[str, Any], kind: RecordFormat, where: str) -> Said:
    sets = content.get("datasets")
    first = sets[0] if isinstance(sets, list) and sets and isinstance(sets[0], dict) else {}
    refused = {}
    template = first.get("chat_template") or content.get("chat_template")
    if template is not None and template not in OWN_TEMPLATES and kind == "chat":
        refused["template"] = (
            f"{where} names axolotl's own template {template!r}; name a file with its Jinja as "
            "`template` beside `config`, as the tokenizer that the training saved has it"
        )
    by_turn = [key for key in AXOLOTL_BY_TURN if first.get(key)]
    if kind == "chat" and (by_turn or first.get("train_on_eos", "turn") != "turn"):
        raise InputError(
            f"{where}: {' and '.join(by_turn) or 'train_on_eos'} chooses tokens that no `loss_on` "
            f"names; {AS_PREPARED}"
        )
    if (
        isinstance(sets, list)
        and sets[1:]
        and any(_of_loss(one) != _of_loss(first) for one in sets)
    ):
        raise InputError(
            f"{where}: its {len(sets)} datasets are not read alike; audit the records of one of "
            "them, with a file that names that one alone"
        )
    roles = first.get("roles_to_train") or ["assistant"]
    roles = [roles] if isinstance(roles, str) else roles
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise InputError(f"{where}: roles_to_train should be a list of roles, but is {roles!r}")
    is_split = first.get("type") == "completion"
    whole = content.get("train_on_inputs", False) or is_split
    if kind == "chat" and not whole and not {*roles} <= {"assistant", "gpt"}:
        refused["loss_on"] = (
            f"{where}: roles_to_train is {roles}, and raymia scores the assistant's turns or all; "
            "say `loss_on` beside `config`"
        )
    if kind == "chat" and content.get("train_on_inputs"):
        refused["loss_on"] = (
            f"{where}: with train_on_inputs each turn's words and the token that ends them carried "
            f"a loss, which no `loss_on` names; {AS_PREPARED}; or say `loss_on` beside `config`: "
            "with `all`, what the template writes between turns is scored, too"
        )
    loss_on = {"chat": "assistant", "completion": "completion", "unpaired": "completion"}.get(kind)
    not_certain = {}
    if kind == "chat" and not whole:
        not_certain["loss_on"] = ENDS_OF_ANSWERS
    if content.get("sequence_len") is None:
        not_certain["max_length"] = AXOLOTL_DEFAULT
    packing: Packing = "separate" if content.get("sample_packing") else "none"
    if is_split and kind == "text":
        packing = "joined"
        not_certain["packing"] = ROWS_OF_ONE_TEXT
    return {
        "loss_on": "all" if whole else loss_on,
        "max_length": content.get("sequence_len") or AXOLOTL_SEQUENCE,
        "truncate": "end" if content.get("excess_length_strategy") == "truncate" else "drop",
        "eos": True,
        "packing": packing,
        "template": _file_beside(content.get("chat_template_jinja"), where),
        "system": content.get("default_system_message"),
        TEXT_FIELD: stated_if(first, "field", TEXT, f"{where}: datasets"),
        NO_EMPTY_TOOLS: True,
        NOT_CERTAIN: not_certain or None,
        REFUSED: refused,
    }


def _of_loss(dataset: Any) -> list[Any]:
    """What axolotl says of how the records of one dataset are read."""
    if not isinstance(dataset, dict):
        return []
    return [dataset.get(key) for key in ("type", "chat_template", "roles_to_train", "train_on_eos")]


def _llama_factory(content: Mapping[str, Any], kind: RecordFormat, where: str) -> Said:
    if content.get("stage") == "pt" and kind not in ("text", "tokens"):
        raise InputError(
            f"{where}: `stage: pt` trains on texts as they are; give what it read as texts"
        )
    loss_on: str | None = {"chat": "assistant", "text": "all"}.get(kind, "completion")
    if kind == "chat" and content.get("mask_history"):
        loss_on = "last_assistant"
    if content.get("train_on_prompt"):
        loss_on = "all"
    not_certain = {}
    packing: Packing | None = "none"
    if kind not in ("text", "tokens"):
        not_certain["truncate"] = CUT_BY_TURN
    may_be_packed = kind not in ("preference", "unpaired")
    if content.get("stage") == "pt":
        packing = "none" if content.get("packing") is False else "joined"
        if packing == "none":
            not_certain["special_tokens"] = BEGUN_BY_BOS
    elif may_be_packed and content.get("neat_packing"):
        packing = "separate"
    elif may_be_packed and content.get("packing"):
        packing = None
        not_certain["packing"] = ROWS_OF_WHOLE_RECORDS
    return {
        "loss_on": None if kind == "tokens" else loss_on,
        "max_length": content.get("cutoff_len", LLAMA_FACTORY_CUTOFF),
        "truncate": "end",
        "eos": True,
        "packing": packing,
        "system": content.get("default_system"),
        "special_tokens": False if packing == "joined" else None,
        NO_EMPTY_TOOLS: True,
        NOT_CERTAIN: not_certain or None,
    }


def _bits(content: Mapping[str, Any]) -> int | None:
    if content.get("load_in_4bit") or content.get("adapter") == "qlora":
        return 4
    bits: int | None = 8 if content.get("load_in_8bit") else content.get("quantization_bit")
    return bits


def _file_beside(path: Any, where: str) -> str | None:
    """A template that a file names, which is relative to the file's own folder."""
    if not path:
        return None
    name = str(path)
    if "{%" in name or "{{" in name:
        return name
    if "://" in name or name.startswith("/"):
        return name
    own = where.split(".config: ", 1)[-1]
    return str(PurePosixPath(own).parent / name)
