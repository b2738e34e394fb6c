"""raymia: distributed membership-inference audits of generative models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from raymia.report.notebook import NotebookRun

__version__ = "0.1.0"
__all__ = ["__version__", "load_run"]


def load_run(folder: str | PathLike[str]) -> NotebookRun:
    """Open the folder of a run, for a notebook; see :class:`raymia.report.notebook.NotebookRun`.

    Parameters
    ----------
    folder : a local path or an fsspec URL, `output` of the audit file.

    Raises
    ------
    InputError
        If there is no run, or it cannot be read.
    """
    from raymia.report.notebook import NotebookRun  # here: `import raymia` is quick

    return NotebookRun.open(folder)
