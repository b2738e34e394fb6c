"""The chat template by which a training wrote its conversations: its own, or the one it names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raymia.models.causal.labels import has_marks
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.causal.tokenizer_files import SETTINGS
from raymia.models.endpoints.resolver import Endpoint
from raymia.models.source import read_json
from raymia.models.tokenizers import tokenizer_of
from raymia.spec.training import BASE_TEMPLATE
from raymia.storage.files import opened
from raymia.storage.refusals import refusals
from raymia.util.errors import InputError

LARGEST_TEMPLATE = 500_000
"""Characters."""
ADAPTERS_TEMPLATE, WITH_TOOLS = "chat_template.jinja", "additional_chat_templates/tool_use.jinja"
"""As transformers saves them beside a model or an adapter."""
TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


def template_of(
    named: str | None,
    checkpoint: CausalCheckpoint | Endpoint,
    base: CausalCheckpoint | None,
    where: str,
) -> str:
    """The template that a training names, as a file or as Jinja, or else the checkpoint's own.

    Raises
    ------
    InputError
        If there is none, or it is no Jinja.
    """
    if named is not None and named != BASE_TEMPLATE:
        return _checked(named if "{%" in named or "{{" in named else _read(named, where), where)
    source: CausalCheckpoint | Endpoint = checkpoint
    if named == BASE_TEMPLATE:
        if base is None:
            raise InputError(
                f"{where}.template: `base` is that of the reference `base`, and there is none"
            )
        source = base
    found = own_template(source)
    if found is None:
        raise InputError(
            f"{where}.template: the tokenizer of {source.label} has no chat template; name the one "
            "that the training used, a file of Jinja, as `template` under `training`"
        )
    return _checked(found, where)


def own_template(checkpoint: CausalCheckpoint | Endpoint) -> str | None:
    """The chat template of a checkpoint: of its adapter, where that brings one."""
    if isinstance(checkpoint, CausalCheckpoint) and checkpoint.adapter is not None:
        saved = {"default": ADAPTERS_TEMPLATE, "tool_use": WITH_TOOLS}
        beside = {name: Path(checkpoint.adapter) / file for name, file in saved.items()}
        if beside["default"].is_file():
            found = {}
            for name, file in beside.items():
                with refusals(str(file), "template"):
                    found[name] = file.read_text(encoding="utf-8") if file.is_file() else None
            return _one_of(found)
        settings = Path(checkpoint.adapter) / SETTINGS
        if settings.is_file():
            own = _one_of(read_json(settings, str(settings)).get("chat_template"))
            if own is not None:
                return own
    return _one_of(tokenizer_of(checkpoint).chat_template)


def _one_of(template: Any) -> str | None:
    """The template of a tokenizer that may have several by their names, as a mapping or, in files,
    as a list: as transformers takes them, one for records with tools and one for others."""
    if isinstance(template, list):
        template = {
            one.get("name"): one.get("template") for one in template if isinstance(one, dict)
        }
    if isinstance(template, dict):
        with_tools, template = template.get("tool_use"), template.get("default")
        if with_tools is not None and template is not None:
            parts = _as_a_part(str(with_tools)), _as_a_part(str(template))
            template = "{{% if tools is not none %}}{}{{% else %}}{}{{% endif %}}".format(*parts)
    return None if template is None else str(template)


def _as_a_part(template: str) -> str:
    """A template between tags: what Jinja takes away after a tag, and at the end of a whole one."""
    return ("\n" if template.startswith("\n") else "") + template.removesuffix("\n")


def _read(path: str, where: str) -> str:
    with refusals(path, "template"), opened(path) as file:
        text: str = file.read().decode()
    if not text.strip():
        raise InputError(f"{where}.template: {path} is empty")
    return text


def _checked(template: str, where: str) -> str:
    if len(template) > LARGEST_TEMPLATE:
        raise InputError(
            f"{where}.template: {len(template):,} characters, and at most {LARGEST_TEMPLATE:,} are "
            "taken for a template"
        )
    from jinja2 import TemplateSyntaxError

    try:
        has_marks(template)
    except TemplateSyntaxError as error:
        raise InputError(
            f"{where}.template: no valid Jinja: {error.message}, in line {error.lineno}"
        ) from None
    return template


def dated(template: str, said: Mapping[str, Any], where: str) -> str:
    """A template that writes the day of the training, and not that on which it is rendered."""
    if "strftime_now(" not in template or "date_string" in (said.get("template_arguments") or {}):
        return template
    day = said.get("date")
    if day is None:
        raise InputError(
            f"{where}: this template writes the day on which it is rendered; say that of the "
            "training as `date: YYYY-MM-DD` under `training`"
        )
    found = TODAY.sub(lambda call: json.dumps(day.strftime(call[2])), template)
    if "strftime_now(" in found:
        raise InputError(
            f"{where}: this template writes the day in a form that it makes up; name a copy of it, "
            "with the day of the training in it, as `template` under `training`"
        )
    return found


def refuse_unknown_arguments(arguments: Mapping[str, Any], template: str, where: str) -> None:
    """Refuse what a template is given and does not ask for."""
    for name in arguments:
        if name not in template:
            raise InputError(
                f"{where}.template_arguments.{name}: the template has no such argument; look at "
                "how it is written there"
            )
