"""raymia: distributed membership-inference audits of generative models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from raymia.runs import StoredRun

__version__ = "0.1.0"
__all__ = ["__version__", "load_run"]


def load_run(folder: str | PathLike[str]) -> StoredRun:
    """Open the folder of a run, for a notebook; see :class:`raymia.runs.StoredRun`.

    Parameters
    ----------
    folder : a local path or an fsspec URL, `output` of the audit file.

    Raises
    ------
    InputError
        If there is no run, or it cannot be read.
    """
    from raymia.runs import load_run as load  # here: `import raymia` is quick

    return load(folder)
