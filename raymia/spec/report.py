"""What a report holds."""

from __future__ import annotations

from pydantic import Field

from raymia.spec.base import Strict


class ReportSpec(Strict):
    """What the report and metrics.json hold of the records."""

    texts: bool = Field(
        default=False,
        description="true shows the texts of the most exposed records in report.html and "
        "metrics.json; keep these files as you keep the records",
    )
    pictures: bool = Field(
        default=False, description="true shows the pictures of the most exposed images likewise"
    )
    redact: bool = Field(
        default=False,
        description="true leaves texts and pictures of records out of report.html and "
        "metrics.json, and calls files and records by other names, which depend on a secret of the "
        "store; scores stay",
    )
