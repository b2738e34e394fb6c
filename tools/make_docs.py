"""What in docs/ is made from the code: `python tools/make_docs.py DOCS_FOLDER`."""

from __future__ import annotations

import ast
import json
import sys
import tomllib
import types
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import grimp
import input_matrix
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import raymia
from raymia.attacks import registry
from raymia.attacks.base import kinds_of_records
from raymia.perturbations.kinds import DEFAULT_STRENGTHS
from raymia.report.attack_table import access, asks_text, label, parameters, queries_text
from raymia.results.result import SCHEMA_VERSION, RunResult
from raymia.spec import AuditSpec
from raymia.spec.image_training import LoraTrainingSpec
from raymia.spec.kinds import Kinds
from raymia.spec.target_training import TargetTrainingSpec

ATTACKS_START = "<!-- made by tools/make_docs.py: attacks on {}s -->"
PARAMETERS_START = "<!-- made by tools/make_docs.py: parameters of attacks -->"
ROOMS_START = "<!-- made by tools/make_docs.py: rooms -->"
INPUT_START = "<!-- made by tools/make_docs.py: input -->"
STRENGTHS_START = "<!-- made by tools/make_docs.py: default strengths of image perturbations -->"
END = "<!-- end -->"
SCHEMA_FILE = "metrics.schema.json"
PACKAGE = Path(raymia.__file__).parent


FILES: dict[str, type[BaseModel]] = {
    "audit": AuditSpec,
    "training": TargetTrainingSpec,
    "LoRA training": LoraTrainingSpec,
}
"""What is written by hand in YAML, by what it describes; each has a page."""


def page_name(what: str) -> str:
    """The page on a file of :data:`FILES`."""
    return f"{what.lower().replace(' ', '-')}-file.md"


def file_page(what: str) -> str:
    """Every key of a file of :data:`FILES` with its type, default and description."""
    lines = [
        f"# The {what} file",
        "",
        "Made from `raymia/spec/` by `make docs`. Keys without a default are required. Relative",
        f"paths are relative to the {what} file's folder.",
    ]
    pending: list[tuple[str, type[BaseModel]]] = [("", FILES[what])]
    seen: set[type[BaseModel]] = set()
    while pending:
        place, model = pending.pop(0)
        if model in seen:
            continue
        seen.add(model)
        summary = (model.__doc__ or "").strip().splitlines()[0]
        lines += ["", f"## {place or 'Top level'}", "", summary, ""]
        if not model.model_fields:
            lines.append("It has no keys: `{}` asks for it.")
            continue
        lines += ["| key | type | default | what it is |", "|---|---|---|---|"]
        for key, field in model.model_fields.items():
            lines.append(f"| `{key}` | {_type(field)} | {_default(field)} | {_text(field)} |")
            annotation: Any = Annotated[field.annotation, *field.metadata, None]
            pending += [(_join(place, key, n), m) for n, m in _models(annotation)]
    return "\n".join(lines) + "\n"


def attacks_table(records: str) -> str:
    """The registered attacks on a kind of records as a Markdown table."""
    lines = [
        "| attack | score | source | access | asks | queries per record |",
        "|---|---|---|---|---|---|",
    ]
    for kind in registry(records).values():
        formula = kind.formula.replace("|", "\\|")
        lines.append(
            f"| `{label(kind)}` {kind.title} | `{formula}` | {kind.source} | "
            f"{access(kind, records)} | {asks_text(kind)} | {queries_text(kind, records)} |"
        )
    return "\n".join(lines)


def with_attacks_table(page: str) -> str:
    """Put the current tables between the markers of a page."""
    for records in ("text", "image"):
        page = _with(page, ATTACKS_START.format(records), attacks_table(records))
    return _with(page, PARAMETERS_START, parameters_table())


