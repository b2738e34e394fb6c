"""The records of an audit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raymia.spec.base import Paths, Strict
from raymia.spec.images import ImageRecordsSpec


class TextRecordsSpec(Strict):
    """Texts that are scored. Paths may be JSONL, CSV or Parquet, local or any fsspec URL."""

    kind: Literal["text"] = Field(default="text", description="may be left out")
    members: Paths = Field(default=[], description="files of records the targets were trained on")
    non_members: Paths = Field(
        default=[], description="files of held-out records from the same distribution"
    )
    candidates: Paths = Field(
        default=[], description="files of records whose membership is unknown; scored, not measured"
    )
    population: Paths = Field(
        default=[],
        description="files of texts that are no members and are not scored: RMIA's population, "
        "the prefix of ReCaLL, what quantile regression is fitted on",
    )
    known_members: Paths = Field(
        default=[],
        description="files of members that are not scored: the second prefix of CON-ReCall",
    )
    text_column: str = Field(default="text", description="name of the column that holds the text")
    group_column: str | None = Field(
        default=None,
        description="name of a column that says which records belong together, such as a document; "
        "groups are measured beside records",
    )

    @model_validator(mode="after")
    def _not_empty(self) -> TextRecordsSpec:
        if not (self.members or self.non_members or self.candidates):
            raise ValueError("give at least one file under members, non_members or candidates")
        return self


RecordsSpec = Annotated[TextRecordsSpec | ImageRecordsSpec, Field(discriminator="kind")]


class CorpusSpec(Strict):
    """Texts whose token frequencies stand for those of language at large (DC-PDD)."""

    files: Paths = Field(description="JSONL, CSV or Parquet")
    text_column: str = Field(default="text", description="name of the column that holds the text")