def parameters_table() -> str:
    """Every parameter of every attack; what is the same of several stands once."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    kinds = [kind for records in kinds_of_records() for kind in registry(records).values()]
    for kind in sorted({*kinds}, key=lambda kind: (kind.name, kind.__module__)):
        for parameter in parameters(kind):
            rows.setdefault(parameter, []).append(kind.name)
    lines = ["| parameter | default | of | what it is |", "|---|---|---|---|"]
    for (name, default, what), names in sorted(rows.items()):
        of = ", ".join(f"`{one}`" for one in dict.fromkeys(names))
        lines.append(f"| `{name}` | `{default}` | {of} | {what.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def strengths_table() -> str:
    """The strengths of each perturbation of images that an audit asks about by default."""
    lines = ["| `kind` | `strengths` |", "|---|---|"]
    lines += [
        f"| `{kind}` | {', '.join(f'{strength:g}' for strength in strengths)} |"
        for kind, strengths in DEFAULT_STRENGTHS.items()
    ]
    return "\n".join(lines)


def with_strengths_table(page: str) -> str:
    """Put the current table between the markers of a page."""
    return _with(page, STRENGTHS_START, strengths_table())


def with_input_tables(page: str) -> str:
    """Put the current tables between the markers of a page."""
    return _with(page, INPUT_START, input_matrix.tables())


def rooms_table() -> str:
    """The rooms from top to bottom: what each does, by its own docstring, and what it imports."""
    layers = [room for layer in _contract()["layers"] for room in layer.split(" | ")]
    graph = grimp.build_graph(
        "raymia", include_external_packages=False, exclude_type_checking_imports=True
    )
    lines = ["| room | what it does | knows |", "|---|---|---|"]
    for room in layers:
        source = (PACKAGE / room / "__init__.py").read_text(encoding="utf-8")
        first = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
        known = [
            f"`{other}`" for other in layers
            if other != room
            and _imports(graph, room, other)
        ]  # fmt: skip
        what = " ".join(first.split()).removesuffix(".")
        lines.append(f"| `{room}/` | {what} | {', '.join(known) or 'nothing else'} |")
    return "\n".join(lines)


def _contract() -> dict[str, Any]:
    """The contract on the order of the rooms, as import-linter is given it."""
    with (PACKAGE.parent / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    found: dict[str, Any] = next(one for one in contracts if one["type"] == "layers")
    return found


def _imports(graph: Any, room: str, other: str) -> bool:
    """Whether a module of a room imports one of another."""
    inside = {f"raymia.{room}", *graph.find_descendants(f"raymia.{room}")}
    there = {f"raymia.{other}", *graph.find_descendants(f"raymia.{other}")}
    return any(graph.find_modules_directly_imported_by(module) & there for module in inside)


def with_rooms_table(page: str) -> str:
    """Put the current table between the markers of a page."""
    return _with(page, ROOMS_START, rooms_table())


def _with(page: str, start: str, table: str) -> str:
    """Put a table between a marker and the next end.

    Raises
    ------
    ValueError
        If the page lacks a marker: what follows would be lost.
    """
    before, marker, rest = page.partition(start)
    _, end, after = rest.partition(END)
    if not (marker and end):
        raise ValueError(f"the page should have {start} and then {END}, but one is missing")
    return f"{before}{start}\n\n{table}\n\n{END}{after}"


def _join(place: str, key: str, suffix: str) -> str:
    return (f"{place}.{key}" if place else key) + suffix


def _models(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models inside a type, each with what stands after the key to reach it."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
    elif origin is dict:
        for suffix, model in _models(get_args(annotation)[1]):
            yield f".NAME{suffix}", model
    elif origin is list:
        for suffix, model in _models(get_args(annotation)[0]):
            yield f"[]{suffix}", model
    elif origin is Annotated:
        plain, *more = get_args(annotation)
        kinds = next((part for part in more if isinstance(part, Kinds)), None)
        yield from _models(plain if kinds is None else Union[tuple(kinds.sections)])  # noqa: UP007
    elif origin in (Union, types.UnionType):
        models = [found for option in get_args(annotation) for found in _models(option)]
        for suffix, model in models:
            others = [other for _, other in models if other is not model]
            yield (suffix or _which(model, others)) if others else suffix, model


def _which(model: type[BaseModel], others: Sequence[type[BaseModel]]) -> str:
    """What tells a model from others that may stand in its place: its kind, or its first key that
    none of them has."""
    if "kind" not in model.model_fields:
        taken = {key for other in others for key in other.model_fields}
        own = (key for key in model.model_fields if key not in taken)
        return f" (with {next(own, next(iter(model.model_fields)))})"
    kinds = _type_name(model.model_fields["kind"].annotation).replace("`", "")
    return f" (kind: {kinds})"


def _type(field: FieldInfo) -> str:
    return _type_name(field.annotation).replace("|", "or")


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return " or ".join(
            dict.fromkeys(_type_name(a) for a in get_args(annotation) if a is not type(None))
        )
    if origin is list:
        return f"list of {_type_name(get_args(annotation)[0])}"
    if origin is dict:
        return f"mapping to {_type_name(get_args(annotation)[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
        date: "date",
        Any: "anything",
    }[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    return "none" if value in (None, {}, []) else f"`{value}`"


def _text(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


def metrics_schema() -> str:
    """The JSON schema of ``metrics.json``, from the types that it is written from."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RunResult.model_json_schema(),
        "title": f"metrics.json of raymia, schema version {SCHEMA_VERSION}",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    """Write the pages and the schema."""
    for what in FILES:
        (folder / page_name(what)).write_text(file_page(what), encoding="utf-8")
    (folder / SCHEMA_FILE).write_text(metrics_schema(), encoding="utf-8")
    for name, with_tables in (
        ("architecture.md", with_rooms_table),
        ("attacks.md", with_attacks_table),
        ("images.md", with_strengths_table),
        ("input.md", with_input_tables),
    ):
        page = folder / name
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
